// The budget: one slider over what the frontier offers, in FLOPs, milliseconds or least top-1.

import { ms, percent } from "./format.js";
import { $, onChoice } from "./dom.js";
import { get, on, set } from "./store.js";

const ROUND = [1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 5000];
let unit = "flops";
let steps = [];
const places = {}; // where the slider stood, by unit

/** FLOPs as a term of the grammar, rounded up so that the stitch they are of fits. */
export function flopsTerm(value) {
  const [divisor, name] = value >= 1e9 ? [1e9, "GFLOPs"] : value >= 1e6 ? [1e6, "MFLOPs"] : [1e3, "kFLOPs"];
  const scaled = value / divisor;
  const grain = 10 ** (Math.floor(Math.log10(scaled)) - 2);
  return `${Number((Math.ceil(scaled / grain - 1e-9) * grain).toPrecision(6))}${name}`;
}

const spaced = (term) => term.replace(/(?<=\d)(?=[A-Za-z%])/, " ");

const KINDS = {
  flops: (frontier) => [
    ...frontier.slice(0, -1).map((each) => ({ term: flopsTerm(each.flops), text: `at most ${spaced(flopsTerm(each.flops))}` })),
    { term: null, text: "any FLOPs" },
  ],
  time: (frontier, slo) => {
    const least = Math.min(...frontier.map((each) => each.latency_ms ?? 1));
    const most = Math.max(slo ?? 50, 4 * Math.max(...frontier.map((each) => each.latency_ms ?? 1)));
    const within = ROUND.filter((each) => each > least && each < most);
    return [
      ...within.map((each) => ({ term: `${each}ms`, text: `within ${each} ms` })),
      { term: null, text: slo ? `the server's own ${ms(slo)}` : "the server's own deadline" },
    ];
  },
  top1: (frontier) => {
    const known = frontier.filter((each) => each.top1 !== null).map((each) => Math.floor(each.top1 * 100) / 100);
    return [{ term: null, text: "any accuracy" }, ...known.map((each) => ({ term: `${each}%`, text: `at least ${percent(each)} top-1` }))];
  },
};

const NOTES = {
  flops: "Multiply-adds for one image: the best stitch that costs no more.",
  time: "From the request's arrival to its answer, waiting included.",
  top1: "Under load a cheaper stitch may answer, but none below this.",
};

/** Where the slider first stands: at the dearest stitch, near the middle, that is joined of several anchors. */
function firstShown(frontier) {
  const middle = Math.ceil(frontier.length * 0.6);
  const joined = frontier.findLastIndex((each, at) => at <= middle && !each.anchor);
  return joined < 0 ? frontier.length - 1 : joined;
}

function build() {
  const frontier = get("frontier");
  if (!frontier.length) return;
  steps = KINDS[unit](frontier, get("slo"));
  const slider = $("budget");
  slider.max = String(steps.length - 1);
  places.flops ??= firstShown(frontier);
  slider.value = String(places[unit] ?? steps.findIndex((each) => each.term === null));
  slider.disabled = steps.length < 2;
  const short = (step) => step.text.replace(/^(at most|at least|within|the server's own) /, "");
  $("budget-least").textContent = short(steps[0]);
  $("budget-most").textContent = short(steps.at(-1));
  $("budget-note").textContent = steps.length < 2 ? "No top-1 is known for this family, so nothing can be asked of it." : NOTES[unit];
  show();
}

function show() {
  const step = steps[Number($("budget").value)];
  $("budget-value").textContent = step.text;
  $("budget").setAttribute("aria-valuetext", step.text);
  set("budget", step.term ? { budget: step.term } : {});
}

export function startBudget() {
  on("frontier slo", build);
  onChoice("unit", (value) => {
    unit = value;
    build();
  });
  $("budget").addEventListener("input", (event) => {
    places[unit] = Number(event.target.value);
    show();
  });
  on("pinned", (pinned) => {
    $("pin").hidden = !pinned;
    $("asked").classList.toggle("pinned", Boolean(pinned));
    $("pin-text").textContent = pinned ? `Stitch ${pinned.id} is pinned: ${pinned.name}` : "";
  });
  $("unpin").addEventListener("click", () => {
    set("pinned", null);
    $("budget").focus();
  });
  $("key").addEventListener("change", (event) => set("key", event.target.value.trim()));
}
