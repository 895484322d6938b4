/** The servers at the top of the page, and the banner when one does not answer. */

import { find, make } from "./dom.js";

/** Draw the servers and the banner whenever something is known of them. */
export function showServers(state) {
  const list = find("servers");
  const banner = find("banner");
  state.watch(["servers", "explorerError"], () => {
    const servers = state.get("servers");
    const error = state.get("explorerError");
    list.replaceChildren(...(servers?.sides ?? []).map((side) => serverItem(side, error !== null)));
    const problems = error !== null ? [explorerProblem(error)] : downSides(servers).map(sideProblem);
    const text = problems.map((problem) => problem.textContent).join("");
    if (text !== banner.textContent) banner.replaceChildren(...problems);
    banner.hidden = problems.length === 0;
  });
}

function serverItem({ side, url, ready, bundle_id }, isUnknown) {
  const [kind, word] = isUnknown ? ["unknown", "unknown"] : ready ? ["", "ready"] : ["down", "not ready"];
  return make("li", { class: "server" },
    make("span", { class: `dot ${kind}`, "aria-hidden": "true" }),
    make("span", { class: "side", text: side.toUpperCase() }),
    make("span", { text: url }),
    make("span", { class: "visually-hidden", text: `${word}${bundle_id ? ", bundle" : ""}` }),
    bundle_id ? make("code", { text: bundle_id }) : make("span", { class: "quiet", text: word }));
}

function downSides(servers) {
  return (servers?.sides ?? []).filter(({ ready }) => !ready);
}

function sideProblem({ side, url, error, what_to_do }) {
  const line = error ?? "not ready";
  return problem(`Server ${side.toUpperCase()}, ${line.startsWith(url) ? line : `${url}: ${line}`}`, what_to_do);
}

function explorerProblem(error) {
  return problem(error.message, error.whatToDo);
}

function problem(what, todo) {
  return make("div", {},
    make("p", {}, make("strong", { text: what })),
    make("p", { class: "todo", text: `${todo ?? ""} The page looks every two seconds and goes on by itself.`.trim() }));
}
