// Requests to the server that this page came from. Addresses are relative: a proxy may take a prefix off.

import { get } from "./store.js";

/** A refusal (RFC 9457), or that the server was not reached. */
export class Problem extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail ?? problem.title ?? "the request failed");
    this.title = problem.title ?? "No answer";
    this.status = problem.status ?? 0;
    this.retryAfter = retryAfter;
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (get("key")) headers.Authorization = `Bearer ${get("key")}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No connection", detail: "The server cannot be reached." });
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  const seconds = Number(response.headers.get("Retry-After"));
  throw new Problem({ status: response.status, ...content }, seconds > 0 ? seconds : null);
}

export const read = (path) => request(path);

export function queryOf(parameters) {
  const query = new URLSearchParams(parameters).toString();
  return query ? `?${query}` : "";
}

/** Have one image classified; `parameters` are those of the query. */
export function classify(image, parameters) {
  const headers = { "Content-Type": image.blob.type || "application/octet-stream" };
  return request(`classify${queryOf(parameters)}`, { method: "POST", body: image.blob, headers });
}

/** Have one image classified so many times, in one form. */
export function classifyMany(image, many, signal) {
  const form = new FormData();
  for (let at = 0; at < many; at++) form.append("image", image.blob, "image");
  return request("classify/batch?top_k=1", { method: "POST", body: form, signal });
}
