// A small line over the last minutes, with its newest value.

import { el, onWidth, svg } from "./dom.js";

const HEIGHT = 56;
export const SPAN = 180; // seconds that a chart shows at most, and
const LEAST = 45; // at least
const HOLE = 4; // seconds without a value that break a line

/** Lines of one kind through [at, value] points, `value` null where there is none. */
function line(points, x, y) {
  let data = "";
  let before = null;
  for (const [at, value] of points) {
    if (value === null) continue;
    const near = before !== null && at - before < HOLE;
    data += `${near ? "L" : "M"} ${x(at).toFixed(1)} ${y(value).toFixed(1)} ${near ? "" : "h 0.01 "}`;
    before = at;
  }
  return data;
}

/** A chart of `name`: its element, and `show(frames)`, each with `at` in seconds. `series`: class -> of a frame, its
 * value or null; `range(frames)` gives the lowest and highest value drawn; `told(frame)` is the text beside it. */
export function chart({ name, series, range, told }) {
  const value = el("span", { class: "now" }, "–");
  const lines = Object.keys(series).map((kind) => [kind, svg("path", { class: `curve ${kind}` })]);
  const picture = svg("svg", { height: HEIGHT, role: "img", "aria-label": name }, svg("line", { class: "grid", x1: 0, y1: HEIGHT - 1 }), ...lines.map(([, path]) => path));
  const element = el("figure", { class: "chart" }, el("figcaption", {}, name, value), picture);
  let width = 0;
  let frames = [];

  function show(told_ = frames) {
    frames = told_;
    const last = frames.at(-1);
    if (!last || !width) return;
    const [low, high] = range(frames);
    const span = Math.max(LEAST, last.at - frames[0].at);
    const x = (at) => width - 3 - ((last.at - at) / span) * (width - 6);
    const y = (each) => HEIGHT - 4 - ((each - low) / (high - low || 1)) * (HEIGHT - 10);
    for (const [kind, path] of lines) path.setAttribute("d", line(frames.map((frame) => [frame.at, series[kind](frame)]), x, y));
    value.textContent = told(last, frames);
    picture.setAttribute("aria-label", `${name}, over the last minutes; now ${value.textContent}`);
  }

  onWidth(element, (now) => {
    width = now;
    picture.setAttribute("width", width);
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    picture.firstChild.setAttribute("x2", width);
    picture.firstChild.setAttribute("y2", HEIGHT - 1);
    show();
  });
  return { element, show };
}
