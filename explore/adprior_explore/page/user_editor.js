/** The user: examples, cards or JSON, undo. */

import { get } from "./api.js";
import { announce } from "./announcements.js";
import { button, find, make } from "./dom.js";
import { EventCards } from "./event_cards.js";
import { JsonEditor } from "./json_editor.js";
import { kibibytes, percent } from "./numbers.js";
import { ProfileCards } from "./profile_cards.js";
import { emptyUser, sizeInBytes } from "./user_document.js";

const AT_A_GLANCE = 3;
const OF_THE_USER = /\b(user|user_context|profile|history|as_of)\b/i;

/** Draw the editor and keep it up to date. */
export function showUserEditor(state, edits) {
  const cards = [new ProfileCards(state, edits), new EventCards(state, edits)];
  const json = new JsonEditor(state, edits);
  const body = find("user-body");
  const isJson = () => document.querySelector("input[name=editor]:checked").value === "json";

  const draw = () => {
    state.set({ userError: null }); // it is of a text that is drawn no longer
    if (isJson()) return json.show(body);
    if (state.get("user") === null) return body.replaceChildren(nobody(edits));
    body.replaceChildren(...cards.map((each) => each.draw()));
  };
  find("editor-form").addEventListener("change", draw);
  find("undo").addEventListener("click", () => {
    edits.undo();
    announce("The last change is undone.");
  });
  state.watch(["redraws"], draw);
  state.watch(["canUndo"], () => {
    find("undo").disabled = !state.get("canUndo");
  });
  state.watch(["user", "servers"], () => showSize(state));
  state.watch(["servers", "example", "user"], () => showExamples(state, edits));
  state.watch(["userError", "forecast"], () => showError(state));
  state.watch(["forecast"], () => showGlance(state));
}

/** Show the first of the forecast beside the cards, for windows that have no room for both. */
function showGlance(state) {
  const { answer, phase } = state.get("forecast");
  const first = (answer?.advertisers ?? []).slice(0, AT_A_GLANCE);
  const glance = find("glance");
  glance.hidden = first.length === 0;
  glance.classList.toggle("old", phase !== "ready");
  glance.textContent = first.map(({ name, probability, is_new }) =>
    `${is_new ? "◆" : "●"} ${name} ${percent(probability)}`.replaceAll(" ", "\u00a0")).join("   ");
}

function nobody(edits) {
  return make("div", { class: "message" },
    make("p", {}, make("strong", { text: "Nobody is picked yet." })),
    make("p", {}, "Pick an example above, or switch to JSON and paste a user as ",
      make("code", { text: "adprior predict --user" }), " takes it."),
    make("p", {}, button("Start with an empty user", () => edits.take(emptyUser(), "empty user"))));
}

function showSize(state) {
  const user = state.get("user");
  const most = state.get("servers")?.limits.context_bytes;
  find("user-size").textContent = user === null ? ""
    : `${kibibytes(sizeInBytes(user))}${most ? ` of ${most / 1024} KiB` : ""}`;
}

let drawnExamples = null;

function showExamples(state, edits) {
  const examples = state.get("servers")?.examples ?? [];
  const place = find("examples");
  const names = JSON.stringify(examples);
  if (names !== drawnExamples) {
    drawnExamples = names;
    place.replaceChildren(...examples.map(({ name, title }) =>
      button(title, () => takeExample(state, edits, name, title), { class: "chip", "data-example": name })));
  }
  for (const chip of place.children) {
    chip.setAttribute("aria-pressed", String(chip.dataset.example === state.get("example")));
  }
}

let exampleRequest = new AbortController();

/** Take an example; of two quick clicks, the last one counts. */
async function takeExample(state, edits, name, title) {
  exampleRequest.abort();
  exampleRequest = new AbortController();
  const { signal } = exampleRequest;
  try {
    const user = await get(`/api/examples/${encodeURIComponent(name)}`, signal);
    if (!signal.aborted) edits.take(user, title, name);
  } catch (error) {
    if (!signal.aborted) state.set({ userError: `${error.message} ${error.whatToDo}` });
  }
}

/** Show why the text is no user, or what the server says about the user. */
function showError(state) {
  const { phase, error } = state.get("forecast");
  const refused = phase === "failed" && OF_THE_USER.test(error.message) ? error.message : null;
  const text = state.get("userError") ?? refused;
  const line = find("user-error");
  line.hidden = text === null;
  line.textContent = text ?? "";
  markField(refused);
}

/** Mark the field that the server names: "history[3].time: …". */
function markField(message) {
  for (const marked of document.querySelectorAll("#user-body [aria-invalid]")) {
    marked.removeAttribute("aria-invalid");
  }
  const named = /(?:history\[(\d+)\]\.(\w+)|\b(as_of))\b/.exec(message ?? "");
  if (named === null) return;
  const place = named[3] ?? `history ${named[1]} ${named[2]}`;
  document.querySelector(`#user-body [data-place="${place}"]`)?.setAttribute("aria-invalid", "true");
}
