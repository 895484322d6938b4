/** The forecast: bars, the certificate, interests, time by step. */

import { axis, bar, sign, signLegend } from "./bars.js";
import { drawCertificate, proofBadge } from "./certificate.js";
import { field, fill, find, make, makeSwitch, scrollBox } from "./dom.js";
import { failure, message, needsUser, waiting } from "./messages.js";
import { percent } from "./numbers.js";
import { makeScale } from "./scales.js";
import { chosenSide } from "./state.js";
import { drawTimes } from "./step_times.js";

/** Draw the forecast whenever it changes. */
export function showForecast(state, questions) {
  const body = make("div", { class: "stacked" });
  const status = make("span");
  const side = make("span");
  const interests = make("span");
  find("panel-forecast").append(
    make("div", { class: "toolbar" }, lengthField(state),
      makeSwitch("Scale of the bars", "scale", { log: "Log scale", linear: "Linear" }, "log",
        (scale) => state.set({ scale })),
      interests, side, status),
    body);
  state.watch(["servers"], () => {
    drawSideSwitch(state, side);
    drawInterestSwitch(state, interests);
  });
  state.watch(["forecast", "before", "scale", "user"], () => {
    fill(status, state.get("forecast").phase === "loading" ? waiting("asking …") : null);
    draw(state, questions, body);
  });
}

function lengthField(state) {
  const input = make("input", { type: "number", min: 1, max: 1000, step: 1, "aria-label": "Number of advertisers" });
  state.watch(["servers"], () => {
    input.max = state.get("servers")?.limits.k ?? 1000;
    if (input.value === "") input.value = chosenSide(state)?.default_k ?? "";
  });
  input.addEventListener("input", () => {
    if (input.value !== "" && input.checkValidity()) state.set({ k: Number(input.value) });
  });
  return field("advertisers", input);
}

function drawSideSwitch(state, place) {
  const sides = state.get("servers")?.sides ?? [];
  if (sides.length < 2 || place.childElementCount > 0) return;
  place.append(makeSwitch("Bundle that is asked", "side", { a: "Bundle A", b: "Bundle B" }, state.get("side"),
    (side) => state.set({ side })));
}

function drawInterestSwitch(state, place) {
  if (!chosenSide(state)?.interests || place.childElementCount > 0) return;
  const box = make("input", { type: "checkbox", checked: state.get("interests") });
  box.addEventListener("change", () => state.set({ interests: box.checked }));
  place.append(make("label", { class: "field" }, box, "interests"));
}

function draw(state, questions, body) {
  const { phase, answer, error, took_ms } = state.get("forecast");
  const failed = phase === "failed" ? failure(error, () => questions.askForecast()) : null;
  body.setAttribute("aria-busy", String(phase === "loading"));
  if (state.get("user") === null) return fill(body, needsUser(state));
  if (answer === null) {
    return fill(body, failed ?? message("The first forecast is on its way.", "It appears here."));
  }
  const { certificate, advertisers, context_use } = answer;
  fill(body, failed, make("div", { class: `stacked fading ${phase === "ready" ? "" : "old"}` },
    make("div", { class: "toolbar" }, proofBadge(certificate, advertisers.length),
      make("span", { class: "quiet", text: useText(context_use) })),
    advertisers.length > 0 ? forecastTable(state, answer) : message("The forecast is empty.", "The catalogue may be empty: ask adprior build --check."),
    signLegend(state.get("before") !== null),
    make("div", { class: "split" }, drawCertificate(certificate)),
    make("div", { class: "split" }, drawTimes(answer, took_ms), drawInterests(answer.interests))));
}

function useText(use) {
  if (use === null) return "";
  return use.used_events === use.events ? "" : `The model read ${use.used_events} of ${use.events} events: ${use.text}.`;
}

function forecastTable(state, { advertisers }) {
  const former = new Map((state.get("before")?.advertisers ?? []).map((each) => [each.advertiser_id, each.probability]));
  const hasBefore = state.get("before") !== null;
  const scale = makeScale(state.get("scale"), [...advertisers.map(({ probability }) => probability), ...former.values()]);
  const head = [["#", "number"], ["advertiser", ""], ["new?", ""], ["probability", "number"]];
  return scrollBox("Advertisers", make("table", { class: "forecast" },
    make("caption", { class: "visually-hidden", text: "Advertisers by probability, the most probable first" }),
    make("thead", {}, make("tr", {},
      head.map(([text, kind]) => make("th", { scope: "col", class: kind, text })),
      hasBefore ? make("th", { scope: "col", class: "number wide-only", text: "before" }) : null,
      make("th", { scope: "col", class: "bar-cell" }, make("span", { class: "visually-hidden", text: "bar" }), axis(scale)))),
    make("tbody", {}, advertisers.map((each, index) => row(each, index, scale, hasBefore, former)))));
}

function row({ advertiser_id, name, probability, is_new }, index, scale, hasBefore, former) {
  const was = former.get(advertiser_id) ?? null;
  return make("tr", {},
    make("td", { class: "number quiet", text: index + 1 }),
    make("th", { scope: "row", text: name }),
    make("td", {}, sign(is_new)),
    make("td", { class: "number", text: percent(probability) }),
    hasBefore ? make("td", { class: "number quiet wide-only", text: was === null ? "not listed" : percent(was) }) : null,
    make("td", { class: "bar-cell" }, bar(scale, probability, is_new ? "new" : "known", was)));
}

function drawInterests(interests) {
  if (interests.length === 0) return null;
  const scale = { parts: 1, place: (value) => value / interests[0].probability };
  return make("div", { class: "chart" },
    make("h3", { text: "Interests" }),
    make("table", {},
      make("caption", { class: "visually-hidden", text: "Interests by probability" }),
      make("tbody", {}, interests.map(({ name, probability }) => make("tr", {},
        make("th", { scope: "row", text: name }),
        make("td", { class: "number", text: percent(probability) }),
        make("td", { class: "bar-cell" }, bar(scale, probability, "plain")))))));
}
