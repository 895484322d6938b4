/** The certificate, drawn: what the list holds, what it misses, and the gap that proves it. */

import { stackedBar } from "./bars.js";
import { make } from "./dom.js";
import { counted, decimal, percent } from "./numbers.js";

const NEAR_NATS = 1;

/** Return the badge that says whether the list is proved to be the most probable one. */
export function proofBadge({ exact }, shown) {
  return exact
    ? make("span", { class: "badge good", text: `✓ Proved: the ${counted(shown, "most probable advertiser")}` })
    : make("span", { class: "badge warn", text: "? Not proved: another advertiser may be more probable than the last" });
}

/** Return the stacked bar of probability and the drawing of the gap. */
export function drawCertificate(certificate) {
  const { shown_mass, missing_mass, outside_mass } = certificate;
  return [
    stackedBar("Where the probability lies", [
      { share: shown_mass, kind: "shown", label: "shown", value: percent(shown_mass) },
      { share: missing_mass, kind: "missing", label: "other advertisers, at most", value: percent(missing_mass) },
      { share: outside_mass, kind: "outside", label: "no advertiser, at least", value: percent(outside_mass) },
    ]),
    make("div", { class: "chart" }, make("h3", { text: "The gap that proves it" }), gap(certificate)),
  ];
}

function gap({ exact, last_shown, best_other, best_other_bound, gap_nats }) {
  if (last_shown === null) return make("p", { class: "quiet", text: "Nothing is shown, so there is nothing to prove." });
  if (gap_nats === null) {
    return make("p", {
      class: "quiet",
      text: exact
        ? "The catalogue has no further advertiser, so there is no gap to show."
        : `None: the last one shown has ${percent(last_shown)}, another may have up to ${percent(best_other_bound ?? 1)}.`,
    });
  }
  const other = best_other === null ? "any other advertiser" : best_other.name;
  return [
    gapDrawing(gap_nats, exact),
    make("ul", { class: "legend" },
      make("li", {}, `next, not shown: ${other}, at most `, make("strong", { text: percent(best_other_bound) })),
      make("li", {}, "last shown ", make("strong", { text: percent(last_shown) })),
      make("li", {}, "gap ", make("strong", { text: `${decimal(gap_nats)} nats` }),
        ` (${decimal(Math.exp(gap_nats), 2)} times as probable)`)),
  ];
}

/** Draw both probabilities on a log line; a gap of one nat or more fills it. */
function gapDrawing(gap_nats, exact) {
  const length = Math.min(Math.abs(gap_nats) / NEAR_NATS, 1) * 0.8;
  const [from, to] = [0.1, 0.1 + Math.max(length, 0.004)];
  const [bound, last] = gap_nats >= 0 ? [from, to] : [to, from];
  return make("div", { class: "gap", "aria-hidden": "true" },
    exact ? make("span", { class: "span", style: { "--from": from, "--to": to } }) : null,
    make("span", { class: "post bound", style: { "--at": bound } }),
    make("span", { class: "post", style: { "--at": last } }));
}
