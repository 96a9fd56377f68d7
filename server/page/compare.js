// The same image through the cheapest, the chosen and the dearest stitch of the frontier.

import { classify, Problem } from "./api.js";
import { bar } from "./answer.js";
import { $, el } from "./dom.js";
import { chance, flops, ms, percent } from "./format.js";
import { get, on } from "./store.js";

const PATIENT = 2000; // ms: these are asked to be seen, not to be quick
const answers = new WeakMap(); // by image, those of pinned stitches by id

function column(title, stitch, answer) {
  const head = el("h3", {}, title);
  if (!stitch) return el("div", { class: "column" }, head, el("p", { class: "quiet" }, "–"));
  const cost = el("p", { class: "quiet small" }, `Stitch ${stitch.id} · ${flops(stitch.flops)} · ${percent(stitch.top1)} top-1`);
  if (answer instanceof Problem) return el("div", { class: "column" }, head, el("p", {}, answer.title), cost);
  if (!answer) return el("div", { class: "column" }, head, el("p", { class: "quiet" }, "…"), cost);
  const rows = answer.predictions.slice(0, 3).map(({ label, probability }) =>
    el("li", {}, el("span", { class: "label" }, label), bar(probability), el("span", { class: "number" }, chance(probability))));
  return el("div", { class: "column" }, head,
    el("p", { class: "best" }, el("span", { class: "label" }, answer.predictions[0].label)),
    el("ol", { class: "classes" }, ...rows), cost,
    el("p", { class: "quiet small" }, `${ms(answer.timing_ms.compute)} of computing`));
}

function show() {
  const frontier = get("frontier");
  const image = get("image");
  const known = answers.get(image) ?? {};
  const [cheapest, dearest] = [frontier[0], frontier.at(-1)];
  const chosen = get("answer");
  const current = chosen?.image === image ? chosen : null;
  $("compare-body").replaceChildren(
    column("Cheapest", cheapest, known[cheapest?.id]),
    column(get("pinned") ? "Pinned" : "Chosen", current?.stitch, current),
    column("Dearest", dearest, known[dearest?.id]));
}

/** Ask the cheapest and the dearest about an image, one after the other, unless `hurry` says that others wait. */
export async function compare(image, hurry) {
  const known = answers.get(image) ?? {};
  answers.set(image, known);
  for (const stitch of [get("frontier")[0], get("frontier").at(-1)]) {
    if (!stitch || (known[stitch.id] && !(known[stitch.id] instanceof Problem))) continue;
    if (hurry()) return;
    known[stitch.id] = await classify(image, { stitch: stitch.id, deadline_ms: PATIENT }).catch((problem) => problem);
    show();
  }
}

export function startCompare() {
  on("answer image frontier", show);
}
