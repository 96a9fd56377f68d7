// Numbers as people read them. FLOPs are multiply-adds.

const digits = (value, places = 3) => Number(value.toPrecision(places)).toLocaleString("en", { maximumFractionDigits: 4 });

export function flops(value) {
  if (value === null || value === undefined) return "FLOPs not known";
  if (value >= 1e9) return `${digits(value / 1e9)} GFLOPs`;
  if (value >= 1e6) return `${digits(value / 1e6)} MFLOPs`;
  return value >= 1e3 ? `${digits(value / 1e3)} kFLOPs` : `${value} FLOPs`;
}

export function ms(value) {
  if (value === null || value === undefined) return "latency not measured";
  if (value >= 9.95) return `${Math.round(value).toLocaleString("en")} ms`;
  return value >= 0.01 ? `${value.toFixed(value >= 0.995 ? 1 : 2)} ms` : `${digits(value, 2)} ms`;
}

export function percent(value, places = 1) {
  return value === null || value === undefined ? "not known" : `${value.toFixed(places)} %`;
}

/** A probability, 0 to 1. */
export function chance(value) {
  const share = value * 100;
  return share > 0 && share < 0.1 ? "< 0.1 %" : share > 99.9 && share < 100 ? "> 99.9 %" : `${share.toFixed(1)} %`;
}

export const count = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10));

/** The unit that numbers up to this are best read in: [divisor, name]. */
export function flopsUnit(most) {
  return most >= 2e9 ? [1e9, "GFLOPs"] : most >= 2e6 ? [1e6, "MFLOPs"] : [1e3, "kFLOPs"];
}

/** Round numbers, about `many`, that go from one value to another. */
export function ticks(from, to, many = 4) {
  const raw = (to - from) / many || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to * 1.0000001; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}
