// The console: each part listens to what the page knows; here they are started, and what it knows is asked for.

import { startAnswer } from "./answer.js";
import { read } from "./api.js";
import { startAsking } from "./ask.js";
import { startBudget } from "./budget.js";
import { startBurst } from "./burst.js";
import { startCompare } from "./compare.js";
import { $ } from "./dom.js";
import { startFrontier } from "./frontier.js";
import { startImage } from "./image.js";
import { startLive } from "./live.js";
import { startPad } from "./pad.js";
import { startRoute } from "./route.js";
import { startSnippets } from "./snippets.js";
import { set } from "./store.js";

async function learn() {
  const [table, status] = await Promise.all([read("stitches"), read("status")]);
  document.title = `${table.model} · stitchserve`;
  $("server").textContent = `${table.model} on ${table.device} · ${table.stitches.length} stitches · policy ${status.policy}`;
  $("source").textContent = `Top-1: ${table.top1_source}.`;
  set("table", table);
  set("slo", status.slo_ms);
  set("frontier", table.stitches.filter((each) => each.frontier).sort((a, b) => a.flops - b.flops));
}

for (const start of [startAnswer, startAsking, startBudget, startBurst, startCompare, startFrontier, startLive, startPad, startRoute, startSnippets]) {
  start();
}
try {
  await learn();
  await startImage();
  set("anatomy", await read("anchors")); // counted when it is asked for first, so that it comes last
} catch (problem) {
  set("problem", problem);
}
