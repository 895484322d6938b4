/** How far two bundles agree over many users. */

import { bar } from "./bars.js";
import { button, field, fill, make, scrollBox } from "./dom.js";
import { parseJson } from "./exact_json.js";
import { failure, waiting } from "./messages.js";
import { counted, decimal, milliseconds, percent } from "./numbers.js";

const WHOLE = { parts: 4, place: (share) => share };

/** Draw the section and keep it up to date. */
export function showAgreement(state, questions, place) {
  const file = make("input", { type: "file", accept: ".json,.jsonl,application/json" });
  const line = make("p", { class: "error-line", role: "status", hidden: true });
  const body = make("div", { class: "stacked" });
  const actions = make("span");
  file.addEventListener("change", async () => {
    try {
      line.hidden = true;
      questions.askAgreement(readUsers(await file.files[0].text(), state.get("servers").limits.users));
    } catch (error) {
      line.textContent = error.message;
      line.hidden = false;
    }
    file.value = "";
  });
  place.append(
    make("h3", { text: "Agreement over many users" }),
    make("div", { class: "toolbar" },
      button("Compare over the examples", () => questions.askAgreement(null)),
      field("or over users of a file (a JSON list, or one user in a line)", file), actions),
    line, body);
  state.watch(["agreement", "k"], () => {
    const { phase, answer, about, error } = state.get("agreement");
    body.setAttribute("aria-busy", String(phase === "loading"));
    fill(actions, phase === "loading"
      ? [waiting("asking both bundles about each user "), button("Stop", () => questions.stop("agreement"), { class: "small" })] : null);
    fill(body, phase === "failed" ? failure(error) : null, answer === null ? null
      : draw(answer, { isLoading: phase === "loading", isOtherLength: about.k !== state.get("k") }));
  });
}

/** Return the users of a file; throw an Error with one clear line if there are none. */
function readUsers(text, most) {
  let users;
  try {
    users = text.trim().startsWith("[") ? parseJson(text)
      : text.split("\n").filter((line) => line.trim() !== "").map((line) => parseJson(line));
  } catch {
    throw new Error("The file is no JSON; expected a list of users, or one user in a line.");
  }
  if (users.length === 0) throw new Error("The file has no users.");
  if (users.length > most) throw new Error(`The file has ${users.length} users; at most ${most} are compared.`);
  return users;
}

function draw(answer, { isLoading, isOtherLength }) {
  const entries = Object.entries(answer.overlap_at).map(([k, share]) => [`overlap at ${k}`, share, percent]);
  entries.push(["same first advertiser", answer.same_first, percent]);
  entries.push(["total variation, at least", answer.total_variation, decimal]);
  const drift = answer.drift === null ? "–" : decimal(answer.drift);
  return make("div", { class: `stacked fading ${isLoading || isOtherLength ? "old" : ""}` },
    isOtherLength ? make("p", {}, make("span", { class: "badge warn", text: "of another number of advertisers: compare again" })) : null,
    make("dl", { class: "facts" },
      entries.map(([term, share, format]) => fact(term, share, format)),
      make("div", {}, make("dt", { text: "drift (population stability index)" }), make("dd", { text: drift }))),
    make("p", { class: "quiet", text: `${counted(answer.users, "user")}, ${milliseconds(answer.total_ms)}. In brackets: 95 % bootstrap intervals over the users.` }),
    scrollBox("Users", table(answer.per_user)));
}

function fact(term, { mean, low, high }, format) {
  const interval = low === null ? "" : ` [${format(low)}, ${format(high)}]`;
  return make("div", {}, make("dt", { text: term }), make("dd", {}, format(mean), make("small", { text: interval })));
}

function table(users) {
  const rows = [...users].sort((one, other) => one.overlap - other.overlap);
  const titles = [["user", ""], ["overlap", "number"], ["", "bar-cell"], ["total variation", "number"], ["first of A", ""], ["first of B", ""]];
  return make("table", {},
    make("caption", { class: "visually-hidden", text: "Users by how little the bundles agree on them" }),
    make("thead", {}, make("tr", {}, titles.map(([text, kind]) => make(text ? "th" : "td", { scope: text ? "col" : null, class: kind, text })))),
    make("tbody", {}, rows.map(({ label, overlap, total_variation, first_a, first_b }) =>
      make("tr", { class: first_a === first_b ? "" : "marked" },
        make("th", { scope: "row", text: label }),
        make("td", { class: "number", text: percent(overlap) }),
        make("td", { class: "bar-cell" }, bar(WHOLE, overlap, "plain")),
        make("td", { class: "number", text: decimal(total_variation) }),
        make("td", { text: first_a ?? "–" }),
        make("td", { text: first_b ?? "–" })))));
}
