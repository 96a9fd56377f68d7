// The request that this page sends, as others would write it.

import { parameters } from "./ask.js";
import { $, onChoice } from "./dom.js";
import { get, on } from "./store.js";

let language = "curl";

const base = () => new URL(".", location.href).href.replace(/\/$/, "");
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const keyed = (text) => (get("key") ? text : "");

const WRITTEN = {
  curl(file, asked) {
    const query = asked.stitch === undefined ? (asked.budget ? `?budget=${encodeURIComponent(asked.budget)}` : "") : `?stitch=${asked.stitch}`;
    return `curl ${keyed("-H 'Authorization: Bearer YOUR_KEY' ")}--data-binary ${quoted(`@${file}`)} \\\n  ${quoted(`${base()}/classify${query}`)}\n`;
  },
  python(file, asked) {
    const budget = asked.stitch === undefined ? (asked.budget ? `, ${JSON.stringify(asked.budget)}` : "") : `, stitch=${asked.stitch}`;
    const client = `Client(${JSON.stringify(base())}${keyed(', api_key="YOUR_KEY"')})`;
    return [
      "from stitchserve import Client", "",
      `with ${client} as client:`,
      `    answer = client.classify(${JSON.stringify(file)}${budget})`,
      "    print(answer.label, answer.stitch.name, answer.timing_ms.total)", "",
    ].join("\n");
  },
  triton(file, asked) {
    const limit = asked.stitch ?? asked.budget;
    const model = limit === undefined ? "auto" : `auto@${limit}`;
    const address = base().replace(/^https?:\/\//, "");
    const secure = location.protocol === "https:" ? ", ssl=True" : "";
    const headers = keyed(', headers={"Authorization": "Bearer YOUR_KEY"}');
    return [
      "from pathlib import Path", "", "import numpy as np", "import tritonclient.http as triton", "",
      `client = triton.InferenceServerClient(${JSON.stringify(address)}${secure})`,
      'image = triton.InferInput("image", [1], "BYTES")',
      `image.set_data_from_numpy(np.array([Path(${JSON.stringify(file)}).read_bytes()], dtype=object))`,
      'wanted = [triton.InferRequestedOutput("probabilities", class_count=5), triton.InferRequestedOutput("stitch")]',
      `result = client.infer(${JSON.stringify(model)}, [image], outputs=wanted${headers})`,
      'print(result.as_numpy("probabilities"), result.as_numpy("stitch"))', "",
    ].join("\n");
  },
};

function show() {
  const name = get("image")?.name ?? "image.jpg";
  $("snippet").textContent = WRITTEN[language](name, parameters());
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("snippet")); // no clipboard without HTTPS: select it, to be copied by hand
    $("copy").textContent = "Selected";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

export function startSnippets() {
  on("image budget pinned key", show);
  onChoice("lang", (value) => {
    language = value;
    show();
  });
  $("copy").addEventListener("click", copy);
  show();
}
