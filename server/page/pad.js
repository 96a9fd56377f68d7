// A pad to draw two digits on, for the family that reads them. What is drawn is put into a picture like those that the
// network has learnt from: 64 pixels square, light ink on a dark, slightly uneven and grainy ground.

import { $, el } from "./dom.js";
import { use } from "./image.js";
import { on } from "./store.js";

const SIZE = 64; // pixels
const CENTRES = [18.5, 45.5]; // pixels from the left, of tens and units
const TALL = 21; // pixels of a digit
const BROAD = [0.62, 0.85]; // of its height; handwriting on a wide pad comes out narrower than the scans are
const THIN = 0.3; // below which it is a one, which stays as it is
const INK = 3.6; // pixels of a stroke
const WAIT = 250; // ms after a stroke until the server is asked

let strokes = [];
let timer = 0;

const spot = (event, canvas) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};

function lines(context, drawn, width) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const stroke of drawn) {
    context.beginPath();
    stroke.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);
    context.stroke();
  }
}

function paint() {
  const pad = $("pad");
  const context = pad.getContext("2d");
  const scale = pad.width;
  context.fillStyle = "#14171f";
  context.fillRect(0, 0, scale, scale);
  context.fillStyle = "#2a2f3b";
  context.fillRect(scale / 2 - 1, scale * 0.08, 2, scale * 0.84);
  context.strokeStyle = "#e9e6dc";
  lines(context, strokes.map((stroke) => stroke.map(([x, y]) => [x * scale, y * scale])), scale * 0.055);
}

const middle = (stroke) => stroke.reduce((sum, [x]) => sum + x, 0) / stroke.length;

/** Strokes of one digit, at the size and place that the network knows. */
function placed(drawn, centre) {
  const xs = drawn.flat().map(([x]) => x);
  const ys = drawn.flat().map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const tall = (TALL - INK) / Math.max(bottom - top, 0.05);
  const ratio = (right - left) / Math.max(bottom - top, 0.05);
  const broad = ratio < THIN ? tall : (tall * Math.min(Math.max(ratio * 1.2, BROAD[0]), BROAD[1])) / ratio;
  const at = ([x, y]) => [centre + (x - (left + right) / 2) * broad, SIZE / 2 + (y - (top + bottom) / 2) * tall];
  return drawn.map((stroke) => stroke.map(at));
}

/** A small generator of numbers in 0..1, the same for the same seed: a drawing's ground does not flicker. */
function noise(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function ground(context) {
  const next = noise(7);
  const coarse = el("canvas", { width: 5, height: 5 }).getContext("2d");
  for (let at = 0; at < 25; at++) {
    coarse.fillStyle = `rgb(${[18, 22, 30].map((base) => base + next() * 26).join(" ")})`;
    coarse.fillRect(at % 5, Math.floor(at / 5), 1, 1);
  }
  context.imageSmoothingEnabled = true;
  context.drawImage(coarse.canvas, 0, 0, SIZE, SIZE);
}

function grain(context) {
  const pixels = context.getImageData(0, 0, SIZE, SIZE);
  const next = noise(11);
  for (let at = 0; at < pixels.data.length; at++) {
    if (at % 4 < 3) pixels.data[at] += (next() + next() + next() - 1.5) * 15;
  }
  context.putImageData(pixels, 0, 0);
}

function picture() {
  const canvas = el("canvas", { width: SIZE, height: SIZE });
  const context = canvas.getContext("2d");
  ground(context);
  context.filter = "blur(0.9px)"; // scans of eight pixels, made larger, have soft edges
  CENTRES.forEach((centre, digit) => {
    const drawn = strokes.filter((stroke) => middle(stroke) < 0.5 === (digit === 0));
    context.strokeStyle = ["#dfe6e2", "#e6dfd2"][digit];
    if (drawn.length) lines(context, placed(drawn, centre), INK);
  });
  context.filter = "none";
  grain(context);
  return canvas;
}

function send() {
  if (strokes.length) picture().toBlob((blob) => use(blob, "drawing.png", false), "image/png");
}

function mode(drawing) {
  $("pad").hidden = $("clear").hidden = !drawing;
  $("draw").setAttribute("aria-pressed", String(drawing));
  $("drop").classList.toggle("drawing", drawing);
  if (drawing) $("preview").hidden = $("drop-hint").hidden = true;
}

function draw(pad) {
  let stroke = null;
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    strokes.push((stroke = [spot(event, pad)]));
    clearTimeout(timer);
    paint();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    stroke.push(...(event.getCoalescedEvents?.() ?? [event]).map((each) => spot(each, pad)), spot(event, pad));
    paint();
  });
  const done = () => {
    if (stroke) timer = setTimeout(send, WAIT);
    stroke = null;
  };
  pad.addEventListener("pointerup", done);
  pad.addEventListener("pointercancel", done);
}

export function startPad() {
  on("table", (table) => ($("draw").hidden = table.model !== "digits"));
  on("image", (image) => image.shown && mode(false));
  $("draw").addEventListener("click", () => {
    mode(true);
    paint();
    $("image-note").textContent = "Two digits, side by side: tens on the left.";
  });
  $("clear").addEventListener("click", () => {
    strokes = [];
    paint();
  });
  draw($("pad"));
}
