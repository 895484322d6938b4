/** The pieces that all bars are made of. They are decoration: a number always stands beside them. */

import { make } from "./dom.js";

/** Return a bar on a scale; `was` is a former probability, drawn as a tick. */
export function bar(scale, probability, kind, was = null) {
  return make("div", { class: "track", "aria-hidden": "true", style: { "--parts": scale.parts } },
    make("span", { class: `bar-fill ${kind}`, style: { "--to": scale.place(probability) } }),
    was === null ? null : make("span", { class: "was", style: { "--at": scale.place(was) } }));
}

/** Return the labels of a scale's grid lines. */
export function axis(scale) {
  return make("div", { class: "axis", "aria-hidden": "true" },
    scale.ticks.map(({ at, label }) => make("span", { text: label, style: { "--at": at } })));
}

/** Return a bar that goes left or right from the middle; `value` is in [-1, 1]. */
export function divergingBar(value) {
  const [from, to] = value < 0 ? [0.5 + value / 2, 0.5] : [0.5, 0.5 + value / 2];
  return make("div", { class: "track", "aria-hidden": "true", style: { "--parts": 2 } },
    make("span", { class: `bar-fill ${value < 0 ? "minus" : "known"}`, style: { "--from": from, "--to": to } }));
}

/** Return parts of a whole as one bar with a legend. Each part: `share`, `kind`, `label`, `value`. */
export function stackedBar(title, parts, style = "") {
  const drawn = parts.filter(({ share }) => share > 0);
  return make("div", { class: "chart" },
    make("h3", { text: title }),
    make("div", { class: `stack ${style}`, "aria-hidden": "true" },
      drawn.map(({ share, kind }) => make("span", { class: kind, style: { "--share": share } }))),
    make("ul", { class: "legend" }, parts.map(({ kind, label, value }) => make("li", {},
      make("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), `${label} `,
      make("strong", { text: value })))));
}

/** Return "new" or "known" with a shape, so that colour is not all that tells them apart. */
export function sign(isNew) {
  return make("span", { class: isNew ? "sign new" : "sign", text: isNew ? "◆ new" : "● known" });
}

/** Return the legend of new and known advertisers, and of the tick of the forecast before. */
export function signLegend(hasBefore) {
  const entry = (kind, text) => make("li", {},
    make("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text);
  return make("ul", { class: "legend" },
    entry("known", "● known: an event names it"),
    entry("new", "◆ new to this user"),
    hasBefore ? entry("was", "before the last edit") : null);
}
