/** The profile as cards: each holds a key and its value. The forecast's time is one of them. */

import { button, make } from "./dom.js";
import { counted } from "./numbers.js";
import {
  fieldText, withNewProfileKey, withProfileKey, withProfileValue, withoutProfileKey,
} from "./user_document.js";

export class ProfileCards {
  #state;
  #edits;
  #section = make("section", { "aria-label": "Profile" });

  constructor(state, edits) {
    this.#state = state;
    this.#edits = edits;
  }

  /** Return the section with the cards of the user. */
  draw() {
    const user = this.#state.get("user");
    const keys = Object.keys(user.profile);
    this.#section.replaceChildren(
      make("h3", {}, "Profile", make("span", { class: "quiet", text: counted(keys.length, "value") }),
        button("Add a value", () => this.#add(), { class: "small" })),
      make("div", { class: "profile" }, this.#timeCard(user), keys.map((key) => this.#card(key))));
    return this.#section;
  }

  #timeCard(user) {
    const input = make("input", {
      value: fieldText(user.as_of), "aria-label": "Forecast as of", "data-place": "as_of",
      placeholder: "2022-07-01", autocomplete: "off",
    });
    input.addEventListener("input", () =>
      this.#edits.change({ ...this.#state.get("user"), as_of: input.value }, { place: "as_of" }));
    return make("div", { class: "card" }, make("span", { class: "key", text: "forecast as of" }), input);
  }

  #card(key) {
    let name = key;
    const user = () => this.#state.get("user");
    const keyInput = make("input", { value: key, class: "key", "aria-label": "Name of the value", autocomplete: "off" });
    const value = make("input", {
      value: fieldText(user().profile[key]), "aria-label": key, autocomplete: "off",
    });
    keyInput.addEventListener("change", () => {
      const wanted = keyInput.value.trim();
      if (wanted === "" || (wanted !== name && wanted in user().profile)) keyInput.value = name;
      else if (wanted !== name) this.#edits.change(withProfileKey(user(), name, wanted));
      name = keyInput.value.trim();
      value.setAttribute("aria-label", name);
    });
    value.addEventListener("input", () =>
      this.#edits.change(withProfileValue(user(), name, value.value), { place: `profile ${name}` }));
    const remove = button("×", () => this.#remove(name), {
      class: "plain remove", "aria-label": `Remove ${key}`, title: "Remove",
    });
    return make("div", { class: "card" }, keyInput, remove, value);
  }

  #add() {
    this.#edits.change(withNewProfileKey(this.#state.get("user")), { redraw: true });
    const added = [...this.#section.querySelectorAll("input.key")].at(-1);
    added.focus();
    added.select();
  }

  #remove(name) {
    const place = Object.keys(this.#state.get("user").profile).indexOf(name);
    this.#edits.change(withoutProfileKey(this.#state.get("user"), name), { redraw: true });
    const left = [...this.#section.querySelectorAll(".remove")];
    (left[Math.min(place, left.length - 1)] ?? this.#section.querySelector("button")).focus();
  }
}
