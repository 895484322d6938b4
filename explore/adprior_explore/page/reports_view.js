/** The reports of the benchmarks, opened in a frame that may run nothing. */

import { fill, find, make } from "./dom.js";
import { message } from "./messages.js";

/** Draw the list of reports; the first one opens with the view. */
export function showReports(state) {
  const choice = make("div", { class: "examples", role: "group", "aria-label": "Reports" });
  const place = make("div", { class: "stacked" });
  find("panel-reports").append(choice, place);
  let opened = null;
  let listed = null;
  const open = (report) => {
    opened = report.name;
    for (const each of choice.children) each.setAttribute("aria-pressed", String(each.dataset.report === opened));
    fill(place, frame(report));
  };
  state.watch(["servers", "view"], () => {
    const reports = state.get("servers")?.reports ?? [];
    const names = JSON.stringify(reports);
    if (names !== listed) {
      listed = names;
      fill(choice, reports.map((report) => make("button", {
        type: "button", class: "chip", "data-report": report.name, "aria-pressed": "false", text: report.title,
        on: { click: () => open(report) },
      })));
      if (reports.length === 0) {
        fill(place, message("No report was given.", "Make one with adprior bench quality or adprior bench server and --output DIR, then start adprior explore with --report DIR."));
      }
    }
    if (state.get("view") === "reports" && opened === null && reports.length > 0) open(reports[0]);
  });
}

function frame({ name, title }) {
  const address = `/reports/${encodeURIComponent(name)}`;
  return [
    make("p", {}, make("a", { href: address, target: "_blank", rel: "noopener", text: `Open “${title}” in a tab of its own` })),
    make("iframe", { class: "report", src: address, sandbox: "", title }),
  ];
}
