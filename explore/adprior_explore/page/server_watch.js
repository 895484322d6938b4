/** Looks which servers are ready, and asks for the forecast again when one is back. */

import { get } from "./api.js";
import { chosenSide } from "./state.js";

const READY_POLL_MS = 10_000;
const DOWN_POLL_MS = 2_000;
const NO_SERVER = [0, 502, 503];

export class ServerWatch {
  #state;
  #questions;
  #timer = 0;
  #isLooking = false;

  constructor(state, questions) {
    this.#state = state;
    this.#questions = questions;
    // A failed forecast is often the first sign of a server that is down. It is asked again at the
    // next look only, so a server that fails every request is not asked without a pause.
    state.onChange(["forecast"], () => {
      if (this.#hasFailed()) this.look({ askAgain: false });
    });
  }

  /** Look now, and from then on every few seconds. */
  async look({ askAgain = true } = {}) {
    if (this.#isLooking) return;
    this.#isLooking = true;
    clearTimeout(this.#timer);
    const bundle = chosenSide(this.#state)?.bundle_id ?? null;
    try {
      this.#state.set({ servers: await get("/api/state"), explorerError: null });
    } catch (error) {
      this.#state.set({ explorerError: error });
    }
    this.#isLooking = false;
    const isWell = this.#allReady() && !this.#hasFailed();
    this.#timer = setTimeout(() => this.look(), isWell ? READY_POLL_MS : DOWN_POLL_MS);
    if (askAgain && this.#shouldAskAgain(bundle)) this.#questions.askForecast();
  }

  #shouldAskAgain(formerBundle) {
    const side = chosenSide(this.#state);
    if (this.#state.get("explorerError") !== null || !side?.ready) return false;
    const isOther = formerBundle !== null && side.bundle_id !== formerBundle;
    return this.#hasFailed() || (isOther && this.#state.get("user") !== null);
  }

  #hasFailed() {
    const { phase, error } = this.#state.get("forecast");
    return phase === "failed" && NO_SERVER.includes(error.status);
  }

  #allReady() {
    const sides = this.#state.get("servers")?.sides ?? [];
    return this.#state.get("explorerError") === null && sides.every(({ ready }) => ready);
  }
}
