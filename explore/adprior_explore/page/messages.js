/** What a view says when it has nothing to show: what is the case, and what to do. */

import { button, make } from "./dom.js";

const WRONG_REQUEST = 400; // asking it again changes nothing

/** Return a message: a short bold line, then what to do. */
export function message(title, todo, ...actions) {
  return make("div", { class: "message" },
    make("p", {}, make("strong", { text: title })),
    todo ? make("p", { text: todo }) : null,
    actions.length > 0 ? make("p", { class: "toolbar" }, actions) : null);
}

/** Return the message of a failed question. */
export function failure(error, onAgain) {
  return make("div", { class: "message bad", role: "alert" },
    make("p", {}, make("strong", { text: error.message })),
    make("p", { text: error.whatToDo ?? "" }),
    onAgain && error.status !== WRONG_REQUEST ? make("p", {}, button("Ask again", onAgain)) : null);
}

/** Return the message of a failed forecast, on which another view waits; null if it did not fail. */
export function forecastFailure(state) {
  const { phase, error } = state.get("forecast");
  return phase === "failed" ? failure(error) : null;
}

/** Return a line that says that an answer is awaited. */
export function waiting(text) {
  return make("span", { class: "waiting", text });
}

/** Return the message of a view that needs a user, or null if there is one. */
export function needsUser(state) {
  return state.get("user") !== null ? null
    : message("No user yet.", "Pick an example or paste a user's JSON in User; the answer appears here.");
}
