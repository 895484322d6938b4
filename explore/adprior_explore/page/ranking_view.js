/** The ranking: candidates before and after the head's contribution, and with a stored forecast. */

import { readCandidates, writeCandidates } from "./candidates.js";
import { button, field, fill, find, make } from "./dom.js";
import { failure, forecastFailure, message, needsUser, waiting } from "./messages.js";
import { count, milliseconds } from "./numbers.js";
import { rankingTable } from "./ranking_table.js";
import { isCurrent } from "./state.js";

const EXAMPLE_LOGIT = -3;

/** Draw the view and keep it up to date. */
export function showRanking(state) {
  const body = make("div", { class: "stacked" });
  const line = make("p", { class: "error-line", id: "candidates-error", role: "status", hidden: true });
  const area = make("textarea", {
    id: "candidates", rows: 4, spellcheck: "false", autocomplete: "off", "aria-describedby": "candidates-error",
    placeholder: "214, -2.3\n17, -2.75\nor [{\"advertiser_id\": 214, \"base_logit\": -2.3}, …]",
  });
  const rank = () => {
    try {
      const candidates = readCandidates(area.value, state.get("servers")?.limits.candidates ?? 10_000);
      line.hidden = true;
      area.removeAttribute("aria-invalid");
      state.set({ candidates });
    } catch (error) {
      line.textContent = error.message;
      line.hidden = false;
      area.setAttribute("aria-invalid", "true");
    }
  };
  const controls = make("div", { class: "stacked" },
    make("label", { for: "candidates", text: "Candidates: advertiser id and base logit, one in a line, or JSON" }),
    area, line,
    make("div", { class: "toolbar" },
      button("Rank", rank, { class: "primary" }),
      button("Take the forecast's advertisers", () => {
        area.value = exampleCandidates(state);
        rank();
      }),
      userIdField(state)));
  const stored = make("div", { class: "toolbar" });
  find("panel-ranking").append(controls, stored, body);
  state.watch(["ranking", "kept", "servers"], () => drawStored(state, stored));
  state.watch(["ranking", "version", "side", "candidates", "forecast"], () => {
    controls.hidden = state.get("user") === null;
    draw(state, body);
  });
}

function exampleCandidates(state) {
  const advertisers = state.get("forecast").answer?.advertisers ?? [];
  return writeCandidates(advertisers.map(({ advertiser_id }) => ({ advertiser_id, base_logit: EXAMPLE_LOGIT })));
}

function userIdField(state) {
  const input = make("input", { type: "text", autocomplete: "off", placeholder: "none" });
  input.addEventListener("change", () => state.set({ userId: input.value.trim() }));
  const place = field("id of a user with a stored forecast", input);
  state.watch(["servers"], () => {
    place.hidden = !state.get("servers")?.stored;
  });
  return place;
}

/** Draw what stands for the stored forecast, and the buttons to keep one and to forget it. */
function drawStored(state, place) {
  const kept = state.get("kept");
  const { answer, phase } = state.get("ranking");
  const hadFocus = place.contains(document.activeElement);
  if (kept !== null) {
    fill(place, make("span", { class: "badge note", text: `Stored forecast: ${kept.label}, kept at ${kept.at}` }),
      button("Forget it", () => state.set({ kept: null }), { class: "small" }));
  } else if (phase === "ready" && answer.forecast !== null) {
    fill(place, button("Keep this forecast as the stored one", () => state.set({ kept: keep(state, answer) }), { class: "small" }),
      make("span", { class: "quiet", text: "Then edit the user: the table compares the live forecast with it." }));
  } else {
    fill(place);
  }
  if (hadFocus) place.querySelector("button")?.focus();
}

function keep(state, answer) {
  const at = new Date().toLocaleTimeString("en-GB");
  return { forecast: answer.forecast, label: state.get("label"), at };
}

function draw(state, body) {
  const known = state.get("ranking");
  const { phase, answer, error } = known;
  body.setAttribute("aria-busy", String(phase === "loading"));
  if (state.get("user") === null) return fill(body, needsUser(state));
  const failed = phase === "failed" ? failure(error) : null;
  if (answer === null) {
    const isAsked = state.get("candidates") !== null;
    return fill(body, failed ?? (isAsked ? forecastFailure(state) ?? waiting("ranking …")
      : message("No candidates yet.", "Paste the candidates of one request of your ranker, or take the forecast's advertisers with equal logits.")));
  }
  const isOld = phase === "loading" || !isCurrent(state, known);
  fill(body, failed, summary(known, isOld),
    make("div", { class: `fading ${isOld ? "old" : ""}` }, rankingTable(answer)));
}

function summary({ answer, about }, isOld) {
  const moved = answer.candidates.filter(({ rank_before, rank_after }) => rank_before !== rank_after).length;
  const { stored_forecast } = answer;
  return make("div", { class: "toolbar" },
    make("span", { text: `${count(moved)} of ${count(answer.candidates.length)} candidates change their place.` }),
    answer.has_fitted_head ? null
      : make("span", { class: "badge warn", text: "The bundle has no fitted head: every contribution is 0" }),
    stored_forecast !== null
      ? make("span", { class: "quiet", text: `Stored forecast of bundle ${stored_forecast.bundle_id}${age(stored_forecast.age_s)}.` })
      : about.user_id === null ? null : make("span", { class: "badge warn", text: "No stored forecast has this user id" }),
    isOld ? waiting("ranking …") : make("span", { class: "quiet", text: milliseconds(answer.total_ms) }));
}

function age(age_s) {
  return age_s === null ? "" : `, ${count(Math.round(age_s))} s old`;
}
