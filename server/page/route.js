// The route, drawn: each anchor a row of blocks, the answer's path through them, its stitching layers lit.

import { $, onWidth, roving, svg } from "./dom.js";
import { flops, ms } from "./format.js";
import { get, on } from "./store.js";

const ROW = 74; // pixels from one anchor to the next
const TOP = 20; // above a row's blocks, for the anchor's name
const TALLEST = 40;
const EDGE = 10;

/** A route's segments: "a[0:4]>b[4:12]" -> [{anchor, start, stop}]. */
export function segments(route) {
  return route.split(">").map((piece) => {
    const [, anchor, start, stop] = piece.match(/^(.+)\[(\d+):(\d+)\]$/);
    return { anchor, start: Number(start), stop: Number(stop) };
  });
}

/** Where everything of a row stands: stem, blocks, head, each {x, width, part, name}. */
function layout(anchor, row, width, widest) {
  const gap = (at) => (at && anchor.blocks[at].stage !== anchor.blocks[at - 1].stage ? 6 : 0);
  const gaps = anchor.blocks.reduce((sum, _, at) => sum + gap(at), 0);
  const slot = (width - 2 * EDGE - gaps) / (anchor.blocks.length + 1.4);
  const middle = row * ROW + TOP + TALLEST / 2;
  let x = EDGE;
  const place = (part, share, kind, height) => {
    const spot = { part, kind, x: x + 1, width: Math.max(2, slot * share - 2), middle, height };
    x += slot * share;
    return spot;
  };
  const stem = place(anchor.stem, 0.7, "stem", 14);
  const blocks = anchor.blocks.map((block, at) => {
    x += gap(at);
    return place(block, 1, "block", 12 + (TALLEST - 12) * Math.sqrt(block.width / widest));
  });
  return { anchor, stem, blocks, head: place(anchor.head, 0.7, "head", 14) };
}

function described(spot, anchor, at) {
  const { part } = spot;
  const name = spot.kind === "block" ? `${anchor.name}, block ${at}` : `${anchor.name}, ${spot.kind === "stem" ? "stem" : "head"}`;
  const wide = part.width ? `${part.width} wide` : null;
  return [name, flops(part.flops), wide, ms(part.latency_ms)].filter(Boolean).join(" · ");
}

function mark(kind, shape, text) {
  const node = svg("g", { class: kind, role: "img", "aria-label": text }, shape);
  const tell = () => ($("route-read").textContent = text);
  node.addEventListener("pointerenter", tell);
  node.addEventListener("focus", tell);
  return node;
}

function drawRow(row) {
  const { anchor } = row;
  return [row.stem, ...row.blocks, row.head].map((spot, at) => {
    const { x, width, middle, height } = spot;
    const shape = svg("rect", { x, y: middle - height / 2, width, height, rx: Math.min(4, width / 3) });
    return (spot.node = mark(`part ${spot.kind}`, shape, described(spot, anchor, at - 1)));
  });
}

/** The path of a route as SVG path data, and the middles of its joins. */
function traced(parts, rows) {
  const joins = [];
  let data = "";
  parts.forEach((part, at) => {
    const row = rows.find((each) => each.anchor.name === part.anchor);
    const first = row.blocks[part.start];
    const from = at ? first.x + first.width * 0.25 : row.stem.x + row.stem.width / 2;
    const last = row.blocks[part.stop - 1];
    const to = at < parts.length - 1 ? last.x + last.width * 0.75 : row.head.x + row.head.width / 2;
    if (at) {
      const before = joins.at(-1);
      const bend = Math.max(14, (from - before.x) * 0.6);
      data += ` C ${before.x + bend} ${before.y}, ${from - bend} ${first.middle}, ${from} ${first.middle}`;
      Object.assign(before, { x: (before.x + from) / 2, y: (before.y + first.middle) / 2 });
    } else {
      data = `M ${from} ${first.middle}`;
    }
    data += ` L ${to} ${first.middle}`;
    if (at < parts.length - 1) joins.push({ x: to, y: first.middle, place: `${part.anchor}[:${part.stop}]>${parts[at + 1].anchor}[${parts[at + 1].start}:]` });
  });
  return { data, joins };
}

function onPath(parts, rows) {
  const lit = new Set();
  parts.forEach((part, at) => {
    const row = rows.find((each) => each.anchor.name === part.anchor);
    if (!at) lit.add(row.stem);
    row.blocks.slice(part.start, part.stop).forEach((spot) => lit.add(spot));
    if (at === parts.length - 1) lit.add(row.head);
  });
  return lit;
}

function join({ x, y, place }) {
  const layer = get("anatomy").joins.find((each) => each.places.includes(place));
  const [front, end] = place.split(">");
  const sizes = layer ? `${layer.width_in} → ${layer.width_out} wide` : null;
  const text = [`Stitching layer, ${front.split("[")[0]} to ${end.split("[")[0]}`, flops(layer?.flops), sizes, ms(layer?.latency_ms)].filter(Boolean).join(" · ");
  return mark("join", svg("circle", { cx: x, cy: y, r: 7 }), text);
}

let rows = [];
let layer = null;

function light() {
  const stitch = get("answer")?.stitch;
  if (!stitch || !layer) return;
  const parts = segments(stitch.name);
  const lit = onPath(parts, rows);
  for (const row of rows) for (const spot of [row.stem, ...row.blocks, row.head]) spot.node.classList.toggle("lit", lit.has(spot));
  const { data, joins } = traced(parts, rows);
  layer.replaceChildren(svg("path", { class: "path", d: data }), ...joins.map(join));
  layer.querySelectorAll(".join").forEach((node) => node.setAttribute("tabindex", "0"));
  $("route-name").textContent = `${stitch.name} · ${flops(stitch.flops)}`;
}

function draw(width) {
  const anatomy = get("anatomy");
  if (!anatomy || !width) return;
  const widest = Math.max(...anatomy.anchors.flatMap(({ blocks }) => blocks.map((block) => block.width)));
  rows = anatomy.anchors.map((anchor, at) => layout(anchor, at, width, widest));
  const height = rows.length * ROW + 4;
  const picture = svg("svg", { class: "route", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Anchors and the route through them" });
  const marks = [];
  rows.forEach((row, at) => {
    const { blocks } = row.anchor;
    const widths = [...new Set(blocks.map((block) => block.width))].join(", ");
    picture.append(svg("text", { x: EDGE, y: at * ROW + 13 }, `${row.anchor.name} `, svg("tspan", { class: "quiet" }, `${blocks.length} blocks, ${widths} wide`)));
    marks.push(...drawRow(row));
  });
  layer = svg("g");
  picture.append(...marks, layer);
  roving(marks, { row: rows[0].blocks.length + 2 });
  $("route-picture").replaceChildren(picture);
  light();
}

export function startRoute() {
  let width = 0;
  onWidth($("route-picture"), (now) => draw((width = now)));
  on("anatomy", () => draw(width));
  on("answer", light);
}
