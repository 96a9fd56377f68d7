// The answer: classes with probabilities, the stitch and why, and where the time went.

import { $, el, svg } from "./dom.js";
import { chance, flops, ms, percent } from "./format.js";
import { on } from "./store.js";

const STAGES = ["decode", "queue", "compute", "rest"];

/** A horizontal bar of a share, 0 to 1. */
export function bar(share) {
  const drawn = svg("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" });
  drawn.append(svg("rect", { class: "track", width: 100, height: 6 }), svg("rect", { class: "fill", width: Math.max(0.4, share * 100), height: 6 }));
  return drawn;
}

function classes(predictions) {
  return el("ol", { class: "classes" },
    ...predictions.map(({ label, probability }) =>
      el("li", {}, el("span", { class: "label" }, label), bar(probability), el("span", { class: "number" }, chance(probability)))));
}

/** Decode, queue, compute and the rest, in ms, of an answer's timing. */
function spent({ decode, queue, compute, total }) {
  return { decode, queue, compute, rest: Math.max(0, total - decode - queue - compute) };
}

function time(timing) {
  const parts = spent(timing);
  const drawn = svg("svg", { class: "stages", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" });
  let at = 0;
  for (const stage of STAGES) {
    const width = (parts[stage] / Math.max(timing.total, 1e-6)) * 100;
    drawn.append(svg("rect", { class: stage, x: at, width, height: 6 }));
    at += width;
  }
  const key = STAGES.map((stage) => el("li", {}, el("span", { class: `swatch ${stage}`, "aria-hidden": "true" }), `${stage} `, el("b", {}, ms(parts[stage]))));
  return el("div", { class: "time" }, el("h3", {}, "Time ", el("b", {}, ms(timing.total))), drawn, el("ul", { class: "key" }, ...key));
}

function fact(name, ...value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, ...value));
}

function show(answer) {
  const { predictions, stitch, reason, budget, timing_ms: timing } = answer;
  const [best] = predictions;
  const facts = el("dl", { class: "facts" },
    fact("Stitch", `${stitch.id}`, el("span", { class: "quiet" }, ` ${stitch.name}`)),
    fact("Cost", flops(stitch.flops)),
    fact("Top-1", percent(stitch.top1)),
    fact("Why", reason),
    fact("Budget", budget.met ? "met" : "not met"));
  $("answer-body").replaceChildren(
    el("p", { class: "best" }, el("span", { class: "label" }, best.label), el("span", { class: "chance" }, chance(best.probability))),
    classes(predictions), facts, time(timing));
  $("said").textContent = `${best.label}, ${chance(best.probability)}, by stitch ${stitch.id}: ${reason}`;
}

function refuse(problem) {
  const text = problem.message;
  $("answer-body").replaceChildren(el("p", { class: "problem" }, el("b", {}, `${problem.title}. `), text));
  $("said").textContent = `${problem.title}. ${text}`;
}

export function startAnswer() {
  on("answer", show);
  on("problem", refuse);
  on("asking", (asking) => $("answer").setAttribute("aria-busy", String(asking)));
}
