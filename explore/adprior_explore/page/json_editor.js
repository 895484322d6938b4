/** The user as a text of JSON. A text that is no user changes nothing, and says where it breaks. */

import { make } from "./dom.js";
import { readUser } from "./user_document.js";

export class JsonEditor {
  #state;
  #edits;
  #area;
  #isPasted = false;

  constructor(state, edits) {
    this.#state = state;
    this.#edits = edits;
    this.#area = make("textarea", {
      id: "user-json", class: "json-editor", spellcheck: "false", autocomplete: "off",
      "aria-describedby": "user-error",
      placeholder: '{"profile": {"age": "35 - 44 years"},\n "history": [{"time": "2022-06-27", "action": "purchase", "advertiser": "Purina"}],\n "as_of": "2022-07-01"}',
      on: {
        paste: () => {
          this.#isPasted = true;
        },
        input: () => this.#read(),
      },
    });
  }

  /** Put the editor into its place, with the user's text. */
  show(place) {
    const user = this.#state.get("user");
    this.#area.value = user === null ? "" : JSON.stringify(user, null, 2);
    place.replaceChildren(make("div", { class: "stacked" },
      make("label", { for: "user-json", class: "quiet", text: "The user as JSON: paste over it, or edit it" }),
      this.#area));
  }

  #read() {
    const isAnother = this.#isPasted || this.#state.get("user") === null;
    this.#isPasted = false;
    let user;
    try {
      user = readUser(this.#area.value);
    } catch (error) {
      this.#state.set({ userError: error.message });
      return;
    }
    if (isAnother) this.#take(user);
    else this.#edits.change(user, { place: "json" });
  }

  /** Take another user, and keep the text as it was typed. */
  #take(user) {
    const position = this.#area.selectionStart;
    const text = this.#area.value;
    this.#edits.take(user, "pasted user");
    this.#area.value = text;
    this.#area.focus();
    this.#area.setSelectionRange(position, position);
  }
}
