/**
 * What is asked when. An edit asks for a forecast. Then the view that is open asks its own question,
 * so that two requests do not share the server and blur each other's times. To leave out parts of a
 * user takes many forecasts, so that question waits for its button.
 */

import { LatestRequest } from "./latest_request.js";
import { UNASKED, chosenSide, isCurrent } from "./state.js";

const EDIT_DELAY_MS = 150;
const SHOWN_INTERESTS = 5;
const PATHS = {
  forecast: "/api/forecast",
  why: "/api/why",
  ranking: "/api/rank",
  compare: "/api/compare",
  agreement: "/api/agreement",
};

export class Questions {
  #state;
  #requests;

  constructor(state) {
    this.#state = state;
    this.#requests = Object.fromEntries(Object.entries(PATHS).map(([name, path]) =>
      [name, new LatestRequest(path, (changes) => this.#show(name, changes))]));
    state.onChange(["user", "side", "k", "interests"], () => this.askForecast(EDIT_DELAY_MS));
    state.onChange(["view"], () => this.#askForView());
    state.onChange(["candidates", "kept", "userId"], () => this.#askForView({ again: true }));
  }

  /** Ask for the forecast, after a delay in which another edit may follow. */
  askForecast(delay_ms = 0) {
    for (const name of ["why", "ranking", "compare"]) this.#drop(name);
    const { side, user, k } = this.#values("side", "user", "k");
    if (user === null) {
      this.#requests.forecast.stop();
      this.#state.set({ forecast: UNASKED, before: null });
      return;
    }
    performance.clearMarks("edit");
    performance.mark("edit");
    const wanted = this.#state.get("interests") && chosenSide(this.#state)?.interests !== false;
    const interest_k = wanted ? SHOWN_INTERESTS : null;
    this.#requests.forecast.ask({ side, user, k, interest_k }, this.#about(), delay_ms);
  }

  /** Ask what each part of the user does to the forecast. */
  askWhy() {
    this.#requests.why.ask(this.#values("side", "user", "k"), this.#about());
  }

  /** Ask for the ranking of the candidates. */
  askRanking() {
    const body = this.#values("side", "user", "candidates");
    const kept = this.#state.get("kept");
    const stored_forecast = kept === null ? null : kept.forecast;
    const user_id = kept === null ? this.#state.get("userId") || null : null;
    this.#requests.ranking.ask({ ...body, stored_forecast, user_id }, { ...this.#about(), user_id });
  }

  /** Ask both bundles about the user. */
  askCompare() {
    this.#requests.compare.ask(this.#values("user", "k"), this.#about());
  }

  /** Ask how far the two bundles agree; `users` null stands for the examples. */
  askAgreement(users) {
    this.#requests.agreement.ask({ users, ...this.#values("k") }, this.#about());
  }

  /** Stop a question that waits or runs. */
  stop(name) {
    this.#requests[name].stop();
    const known = this.#state.get(name);
    this.#state.set({ [name]: { ...known, phase: known.answer ? "ready" : "empty", error: null } });
  }

  #values(...names) {
    return Object.fromEntries(names.map((name) => [name, this.#state.get(name)]));
  }

  #about() {
    return this.#values("version", "origin", "side", "k");
  }

  /** Stop a question about the user before the edit; an older answer stays, and is marked as old. */
  #drop(name) {
    const { phase } = this.#state.get(name);
    if (phase === "loading" || phase === "failed") this.stop(name);
  }

  /** Ask what the open view shows, if it does not show it already; `again` asks all the same. */
  #askForView({ again = false } = {}) {
    const forecast = this.#state.get("forecast");
    if (forecast.phase !== "ready" || !isCurrent(this.#state, forecast)) return;
    const view = this.#state.get("view");
    const hasCandidates = this.#state.get("candidates") !== null;
    if (view === "ranking" && hasCandidates && (again || !this.#isAnswered("ranking"))) this.askRanking();
    const sides = this.#state.get("servers")?.sides.length ?? 0;
    if (view === "compare" && sides > 1 && !this.#isAnswered("compare")) this.askCompare();
  }

  #isAnswered(name) {
    const known = this.#state.get(name);
    return known.phase === "loading" || (known.phase === "ready" && isCurrent(this.#state, known));
  }

  #show(name, changes) {
    const known = this.#state.get(name);
    this.#state.set({ [name]: { ...known, ...changes }, ...this.#formerForecast(name, changes) });
    if (name === "forecast" && changes.phase === "ready") {
      performance.measure("edit to forecast", "edit");
      this.#askForView();
    }
  }

  /** Return the forecast before the last edit as a change of the state: of the same user and bundle. */
  #formerForecast(name, changes) {
    if (name !== "forecast" || changes.phase !== "ready") return {};
    const { answer, about } = this.#state.get("forecast");
    if (answer?.bundle_id !== changes.answer.bundle_id) return { before: null };
    if (about.version === changes.about.version) return {};
    return { before: about.origin === changes.about.origin ? answer : null };
  }
}
