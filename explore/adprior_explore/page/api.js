/** Talks to `adprior explore`. A user travels in the body of a POST, never in a URL. */

import { parseJson } from "./exact_json.js";

const TOKEN = "adprior-explore-token";

/** A failed request: one line, what to do about it, and the HTTP status (0: no answer at all). */
export class ApiError extends Error {
  constructor(message, whatToDo, status) {
    super(message);
    this.whatToDo = whatToDo;
    this.status = status;
  }
}

let askForToken = null;

/** Say how to get a token from the person; it is called with the reason, and resolves to one. */
export function onMissingToken(ask) {
  askForToken = ask;
}

/** Return the answer to a GET, parsed; an id beyond 2^53 is a string of digits. */
export function get(path, signal) {
  return request(path, { signal });
}

/** Return the answer to a POST, parsed; an id beyond 2^53 is a string of digits. */
export function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function request(path, options) {
  const response = await send(path, options);
  try {
    return parseJson(await response.text());
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The answer broke off.", "Ask again.", response.status);
  }
}

async function send(path, options) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const response = await fetchOnce(path, options, token);
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status !== 401 || askForToken === null) throw error;
    sessionStorage.setItem(TOKEN, await askForToken(token === null ? null : error.message));
  }
}

async function fetchOnce(path, options, token) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  try {
    return await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(
      "adprior explore does not answer.", "Start it again; this page comes back by itself.", 0);
  }
}

async function readError(response) {
  const body = await response.json().catch(() => ({}));
  return new ApiError(
    body.error ?? `adprior explore answered with status ${response.status}.`,
    body.what_to_do ?? "Ask again.",
    response.status,
  );
}
