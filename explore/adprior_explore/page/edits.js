/** Takes another user, changes them, and undoes changes. Typing in one field is undone at once. */

const MOST_UNDONE = 100;

export class Edits {
  #state;
  #undone = [];
  #lastPlace = null;

  constructor(state) {
    this.#state = state;
  }

  /** Take another user; `example` is the name of the example that it is, if it is one. */
  take(user, label, example = null) {
    this.#remember(null);
    const origin = this.#state.get("origin") + 1;
    this.#show(user, { label, example, origin, userError: null }, true);
  }

  /** Change the user. `place` names the field that is typed in; null is a change of its own. */
  change(user, { place = null, redraw = false } = {}) {
    this.#remember(place);
    this.#show(user, { userError: null }, redraw);
  }

  /** Go back to the user before the last change. */
  undo() {
    const former = this.#undone.pop();
    this.#lastPlace = null;
    if (former === undefined) return;
    const { user, ...rest } = former;
    this.#show(user, { ...rest, userError: null }, true);
  }

  #remember(place) {
    if (place !== null && place === this.#lastPlace) return;
    this.#lastPlace = place;
    const names = ["user", "label", "example", "origin"];
    this.#undone.push(Object.fromEntries(names.map((name) => [name, this.#state.get(name)])));
    if (this.#undone.length > MOST_UNDONE) this.#undone.shift();
  }

  #show(user, changes, redraw) {
    this.#state.set({
      ...changes,
      user,
      version: this.#state.get("version") + 1,
      canUndo: this.#undone.length > 0,
      ...(redraw && { redraws: this.#state.get("redraws") + 1 }),
    });
  }
}
