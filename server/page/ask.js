// Asks the server: at most one request at a time, the last wish wins, and a server that is busy is left alone for as
// long as it says.

import { classify } from "./api.js";
import { compare } from "./compare.js";
import { get, on, set } from "./store.js";

const STILL = 80; // ms without another wish before it is sent
const MOST_TRIES = 3;
const MOST_WAIT = 5; // seconds

let timer = 0;
let busy = false;
let wanted = false;
let tries = 0;

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** The query parameters of what is asked for now. */
export function parameters() {
  const pinned = get("pinned");
  return pinned ? { stitch: pinned.id } : get("budget");
}

async function once() {
  const image = get("image");
  if (!image) return;
  set("asking", true);
  try {
    set("answer", { ...(await classify(image, parameters())), image });
    tries = 0;
    await compare(image, () => wanted);
  } catch (problem) {
    set("problem", problem);
    if ([503, 504].includes(problem.status) && ++tries < MOST_TRIES) {
      await pause(Math.min(problem.retryAfter ?? 1, MOST_WAIT) * (1 + 0.3 * Math.random()));
      wanted = true;
    }
  } finally {
    set("asking", false);
  }
}

async function pump() {
  wanted = true;
  if (busy) return;
  busy = true;
  try {
    while (wanted) {
      wanted = false;
      await once();
    }
  } finally {
    busy = false;
  }
}

export function startAsking() {
  on("image budget pinned key", () => {
    clearTimeout(timer);
    tries = 0;
    timer = setTimeout(pump, STILL);
  });
}
