/** Scales of probability bars: where a probability lies between 0 and 1 along a bar, and the axis. */

import { percent } from "./numbers.js";

const FEWEST_DECADES = 2;
const MOST_DECADES = 8;

/**
 * Return a scale for these probabilities: `place(p)` in [0, 1], `parts` of equal length between grid
 * lines, and `ticks` with their place and label.
 */
export function makeScale(kind, probabilities) {
  const positive = probabilities.filter((value) => value > 0);
  return kind === "log" ? logScale(positive) : linearScale(positive);
}

/** A log scale from a power of ten below the least to 100 %. */
function logScale(probabilities) {
  const least = Math.min(...probabilities, 1);
  const decades = Math.min(Math.max(Math.ceil(-Math.log10(least) + 1e-9), FEWEST_DECADES), MOST_DECADES);
  const powers = Array.from({ length: decades + 1 }, (_, index) => index - decades);
  return {
    parts: decades,
    place: (value) => (value <= 0 ? 0 : clip(1 + Math.log10(value) / decades)),
    ticks: powers.map((power) => ({ at: 1 + power / decades, label: tickLabel(10 ** power) })),
  };
}

/** A linear scale from 0 to 1, 2 or 5 times a power of ten. */
function linearScale(probabilities) {
  const most = Math.min(Math.max(...probabilities, 1e-6), 1);
  const power = 10 ** Math.floor(Math.log10(most));
  const end = [1, 2, 5, 10].map((step) => step * power).find((each) => each >= most * 0.9999);
  const parts = 4;
  return {
    parts,
    place: (value) => clip(value / end),
    ticks: [0, 0.5, 1].map((at) => ({ at, label: tickLabel(at * end) })),
  };
}

function tickLabel(probability) {
  return percent(probability).replace(/(\.\d*?)0+ %$/, "$1 %").replace(". %", " %");
}

function clip(value) {
  return Math.min(Math.max(value, 0), 1);
}
