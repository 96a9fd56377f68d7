// Which image is asked about: dropped, pasted, picked, or one of the samples.

import { read } from "./api.js";
import { $, el } from "./dom.js";
import { on, get, set } from "./store.js";

const MOST_BYTES = 1_500_000; // above, and
const MOST_SIDE = 1280; // pixels, a photograph is made smaller, for it is sent again with every move of the slider

/** Make this the image; `shown` is false where the pad shows it already. */
export function use(blob, name, shown = true) {
  const before = get("image");
  const url = URL.createObjectURL(blob);
  set("image", { blob, name, url, shown });
  if (before) setTimeout(() => URL.revokeObjectURL(before.url), 1000); // what shows it may still load it
}

async function smaller(blob) {
  if (blob.size <= MOST_BYTES) return blob;
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (!bitmap) return blob; // the server says what is wrong with it
  const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return made ?? blob;
}

async function take(files) {
  const file = [...files].find((each) => each.type.startsWith("image/")) ?? files[0];
  if (!file) return;
  if (!file.type.startsWith("image/")) {
    $("image-note").textContent = `${file.name} is not an image.`;
    return;
  }
  const blob = await smaller(file);
  use(blob, file.name || "image.png");
  if (blob !== file) $("image-note").textContent = `${file.name}, sent smaller than it is.`;
}

function show(image) {
  const preview = $("preview");
  $("image-note").textContent = image.name;
  $("drop-hint").hidden = true;
  preview.hidden = !image.shown;
  preview.src = image.url;
  preview.alt = `The image asked about: ${image.name}`;
  for (const button of $("samples").children) button.setAttribute("aria-pressed", String(button.value === image.name));
}

async function sample(name) {
  const response = await fetch(`console/samples/${encodeURIComponent(name)}`);
  if (response.ok) use(await response.blob(), name);
}

async function showSamples() {
  const names = await read("console/samples").catch(() => []);
  $("samples").replaceChildren(
    ...names.map((name) => {
      const picture = el("img", { src: `console/samples/${encodeURIComponent(name)}`, alt: "", width: 48, height: 48 });
      const label = `Sample ${name.replace(/\.\w+$/, "")}`;
      const button = el("button", { type: "button", value: name, "aria-label": label, "aria-pressed": "false" }, picture);
      button.addEventListener("click", () => sample(name));
      return button;
    }),
  );
  $("samples").hidden = !names.length;
  if (names.length && !get("image")) await sample(names[Math.floor(names.length / 3)]);
}

export function startImage() {
  on("image", show);
  $("pick").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file can be picked again
  });
  document.addEventListener("paste", (event) => event.clipboardData?.files.length && take(event.clipboardData.files));
  for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", over);
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  return showSamples();
}
