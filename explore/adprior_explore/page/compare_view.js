/** Two bundles side by side: the same user, then how far they agree over many users. */

import { showAgreement } from "./agreement_view.js";
import { bar } from "./bars.js";
import { fill, find, make, scrollBox } from "./dom.js";
import { failure, forecastFailure, message, needsUser, waiting } from "./messages.js";
import { decimal, percent, signed } from "./numbers.js";
import { makeScale } from "./scales.js";
import { isCurrent } from "./state.js";

const SAME_NATS = 0.005;

/** Draw the comparison whenever it changes. */
export function showCompare(state, questions) {
  const one = make("div", { class: "stacked" });
  const many = make("section", { class: "stacked", "aria-label": "Agreement over many users" });
  const missing = message("There is one bundle only.", "Serve the second one too, and start adprior explore with --bundle-b HOST:PORT.");
  find("panel-compare").append(missing, one, many);
  showAgreement(state, questions, many);
  state.watch(["servers"], () => {
    const hasTwo = (state.get("servers")?.sides.length ?? 0) > 1;
    missing.hidden = hasTwo;
    one.hidden = !hasTwo;
    many.hidden = !hasTwo;
  });
  state.watch(["compare", "forecast", "version", "k", "scale"], () => draw(state, questions, one));
}

function draw(state, questions, body) {
  const known = state.get("compare");
  const { phase, answer, error } = known;
  body.setAttribute("aria-busy", String(phase === "loading"));
  if (state.get("user") === null) return fill(body, needsUser(state));
  const failed = phase === "failed" ? failure(error, () => questions.askCompare()) : null;
  if (answer === null) return fill(body, failed ?? forecastFailure(state) ?? waiting("asking both bundles …"));
  const isOld = phase === "loading" || !isCurrent(state, known);
  fill(body, failed, facts(answer), isOld ? waiting("asking both bundles …") : null,
    make("div", { class: `fading ${isOld ? "old" : ""}` }, scrollBox("Both forecasts", table(state, answer))));
}

function facts({ overlap_at, total_variation, exact }) {
  const entries = Object.entries(overlap_at).map(([k, share]) => [`overlap at ${k}`, percent(share)]);
  entries.push(["total variation, at least", decimal(total_variation)]);
  entries.push(["proved", `A ${exact.a ? "✓" : "no"}, B ${exact.b ? "✓" : "no"}`]);
  return make("dl", { class: "facts" }, entries.map(([term, value]) =>
    make("div", {}, make("dt", { text: term }), make("dd", { text: value }))));
}

function table(state, answer) {
  const rows = joined(answer);
  const all = rows.flatMap(({ a, b }) => [a, b]).filter((each) => each !== null);
  const scale = makeScale(state.get("scale"), all.map(({ probability }) => probability));
  const head = (text, kind = "") => make("th", { scope: "col", class: kind, text });
  const hidden = (text) => make("th", { scope: "col" }, make("span", { class: "visually-hidden", text }));
  return make("table", { class: "sides" },
    make("caption", { class: "visually-hidden", text: "Advertisers of both bundles, by their better place" }),
    make("thead", {}, make("tr", {},
      head("A #", "number"), head("A", "number"), hidden("bar of A"), head("advertiser"),
      hidden("bar of B"), head("B", "number"), head("B #", "number"), head("B against A"))),
    make("tbody", {}, rows.map((each) => row(each, scale))));
}

/** Return each advertiser of either list with its place and probability on both sides. */
function joined({ a, b }) {
  const rows = new Map();
  for (const [side, list] of [["a", a], ["b", b]]) {
    list.forEach((each, index) => {
      const known = rows.get(each.advertiser_id) ?? { name: each.name, a: null, b: null };
      rows.set(each.advertiser_id, { ...known, [side]: { rank: index + 1, probability: each.probability } });
    });
  }
  const best = ({ a: one, b: other }) => Math.min(one?.rank ?? Infinity, other?.rank ?? Infinity);
  return [...rows.values()].sort((one, other) => best(one) - best(other));
}

function row({ name, a, b }, scale) {
  return make("tr", { class: a === null || b === null ? "marked" : "" },
    make("td", { class: "number quiet", text: a?.rank ?? "–" }),
    make("td", { class: "number", text: a === null ? "–" : percent(a.probability) }),
    make("td", { class: "bar-cell mirrored" }, a === null ? null : bar(scale, a.probability, "known")),
    make("th", { scope: "row", text: name }),
    make("td", { class: "bar-cell" }, b === null ? null : bar(scale, b.probability, "plain")),
    make("td", { class: "number", text: b === null ? "–" : percent(b.probability) }),
    make("td", { class: "number quiet", text: b?.rank ?? "–" }),
    make("td", {}, difference(a, b)));
}

function difference(a, b) {
  if (b === null) return make("span", { class: "badge note", text: "only A" });
  if (a === null) return make("span", { class: "badge note", text: "only B" });
  const places = a.rank - b.rank;
  const moved = places === 0 ? "" : places > 0 ? `▲ ${places} ` : `▼ ${-places} `;
  const ratio = Math.log(b.probability / a.probability);
  const nats = Math.abs(ratio) < SAME_NATS || !Number.isFinite(ratio) ? "" : `${signed(ratio, 2)} nats`;
  return make("span", { class: "quiet number", text: moved + nats || "=" });
}
