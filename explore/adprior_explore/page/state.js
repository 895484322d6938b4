/** What the page knows, in one place. Views watch the names that they draw. */

export class State {
  #values;
  #watchers = [];

  constructor(values) {
    this.#values = { ...values };
  }

  /** Return the value of a name. */
  get(name) {
    if (!(name in this.#values)) throw new Error(`the state has no ${name}`);
    return this.#values[name];
  }

  /** Change values, then tell each watcher of a changed name, once. */
  set(changes) {
    const changed = Object.keys(changes).filter((name) => this.get(name) !== changes[name]);
    Object.assign(this.#values, changes);
    const told = this.#watchers.filter(({ names }) => names.some((name) => changed.includes(name)));
    for (const { listener } of told) listener();
  }

  /** Call the listener whenever one of these names changes. */
  onChange(names, listener) {
    this.#watchers.push({ names, listener });
  }

  /** Call the listener now, and whenever one of these names changes. */
  watch(names, listener) {
    this.onChange(names, listener);
    listener();
  }
}

/**
 * What is known of one question: `phase` is "empty", "loading", "ready" or "failed". `answer` is
 * the newest answer, which stays while a newer one loads; `about` says what it is for: the version of
 * the user, the side, the length; `error` is why the newest question failed.
 */
export const UNASKED = Object.freeze({
  phase: "empty", answer: null, about: null, error: null, took_ms: null,
});

/** The state at the start: nobody is picked, nothing is known of the servers. */
export function startingState() {
  return new State({
    servers: null, // the answer of /api/state
    explorerError: null, // why adprior explore itself gives none
    user: null, // the document that is asked about
    version: 0, // goes up with each change of the user
    origin: 0, // goes up when another user is taken
    example: null, // the name of the example that was taken, even if it was edited since
    label: "", // what to call the user
    redraws: 0, // goes up when the cards must be drawn again
    canUndo: false,
    userError: null, // why the text in the JSON editor is no user
    view: "forecast",
    side: "a",
    k: null, // null: the bundle's default
    scale: "log",
    interests: false, // a forecast with them takes half as long again
    forecast: UNASKED,
    before: null, // the same user's forecast before the last edit
    why: UNASKED,
    candidates: null, // what to rank; null before the first "Rank"
    kept: null, // the forecast of an earlier ranking that stands for the stored one
    userId: "", // finds a stored forecast
    ranking: UNASKED,
    compare: UNASKED,
    agreement: UNASKED,
  });
}

/** Return the side of /api/state that is asked now, or null before the first answer. */
export function chosenSide(state) {
  const sides = state.get("servers")?.sides ?? [];
  return sides.find(({ side }) => side === state.get("side")) ?? null;
}

/** Return whether an answer is about the user as they are now, and about what is asked now. */
export function isCurrent(state, known) {
  return ["version", "side", "k"].every((name) => known.about?.[name] === state.get(name));
}
