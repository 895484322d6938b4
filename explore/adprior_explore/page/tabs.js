/**
 * Tabs as the ARIA practices describe them: one is in the tab order, arrows move between them. On
 * wide windows the user is always visible, so the user's tab exists on narrow ones only.
 */

import { find, make } from "./dom.js";

const VIEWS = {
  user: "User",
  forecast: "Forecast",
  why: "Why",
  ranking: "Ranking",
  compare: "Two bundles",
  reports: "Reports",
};
const WIDE = matchMedia("(min-width: 1040px)");

/** Draw the tabs and show the panel of the view that the state names. */
export function showTabs(state) {
  const list = find("tabs");
  const start = location.hash.slice(1);
  state.set({ view: start in VIEWS ? start : WIDE.matches ? "forecast" : "user" });
  for (const [view, title] of Object.entries(VIEWS)) {
    list.append(make("button", {
      type: "button", role: "tab", id: `tab-${view}`, "aria-controls": panelId(view), text: title,
      on: { click: () => choose(state, view) },
    }));
    if (view !== "user") {
      const panel = find(panelId(view));
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", `tab-${view}`);
    }
  }
  list.addEventListener("keydown", (event) => moveByKey(state, event));
  state.watch(["view"], () => draw(state));
  WIDE.addEventListener("change", () => draw(state));
  addEventListener("hashchange", () => {
    const view = location.hash.slice(1);
    if (view in VIEWS) state.set({ view });
  });
}

function panelId(view) {
  return view === "user" ? "user-panel" : `panel-${view}`;
}

function shownViews() {
  return Object.keys(VIEWS).filter((view) => view !== "user" || !WIDE.matches);
}

function choose(state, view) {
  history.replaceState(null, "", `#${view}`);
  state.set({ view });
}

function draw(state) {
  const shown = shownViews();
  if (!shown.includes(state.get("view"))) return choose(state, "forecast");
  const view = state.get("view");
  place();
  for (const each of Object.keys(VIEWS)) {
    const tab = find(`tab-${each}`);
    const isChosen = each === view;
    tab.hidden = !shown.includes(each);
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    if (each !== "user") find(panelId(each)).hidden = !isChosen;
  }
  find(`tab-${view}`).scrollIntoView({ block: "nearest", inline: "nearest" });
  find("user-panel").hidden = !WIDE.matches && view !== "user";
  find("panels").hidden = view === "user";
}

/** Put the tabs before what they switch, so that the order of the focus is what one sees. */
function place() {
  const list = find("tabs");
  const user = find("user-panel");
  const panels = find("panels");
  if (WIDE.matches && list.nextElementSibling !== panels) panels.before(list);
  if (!WIDE.matches && list.nextElementSibling !== user) user.before(list);
  if (WIDE.matches) {
    user.removeAttribute("role");
    user.setAttribute("aria-labelledby", "user-title");
  } else {
    user.setAttribute("role", "tabpanel");
    user.setAttribute("aria-labelledby", "tab-user");
  }
}

function moveByKey(state, event) {
  const shown = shownViews();
  const place = shown.indexOf(state.get("view"));
  const targets = {
    ArrowRight: (place + 1) % shown.length,
    ArrowLeft: (place + shown.length - 1) % shown.length,
    Home: 0,
    End: shown.length - 1,
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  choose(state, shown[targets[event.key]]);
  find(`tab-${state.get("view")}`).focus();
}
