/** Why: the same user without the profile, without one event, without one advertiser. */

import { bar } from "./bars.js";
import { button, fill, find, make, scrollBox } from "./dom.js";
import { failure, message, needsUser, waiting } from "./messages.js";
import { counted, milliseconds, percent } from "./numbers.js";
import { isCurrent } from "./state.js";

const SHOWN_CHANGES = 2;

/** Draw the answer whenever it changes. */
export function showWhy(state, questions) {
  const body = make("div", { class: "stacked" });
  const actions = make("div", { class: "toolbar" });
  find("panel-why").append(
    make("p", { class: "quiet", text: "The same user again and again, each time without one part. A long bar means: without this part, much of the forecast moves to other advertisers." }),
    actions, body);
  let drawn = null;
  state.watch(["why", "version", "side", "k"], () => {
    const kind = `${state.get("why").phase} ${state.get("user") === null}`;
    if (kind !== drawn) drawActions(state, questions, actions);
    drawn = kind;
    draw(state, questions, body);
  });
}

function drawActions(state, questions, place) {
  const hadFocus = place.contains(document.activeElement);
  const isLoading = state.get("why").phase === "loading";
  if (state.get("user") === null) return fill(place);
  fill(place, isLoading
    ? [button("Stop", () => questions.stop("why")), waiting("leaving out each part; this takes as many forecasts")]
    : button("Leave out each part", () => questions.askWhy(), { class: "primary" }));
  if (hadFocus) place.querySelector("button").focus();
}

function draw(state, questions, body) {
  const known = state.get("why");
  const { phase, answer, error } = known;
  body.setAttribute("aria-busy", String(phase === "loading"));
  if (state.get("user") === null) return fill(body, needsUser(state));
  const failed = phase === "failed" ? failure(error, () => questions.askWhy()) : null;
  if (answer === null) {
    return fill(body, failed ?? (phase === "loading" ? null
      : message("Nothing was left out yet.", "Press the button: one batch of forecasts follows, at the lowest priority.")));
  }
  const isOld = !isCurrent(state, known) || phase === "loading";
  fill(body,
    failed,
    isOld ? make("p", {}, make("span", { class: "badge warn", text: "of the forecast before the last change: leave out each part again" })) : null,
    make("div", { class: `stacked fading ${isOld ? "old" : ""}` }, answerTable(answer),
      make("p", { class: "quiet", text: footnote(answer) })));
}

function answerTable({ base, without }) {
  const listed = new Set(base.map(({ advertiser_id }) => advertiser_id));
  const rows = [...without].sort((one, other) => other.shift - one.shift);
  const most = Math.max(...rows.map(({ shift }) => shift), 1e-9);
  const scale = { parts: 1, place: (value) => value / most };
  if (rows.length === 0) return message("There is nothing to leave out.", "This user has no profile and no events.");
  return scrollBox("Parts of the user", make("table", { class: "why" },
    make("caption", { class: "visually-hidden", text: "Parts of the user by how much of the forecast moves without them" }),
    make("thead", {}, make("tr", {},
      make("th", { scope: "col", text: "without" }),
      make("th", { scope: "col", class: "number", text: "moves" }),
      make("th", { scope: "col", class: "bar-cell" }, make("span", { class: "visually-hidden", text: "bar" })),
      make("th", { scope: "col", text: "greatest changes" }))),
    make("tbody", {}, rows.map((each) => row(each, scale, listed)))));
}

function row({ label, shift, changes }, scale, listed) {
  return make("tr", {},
    make("th", { scope: "row", text: label }),
    make("td", { class: "number", text: percent(shift) }),
    make("td", { class: "bar-cell" }, bar(scale, shift, "plain")),
    make("td", { class: "quiet" }, make("ul", { class: "changes" }, changes.slice(0, SHOWN_CHANGES).map((each) => change(each, listed)))));
}

/** Describe a change; an advertiser that one of the lists lacks is known by its bound there. */
function change({ advertiser_id, name, from, to, is_bound }, listed) {
  const [before, after] = listed.has(advertiser_id) ? ["", is_bound ? "≤ " : ""] : [is_bound ? "≤ " : "", ""];
  return make("li", {}, `${to > from ? "▲" : "▼"} ${name} `,
    make("span", { class: "number", text: `${before}${percent(from)} → ${after}${percent(to)}` }));
}

function footnote({ runs, skipped, total_ms }) {
  const parts = [`${counted(runs, "forecast")} in ${milliseconds(total_ms)}.`];
  parts.push("“Moves” is the total variation distance between the two forecasts, at least.");
  if (skipped) parts.push(skipped);
  return parts.join(" ");
}
