/** Where the time went: the server's steps by its own statistics, and what came on top of them. */

import { stackedBar } from "./bars.js";
import { make } from "./dom.js";
import { milliseconds } from "./numbers.js";

const KINDS = 4;

/** Return the bar of the steps; `took_ms` is the browser's time from request to answer. */
export function drawTimes({ steps, server_ms, total_ms }, took_ms) {
  if (steps === null || server_ms === null) {
    return make("div", { class: "chart" },
      make("h3", { text: "Time by step" }),
      make("p", {
        class: "quiet",
        text: `${milliseconds(took_ms)} in all. The server's statistics do not tell the times of this request apart from those of others.`,
      }));
  }
  const whole = Math.max(took_ms, total_ms, server_ms);
  const queue_ms = steps.reduce((sum, step) => sum + (step.queue_ms ?? 0), 0);
  const parts = steps.map(({ step, ms }, index) => ({ label: step.replaceAll("_", " "), ms, kind: `step-${1 + (index % KINDS)}` }));
  if (queue_ms >= 0.05) parts.push({ label: "queues", ms: queue_ms, kind: "missing" });
  const listed = parts.reduce((sum, { ms }) => sum + ms, 0);
  parts.push({ label: "everything else", ms: Math.max(whole - listed, 0), kind: "outside" });
  return stackedBar(`Time by step: ${milliseconds(whole)}, of which Triton ${milliseconds(server_ms)}`,
    parts.map(({ label, ms, kind }) => ({ share: ms / whole, kind, label, value: milliseconds(ms) })), "thin");
}
