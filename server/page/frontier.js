// The frontier, drawn: every stitch a point, what it costs against what it is worth; a point can be pinned.

import { $, onChoice, onWidth, roving, svg } from "./dom.js";
import { flops, flopsUnit, ms, percent, ticks } from "./format.js";
import { get, on, set, stitch } from "./store.js";

const PAD = { left: 46, right: 14, top: 12, bottom: 36 };
const NEAR = 22; // pixels, at most, from a click to what it means

let axis = "flops";
let width = 0;
let height = 300;
let points = [];
let marks = {};

const known = () => get("table").stitches.some((each) => each.top1 !== null);
const cost = (each) => (axis === "flops" ? each.flops : each.latency_ms);
const worth = (each) => (known() ? each.top1 : axis === "flops" ? each.latency_ms : each.flops);

function scale(values, from, to, logarithmic) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const spread = logarithmic ? 0 : (most - least || Math.abs(most) || 1) * 0.06;
  const [low, high] = logarithmic ? [Math.log(least * 0.94), Math.log(most * 1.06)] : [least - spread, most + spread];
  const at = (value) => from + (((logarithmic ? Math.log(value) : value) - low) / (high - low || 1)) * (to - from);
  return { at, least: logarithmic ? Math.exp(low) : low, most: logarithmic ? Math.exp(high) : high };
}

function logTicks(least, most) {
  const found = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power++) {
    for (const lead of most / least > 30 ? [1, 3] : [1, 2, 5]) {
      const value = lead * 10 ** power;
      if (value >= least && value <= most) found.push(value);
    }
  }
  return found.length > 1 ? found : ticks(least, most);
}

/** Those that none cheaper matches, cheapest first; all of them where nothing says what they are worth. */
function undominated(shown) {
  let best = -Infinity;
  const inOrder = [...shown].sort((a, b) => cost(a) - cost(b) || worth(b) - worth(a));
  return known() ? inOrder.filter((each) => worth(each) > best && ((best = worth(each)), true)) : [];
}

const text = (each) => [`Stitch ${each.id}, ${each.name}`, flops(each.flops), known() ? `${percent(each.top1)} top-1` : null, ms(each.latency_ms)].filter(Boolean).join(" · ");

function pin(each) {
  set("pinned", get("pinned")?.id === each.id ? null : each);
}

function tell(each) {
  $("frontier-read").textContent = text(each);
}

function point(each, x, y, front) {
  const node = svg("circle", { cx: x, cy: y, r: front ? 4.5 : 3, class: front ? "point front" : "point", role: "button", "aria-label": text(each), "aria-pressed": "false" });
  node.addEventListener("focus", () => tell(each));
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pin(each);
  });
  return node;
}

function axes(x, y, many) {
  const xs = [x.least, x.most];
  const [over, unit] = axis === "flops" ? flopsUnit(x.most) : [1, "ms"];
  const worthIn = known() ? [1, "top-1, %"] : axis === "flops" ? [1, "ms"] : flopsUnit(y.most);
  const bottom = height - PAD.bottom;
  const lines = [];
  for (const value of many ? logTicks(...xs) : ticks(...xs, 4)) {
    lines.push(svg("text", { class: "tick", x: x.at(value), y: bottom + 16, "text-anchor": "middle" }, String(Number((value / over).toPrecision(3)))));
    lines.push(svg("line", { class: "grid", x1: x.at(value), x2: x.at(value), y1: PAD.top, y2: bottom }));
  }
  for (const value of ticks(y.least, y.most, 5)) {
    lines.push(svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y.at(value), y2: y.at(value) }));
    lines.push(svg("text", { class: "tick", x: PAD.left - 7, y: y.at(value) + 4, "text-anchor": "end" }, String(Number((value / worthIn[0]).toPrecision(3)))));
  }
  const titles = [
    svg("text", { class: "tick", x: width - PAD.right, y: height - 4, "text-anchor": "end" }, axis === "flops" ? unit : "ms for one image here"),
    svg("text", { class: "tick", x: 2, y: height - 4 }, known() ? "↑ top-1, %" : `↑ ${worthIn[1]} (no top-1 is known)`),
  ];
  return [...lines, ...titles];
}

function draw() {
  const table = get("table");
  if (!table || !width) return;
  height = width > 560 ? 430 : 300;
  const shown = table.stitches.filter((each) => cost(each) !== null && worth(each) !== null);
  if (!shown.length) return;
  const many = shown.length > 1 && Math.max(...shown.map(cost)) / Math.min(...shown.map(cost)) > 4;
  const x = scale(shown.map(cost), PAD.left, width - PAD.right, many);
  const y = scale(shown.map(worth), height - PAD.bottom, PAD.top, false);
  const front = undominated(shown);
  const line = front.map((each, at) => `${at ? "L" : "M"} ${x.at(cost(each))} ${y.at(worth(each))}`).join(" ");
  const rest = shown.filter((each) => !front.includes(each));
  const placed = (each) => ({ each, x: x.at(cost(each)), y: y.at(worth(each)) });
  points = [...front, ...rest].map(placed);
  const nodes = points.map((spot) => (spot.node = point(spot.each, spot.x, spot.y, front.includes(spot.each))));
  marks = { level: svg("circle", { class: "level", r: 10 }), pinned: svg("circle", { class: "pinned", r: 8 }) };
  const picture = svg("svg", { class: "frontier", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Stitches by cost and worth" });
  picture.append(...axes(x, y, many), svg("path", { class: "line", d: line }), marks.level, marks.pinned);
  picture.append(...[...nodes].reverse()); // the frontier on top
  roving(nodes);
  listen(picture);
  $("frontier-picture").replaceChildren(picture);
  follow();
}

function nearest(event, picture) {
  const box = picture.getBoundingClientRect();
  const away = ({ x, y }) => Math.hypot(x - (event.clientX - box.left), y - (event.clientY - box.top));
  const spot = points.reduce((best, each) => (away(each) < away(best) ? each : best));
  return away(spot) <= NEAR ? spot.each : null;
}

function listen(picture) {
  picture.addEventListener("pointermove", (event) => {
    const each = nearest(event, picture);
    picture.classList.toggle("near", Boolean(each));
    if (each) tell(each);
  });
  picture.addEventListener("click", (event) => {
    const each = nearest(event, picture);
    if (each) pin(each);
  });
}

function put(mark, id) {
  const spot = points.find((each) => each.each.id === id);
  mark?.classList.toggle("shown", Boolean(spot));
  if (spot) mark?.setAttribute("transform", `translate(${spot.x} ${spot.y})`);
}

function follow() {
  const chosen = get("answer")?.stitch.id;
  const pinned = get("pinned")?.id;
  put(marks.level, get("level")?.id);
  put(marks.pinned, pinned);
  for (const { node, each } of points) {
    node.classList.toggle("chosen", each.id === chosen);
    node.setAttribute("aria-pressed", String(each.id === pinned));
  }
}

export function startFrontier() {
  onWidth($("frontier-picture"), (now) => {
    width = now;
    draw();
  });
  onChoice("axis", (value) => {
    axis = value;
    draw();
  });
  on("table", draw);
  on("level answer pinned", follow);
  on("pinned", (pinned) => {
    if (pinned) $("frontier-read").textContent = `Pinned: ${text(stitch(pinned.id) ?? pinned)}`;
  });
}
