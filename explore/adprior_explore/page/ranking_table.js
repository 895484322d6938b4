/** The table of ranked candidates; a long one is drawn in pieces. */

import { divergingBar } from "./bars.js";
import { button, fill, make, scrollBox } from "./dom.js";
import { count, decimal, percent, signed } from "./numbers.js";

const DRAWN_AT_ONCE = 100;
const STATUSES = { exact: "exact", upper_bound: "upper bound", not_in_catalogue: "not in the catalogue" };

/** Return the candidates of an answer in their new order. */
export function rankingTable({ candidates, stored_forecast }) {
  const rows = [...candidates].sort((one, other) => one.rank_after - other.rank_after);
  const hasStored = stored_forecast !== null;
  const most = Math.max(...rows.map(({ contribution }) => Math.abs(contribution)), 1e-9);
  const place = make("div", { class: "stacked" });
  const draw = (end) => {
    const left = rows.length - end;
    fill(place,
      scrollBox("Ranked candidates", make("table", { class: "ranking" },
        make("caption", { class: "visually-hidden", text: "Candidates in the order of their adjusted logits" }),
        heading(hasStored),
        make("tbody", {}, rows.slice(0, end).map((each) => row(each, most, hasStored))))),
      left > 0 ? button(`Show all ${count(rows.length)}`, () => draw(rows.length), { class: "small" }) : null);
  };
  draw(Math.min(DRAWN_AT_ONCE, rows.length));
  return place;
}

function heading(hasStored) {
  const columns = [
    ["rank", "number"], ["was", "number"], ["advertiser", ""], ["base logit", "number"], ["head adds", "number"],
    ["", "bar-cell wide-only"], ["logit", "number"], ["probability", ""],
  ];
  if (hasStored) columns.push(["stored: adds", "number"], ["stored: rank", "number"]);
  return make("thead", {}, make("tr", {}, columns.map(([text, kind]) =>
    make(text === "" ? "td" : "th", { scope: text === "" ? null : "col", class: kind, text }))));
}

function row(candidate, most, hasStored) {
  const { advertiser_id, name, base_logit, adjusted_logit, contribution, rank_before, rank_after, stored } = candidate;
  const differs = hasStored && stored !== null && stored.rank_after !== rank_after;
  return make("tr", {},
    make("td", { class: "number", text: rank_after }),
    make("td", { class: "number" }, move(rank_before, rank_after)),
    make("th", { scope: "row" }, name, make("span", { class: "quiet number", text: name === null ? `id ${advertiser_id}` : ` ${advertiser_id}` })),
    make("td", { class: "number", text: decimal(base_logit) }),
    make("td", { class: "number", text: signed(contribution) }),
    make("td", { class: "bar-cell wide-only" }, divergingBar(contribution / most)),
    make("td", { class: "number", text: decimal(adjusted_logit) }),
    make("td", {}, prior(candidate)),
    hasStored ? make("td", { class: "number" }, storedContribution(stored)) : null,
    hasStored ? make("td", { class: `number ${differs ? "differs" : ""}`, text: stored === null ? "–" : stored.rank_after }) : null);
}

/** Return what the head adds with the stored forecast; a candidate outside its list has a bound only. */
function storedContribution(stored) {
  if (stored === null) return "–";
  const note = stored.status === "upper_bound" ? make("span", { class: "quiet", text: "bound " }) : null;
  return [note, signed(stored.contribution)];
}

function move(before, after) {
  const places = before - after;
  if (places === 0) return make("span", { class: "quiet", text: before });
  return make("span", { class: places > 0 ? "up" : "fall", text: `${before} ${places > 0 ? "▲" : "▼"}` });
}

function prior({ status, log_prob }) {
  if (status === "not_in_catalogue") return make("span", { class: "badge bad", text: STATUSES[status] });
  const probability = log_prob === null ? "0" : percent(Math.exp(log_prob));
  return [`${status === "upper_bound" ? "≤ " : ""}${probability} `, make("span", { class: "quiet", text: STATUSES[status] ?? status })];
}
