// What the server does now and did in the last minutes, as it tells once a second.

import { chart, SPAN } from "./chart.js";
import { $ } from "./dom.js";
import { count, flops, percent } from "./format.js";
import { get, on, set } from "./store.js";

const LOST = 4000; // ms without a word

let frames = [];
let silence = 0;

const most = (of, least) => (shown) => [0, Math.max(least, ...shown.map(of))];
const costs = () => get("table")?.stitches.map((each) => each.flops) ?? [0, 1];
const tops = () => get("table")?.stitches.map((each) => each.top1).filter((each) => each !== null) ?? [];
const newest = (of) => (_, shown) => percent([...shown].reverse().map(of).find((each) => each !== null) ?? null);

const CHARTS = [
  {
    name: "Load",
    series: { main: (each) => each.answered_per_second, refused: (each) => (each.refused_per_second ? each.refused_per_second : null) },
    range: most((each) => Math.max(each.answered_per_second, each.refused_per_second), 10),
    told: (each) => `${count(each.answered_per_second)} images/s${each.refused_per_second ? `, ${count(each.refused_per_second)} refused` : ""}`,
  },
  { name: "Queue", series: { main: (each) => each.queued }, range: most((each) => each.queued, 8), told: (each) => `${each.queued} waiting, ${each.inside} inside` },
  {
    name: "Level",
    series: { main: (each) => each.level.flops },
    range: () => [0, Math.max(...costs())],
    told: (each) => `stitch ${each.level.id}, ${flops(each.level.flops)}`,
  },
  {
    name: "Top-1 served",
    series: { main: (each) => each.top1_served },
    range: () => (tops().length ? [Math.min(...tops()), Math.max(...tops())] : [0, 100]),
    told: newest((each) => each.top1_served),
  },
  { name: "SLO met", series: { main: (each) => each.slo_met }, range: () => [0, 100], told: newest((each) => each.slo_met) },
];

function health(state, text) {
  $("health").dataset.state = state;
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

function hear(charts, told) {
  const newest = told.at(-1);
  if (!newest) return;
  frames = [...frames, ...told].filter((each) => each.at > newest.at - SPAN);
  for (const each of charts) each.show(frames);
  if (get("level")?.id !== newest.level.id) set("level", newest.level);
  health(newest.ready ? "ready" : "wait", newest.ready ? "ready" : "not ready");
  clearTimeout(silence);
  silence = setTimeout(() => health("lost", "no word"), LOST);
}

export function startLive() {
  const charts = CHARTS.map(chart);
  $("charts").replaceChildren(...charts.map((each) => each.element));
  on("table", () => charts.forEach((each) => each.show(frames)));
  const source = new EventSource("events");
  source.addEventListener("history", (event) => {
    frames = [];
    hear(charts, JSON.parse(event.data));
  });
  source.addEventListener("message", (event) => hear(charts, [JSON.parse(event.data)]));
  source.addEventListener("error", () => health("lost", source.readyState === EventSource.CLOSED ? "no live data" : "reconnecting"));
}
