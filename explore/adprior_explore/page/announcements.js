/** Says to screen readers what changed. The region is polite: it waits for a pause. */

import { find } from "./dom.js";
import { percent } from "./numbers.js";

const SPOKEN = 3;

/** Announce every new forecast. Failures are alerts where they are shown. */
export function announceForecasts(state) {
  state.onChange(["forecast"], () => {
    const { phase, answer } = state.get("forecast");
    if (phase === "ready") announce(describe(answer));
  });
}

/** Announce a line. */
export function announce(text) {
  find("announcements").textContent = text;
}

function describe({ advertisers, certificate }) {
  if (advertisers.length === 0) return "New forecast: no advertiser.";
  const first = advertisers.slice(0, SPOKEN).map(({ name, probability, is_new }) =>
    `${name} ${percent(probability)}${is_new ? ", new to the user" : ""}`);
  const proof = certificate.exact ? "Proved to be the most probable." : "Not proved.";
  return `New forecast of ${advertisers.length}: ${first.join("; ")}. ${proof}`;
}
