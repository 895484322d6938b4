/**
 * The history as cards, the last event first. A long history is drawn in pieces: a user of 256 KiB
 * has thousands of events. After "Why", each card has a bar: how much the forecast owes to it.
 */

import { button, fill, make } from "./dom.js";
import { counted, percent } from "./numbers.js";
import { isCurrent } from "./state.js";
import { fieldText, withEventField, withNewEvent, withoutEvent } from "./user_document.js";

const DRAWN_AT_ONCE = 60;
const FIELDS = [
  { name: "time", label: "Time", placeholder: "2022-06-27" },
  { name: "action", label: "Action", placeholder: "purchase" },
  { name: "advertiser", label: "Advertiser", placeholder: "advertiser" },
  { name: "category", label: "Category", placeholder: "category" },
  { name: "text", label: "Text", placeholder: "text" },
];

export class EventCards {
  #state;
  #edits;
  #section = make("section", { "aria-label": "History" });
  #drawn = DRAWN_AT_ONCE;
  #origin = null;

  constructor(state, edits) {
    this.#state = state;
    this.#edits = edits;
    state.onChange(["why", "version", "side", "k"], () => this.#drawWeights());
  }

  /** Return the section with the cards of the user. */
  draw() {
    if (this.#state.get("origin") !== this.#origin) this.#drawn = DRAWN_AT_ONCE;
    this.#origin = this.#state.get("origin");
    const { history } = this.#state.get("user");
    const first = Math.max(history.length - this.#drawn, 0);
    const shown = history.slice(first).map((event, place) => this.#card(event, first + place)).reverse();
    fill(this.#section,
      make("h3", {}, "History",
        make("span", { class: "quiet", text: `${counted(history.length, "event")}, the last one first` }),
        button("Add an event", () => this.#add(), { class: "small" })),
      history.length === 0 ? make("p", { class: "quiet", text: "No events: the forecast comes from the profile alone." }) : null,
      make("ol", { class: "events", reversed: true }, shown),
      first > 0 ? button(`Show ${Math.min(first, DRAWN_AT_ONCE)} more of ${first}`, () => this.#drawMore(), { class: "small more" }) : null,
    );
    this.#drawWeights();
    return this.#section;
  }

  #card(event, index) {
    const inputs = FIELDS.filter(({ name }) => name !== "text" || event.text !== undefined)
      .map(({ name, label, placeholder }) => {
        const input = make("input", {
          class: name, value: fieldText(event[name]), placeholder, "aria-label": label,
          "data-place": `history ${index} ${name}`, autocomplete: "off",
        });
        input.addEventListener("input", () => this.#edits.change(
          withEventField(this.#state.get("user"), index, name, input.value),
          { place: `history ${index} ${name}` }));
        return input;
      });
    const remove = button("×", () => this.#remove(index), {
      class: "plain remove", title: "Remove", "aria-label": `Remove event ${index + 1}`,
    });
    return make("li", {
      class: "card event", "data-event": index,
    }, make("div", { class: "weight", hidden: true }), inputs, remove);
  }

  #add() {
    this.#drawn += 1;
    this.#edits.change(withNewEvent(this.#state.get("user")), { redraw: true });
    this.#section.querySelector("input.advertiser").focus();
  }

  #remove(index) {
    this.#edits.change(withoutEvent(this.#state.get("user"), index), { redraw: true });
    const next = this.#section.querySelector(`[data-event="${Math.max(index - 1, 0)}"] .remove`);
    (next ?? this.#section.querySelector("h3 button")).focus();
  }

  #drawMore() {
    const last = this.#section.querySelector("li:last-child");
    const index = Number(last.dataset.event);
    this.#drawn += DRAWN_AT_ONCE;
    this.draw();
    this.#section.querySelector(`[data-event="${index - 1}"] input`)?.focus();
  }

  /** Draw how much each event changes the forecast, while that is known of this very user. */
  #drawWeights() {
    const why = this.#state.get("why");
    const isKnown = why.answer !== null && isCurrent(this.#state, why);
    const rows = isKnown ? why.answer.without.filter(({ kind }) => kind === "event") : [];
    const shifts = new Map(rows.map(({ event_index, shift }) => [event_index, shift]));
    const most = Math.max(...shifts.values(), 1e-9);
    for (const card of this.#section.querySelectorAll(".event")) {
      const shift = shifts.get(Number(card.dataset.event));
      const weight = card.querySelector(".weight");
      weight.hidden = shift === undefined;
      if (shift === undefined) continue;
      weight.title = `Without this event, ${percent(shift)} of the forecast moves`;
      weight.replaceChildren(
        make("span", { class: "visually-hidden", text: weight.title }),
        make("div", { class: "track" },
          make("span", { class: "bar-fill plain", style: { "--to": shift / most } })));
    }
  }
}
