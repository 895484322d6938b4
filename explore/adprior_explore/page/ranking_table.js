/** The table of ranked candidates; a long one is drawn in pieces. */

import { divergingBar } from "./bars.js";
import { button, fill, make, scrollBox } from "./dom.js";
import { count, decimal, percent, signed } from "./numbers.js";

const DRAWN_AT_ONCE = 100;
const STATUSES = {
  exact: ["good", "exact"],
  upper_bound: ["warn", "upper bound"],
  not_in_catalogue: ["bad", "not in the catalogue"],
};

/** Return the candidates of an answer in their new order. */
export function rankingTable({ candidates, stored_forecast }) {
  const rows = [...candidates].sort((one, other) => one.rank_after - other.rank_after);
  const hasStored = stored_forecast !== null;
  const most = Math.max(...rows.map(({ contribution }) => Math.abs(contribution)), 1e-9);
  const place = make("div", { class: "stacked" });
  const draw = (end) => {
    const left = rows.length - end;
    fill(place,
      scrollBox("Ranked candidates", make("table", {},
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
    ["after", "number"], ["before", "number"], ["move", ""], ["advertiser", ""], ["base logit", "number"],
    ["head adds", "number"], ["contribution", "bar-cell wide-only"], ["logit", "number"], ["prior", ""],
  ];
  if (hasStored) columns.push(["stored: adds", "number"], ["stored: after", "number"]);
  return make("thead", {}, make("tr", {}, columns.map(([text, kind]) => make("th", { scope: "col", class: kind, text }))));
}

function row(candidate, most, hasStored) {
  const { advertiser_id, name, base_logit, adjusted_logit, contribution, rank_before, rank_after, stored } = candidate;
  const differs = hasStored && stored !== null && stored.rank_after !== rank_after;
  return make("tr", { class: rank_before === rank_after ? "" : "moved" },
    make("td", { class: "number", text: rank_after }),
    make("td", { class: "number quiet", text: rank_before }),
    make("td", { class: "move" }, move(rank_before - rank_after)),
    make("th", { scope: "row" }, name ?? `id ${advertiser_id}`, name === null ? null : make("span", { class: "quiet", text: ` ${advertiser_id}` })),
    make("td", { class: "number", text: decimal(base_logit) }),
    make("td", { class: "number", text: signed(contribution) }),
    make("td", { class: "bar-cell wide-only" }, divergingBar(contribution / most)),
    make("td", { class: "number", text: decimal(adjusted_logit) }),
    make("td", {}, prior(candidate)),
    hasStored ? make("td", { class: "number", text: stored === null ? "–" : signed(stored.contribution) }) : null,
    hasStored ? make("td", { class: `number ${differs ? "differs" : ""}`, text: stored === null ? "–" : stored.rank_after }) : null);
}

function move(places) {
  if (places === 0) return make("span", { class: "quiet", text: "=" });
  return make("span", { class: places > 0 ? "up" : "fall", text: places > 0 ? `▲ ${places}` : `▼ ${-places}` });
}

function prior({ status, log_prob }) {
  const [kind, label] = STATUSES[status] ?? ["bad", status];
  const probability = log_prob === null ? null : make("span", { class: "quiet number", text: ` ${percent(Math.exp(log_prob))}` });
  return make("span", { class: "prior" }, make("span", { class: `badge ${kind}`, text: label }), probability);
}
