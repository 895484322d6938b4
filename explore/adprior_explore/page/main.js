/** Puts the page together. */

import { announceForecasts } from "./announcements.js";
import { onMissingToken } from "./api.js";
import { showCompare } from "./compare_view.js";
import { Edits } from "./edits.js";
import { showForecast } from "./forecast_view.js";
import { Questions } from "./questions.js";
import { showRanking } from "./ranking_view.js";
import { showReports } from "./reports_view.js";
import { showServers } from "./server_status.js";
import { ServerWatch } from "./server_watch.js";
import { askForToken } from "./sign_in.js";
import { startingState } from "./state.js";
import { showTabs } from "./tabs.js";
import { showUserEditor } from "./user_editor.js";
import { showWhy } from "./why_view.js";

onMissingToken(askForToken);
const state = startingState();
const edits = new Edits(state);
const questions = new Questions(state);
const watch = new ServerWatch(state, questions);
showTabs(state);
showServers(state);
showUserEditor(state, edits);
showForecast(state, questions);
showWhy(state, questions);
showRanking(state);
showCompare(state, questions);
showReports(state);
announceForecasts(state);
watch.look();
