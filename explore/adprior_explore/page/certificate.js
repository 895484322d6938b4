/** The certificate, drawn: what the list holds, what it misses, and the gap that proves it. */

import { stackedBar } from "./bars.js";
import { make } from "./dom.js";
import { counted, decimal, percent } from "./numbers.js";

const AXIS_ENDS = [0.001, 0.01, 0.1, 1, 10, 100];

/** Return the badge that says whether the list is proved to be the most probable one. */
export function proofBadge({ exact, gap_nats }, shown) {
  if (exact) {
    return make("span", { class: "badge good", text: `✓ Proved: the ${counted(shown, "most probable advertiser")}` });
  }
  const why = gap_nats === null ? "another advertiser may be more probable than the last"
    : "the last shown and the best not shown are equal within the model's rounding";
  return make("span", { class: "badge warn", text: `? Not proved: ${why}` });
}

/** Return the stacked bar of probability and the drawing of the gap. */
export function drawCertificate(certificate) {
  const { shown_mass, missing_mass, outside_mass, exact, gap_nats } = certificate;
  return [
    stackedBar("Where the probability lies", [
      { share: shown_mass, kind: "shown", label: "shown", value: percent(shown_mass) },
      { share: missing_mass, kind: "missing", label: "missing: other advertisers, at most", value: percent(missing_mass) },
      { share: outside_mass, kind: "outside", label: "outside: no advertiser, at least", value: percent(outside_mass) },
    ]),
    make("div", { class: "chart" }, make("h3", { text: exact && gap_nats !== null ? "The gap that proves it" : "The gap" }), gap(certificate)),
  ];
}

function gap(certificate) {
  const { exact, last_shown, best_other, best_other_bound, gap_nats, margin_nats } = certificate;
  if (last_shown === null) return make("p", { class: "quiet", text: "Nothing is shown, so there is nothing to prove." });
  if (gap_nats === null) {
    const text = exact ? withoutGap(certificate)
      : `None: the last one shown has ${percent(last_shown)}, another may have up to ${percent(best_other_bound ?? 1)}.`;
    return make("p", { class: "quiet", text });
  }
  return [
    gapDrawing(gap_nats, margin_nats),
    make("ul", { class: "legend" },
      make("li", {}, "best not shown: ", best_other?.name ?? "any other", " ", make("strong", { text: percent(best_other_bound) })),
      make("li", {}, "last shown ", make("strong", { text: percent(last_shown) })),
      make("li", {}, make("span", { class: "swatch gap-swatch", "aria-hidden": "true" }), "gap ", make("strong", { text: nats(gap_nats) })),
      make("li", {}, make("span", { class: "swatch missing", "aria-hidden": "true" }), "margin of rounding ", make("strong", { text: nats(margin_nats) }))),
  ];
}

/** Return why a list that is proved has no gap to show. */
function withoutGap({ asked_one_more, best_other_bound }) {
  if (best_other_bound === null) return "The catalogue has no further advertiser, so there is no gap to show.";
  if (!asked_one_more) return "The bundle forecasts no more advertisers than these, so the best not shown is not known, and there is no gap to show.";
  return "The server proves these, but not which one comes next, so there is no gap to show.";
}

/** Draw the gap and the margin of rounding on a line that starts at the best not shown. */
function gapDrawing(gap_nats, margin_nats) {
  const end = AXIS_ENDS.find((each) => each >= Math.max(gap_nats, margin_nats)) ?? gap_nats;
  return make("div", { class: "gap", "aria-hidden": "true" },
    make("span", { class: "span", style: { "--to": gap_nats / end } }),
    make("span", { class: "span margin missing", style: { "--to": margin_nats / end } }),
    make("span", { class: "end", text: `${end} nats` }));
}

function nats(value) {
  return `${value >= 0.001 ? decimal(value) : value.toPrecision(1)} nats`;
}
