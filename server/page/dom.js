// Elements made and found. Whatever the server says enters the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element with attributes and children (nodes or text). */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Calls with the element's inner width in CSS pixels, now and whenever it changes. */
export function onWidth(element, draw) {
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width && width !== last) draw((last = width));
  }).observe(element);
}

/** What is chosen in a group of radio buttons; `then` is called when it changes. */
export function onChoice(name, then) {
  for (const input of document.getElementsByName(name)) {
    input.addEventListener("change", () => input.checked && then(input.value));
  }
}

/** Arrow keys move through marks, of which one at a time is reached with Tab. */
export function roving(marks, { next = 1, row = 0 } = {}) {
  marks.forEach((mark, at) => {
    mark.setAttribute("tabindex", at === 0 ? "0" : "-1");
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: next, ArrowLeft: -next, ArrowDown: row || next, ArrowUp: -(row || next) }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? marks.length - 1 : step ? at + step : null;
      if (to === null || !marks[to]) return;
      event.preventDefault();
      mark.setAttribute("tabindex", "-1");
      marks[to].setAttribute("tabindex", "0");
      marks[to].focus();
    });
  });
}
