// A bounded load from this page: a few forms of images in flight for some seconds, or until it is stopped.

import { classifyMany } from "./api.js";
import { $ } from "./dom.js";
import { get } from "./store.js";

const SECONDS = 10;
const FORMS = 4; // in flight at once; a browser keeps six connections to a server
const FIRST = 4; // images in each: so many at first, one more after each answer,
const MOST = 12; // to this many; after a refusal, which is one of the whole form, half as many

let stop = null;

function outcome(results) {
  const answered = results.filter((each) => each.predictions).length;
  return [answered, results.length - answered];
}

async function worker(image, ends, signal, tally) {
  let images = FIRST;
  while (performance.now() < ends && !signal.aborted) {
    try {
      const [answered, refused] = outcome((await classifyMany(image, images, signal)).results);
      tally.answered += answered;
      tally.refused += refused;
      images = Math.min(images + 1, MOST);
    } catch (problem) {
      if (signal.aborted) return;
      tally.refused += images;
      images = Math.ceil(images / 2);
      const seconds = Math.min(problem.retryAfter ?? 0.5, 2);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

function tell(tally, ends) {
  const left = Math.max(0, (ends - performance.now()) / 1000);
  const refused = tally.refused ? `, ${tally.refused} refused` : "";
  return `${Math.ceil(left)} s left · ${tally.answered} answered${refused}`;
}

async function burst(image) {
  const control = new AbortController();
  stop = () => control.abort();
  const tally = { answered: 0, refused: 0 };
  const ends = performance.now() + SECONDS * 1000;
  const last = setTimeout(stop, SECONDS * 1000);
  $("burst").textContent = "Stop";
  const show = setInterval(() => ($("burst-note").textContent = tell(tally, ends)), 1000);
  await Promise.all(Array.from({ length: FORMS }, () => worker(image, ends, control.signal, tally)));
  clearInterval(show);
  clearTimeout(last);
  stop = null;
  $("burst").textContent = "Send a burst";
  const refused = tally.refused ? `, ${tally.refused} were refused` : "";
  $("burst-note").textContent = `Done: ${tally.answered} images were answered${refused}.`;
}

export function startBurst() {
  $("burst").addEventListener("click", () => {
    const image = get("image");
    if (stop) stop();
    else if (image) burst(image);
    else $("burst-note").textContent = "Choose an image first: that is what is sent.";
  });
}
