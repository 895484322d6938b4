/** Sends only the newest of many requests: a new one aborts the one that runs. */

import { post } from "./api.js";

export class LatestRequest {
  #path;
  #show;
  #timer = 0;
  #controller = new AbortController();

  /** `show` gets the changes of what is known: the phase, then the answer or the error. */
  constructor(path, show) {
    this.#path = path;
    this.#show = show;
  }

  /** Ask, unless another question follows within `delay_ms`. `about` comes back with the answer. */
  ask(body, about, delay_ms = 0) {
    this.stop();
    const { signal } = this.#controller;
    this.#show({ phase: "loading" });
    this.#timer = setTimeout(() => this.#send(body, about, signal), delay_ms);
  }

  /** Abort the question that waits or runs; its answer is not shown. */
  stop() {
    clearTimeout(this.#timer);
    this.#controller.abort();
    this.#controller = new AbortController();
  }

  async #send(body, about, signal) {
    const start = performance.now();
    try {
      const answer = await post(this.#path, body, signal);
      const took_ms = performance.now() - start;
      if (!signal.aborted) this.#show({ phase: "ready", answer, about, error: null, took_ms });
    } catch (error) {
      if (!signal.aborted) this.#show({ phase: "failed", error });
    }
  }
}
