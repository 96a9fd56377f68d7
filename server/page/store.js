// What the page knows, and who wants to hear when a part of it changes.

const values = {
  table: null, // /stitches
  anatomy: null, // /anchors
  frontier: [], // its frontier, cheapest first
  image: null, // { blob, name, url }
  budget: {}, // query parameters
  pinned: null, // a stitch of the table
  answer: null, // the last answer
  level: null, // the level told last
  key: "", // an API key, kept here alone
};
const listeners = {};

export const get = (name) => values[name];

export function set(name, value) {
  values[name] = value;
  for (const listener of listeners[name] ?? []) listener(value);
}

/** Calls `listener` when one of these changes. */
export function on(names, listener) {
  for (const name of names.split(" ")) (listeners[name] ??= []).push(listener);
}

export const stitch = (id) => values.table?.stitches.find((each) => each.id === id) ?? null;
