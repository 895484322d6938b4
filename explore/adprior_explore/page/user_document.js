/** Changes of a user's document. Each returns a new document; none changes the one it got. */

import { parseJson } from "./exact_json.js";

const OPTIONAL = new Set(["advertiser", "category", "text"]);
const ENCODER = new TextEncoder();

/** Return a user without anything, as of today. */
export function emptyUser() {
  return { profile: {}, history: [], as_of: new Date().toISOString().slice(0, 10) };
}

/** Return the user's size as the server counts it, in bytes. */
export function sizeInBytes(user) {
  return ENCODER.encode(JSON.stringify(user)).length;
}

/** Return the user of a JSON text; throw an Error with one clear line if it is none. */
export function readUser(text) {
  let user;
  try {
    user = parseJson(text);
  } catch {
    throw new Error(`This is not JSON: ${placeOfBreak(text)}`);
  }
  if (!isObject(user)) throw new Error("Found no object; expected {\"profile\": {…}, \"history\": […], \"as_of\": \"…\"}.");
  if (!isObject(user.profile ?? {})) throw new Error("profile: expected an object of keys and values.");
  if (!Array.isArray(user.history ?? [])) throw new Error("history: expected a list of events.");
  if (!(user.history ?? []).every(isObject)) throw new Error("history: expected each event as an object.");
  return { ...user, profile: user.profile ?? {}, history: user.history ?? [] };
}

/** Return the user with another value of a profile key; a number stays one if the text is one. */
export function withProfileValue(user, key, text) {
  const old = user.profile[key];
  const isNumber = typeof old === "number" && text.trim() !== "" && Number.isFinite(Number(text));
  return { ...user, profile: { ...user.profile, [key]: isNumber ? Number(text) : text } };
}

/** Return the user with a profile key renamed, at the same place. */
export function withProfileKey(user, key, newKey) {
  const entries = Object.entries(user.profile);
  const renamed = entries.map(([name, value]) => [name === key ? newKey : name, value]);
  return { ...user, profile: Object.fromEntries(renamed) };
}

/** Return the user with a new, empty profile entry. */
export function withNewProfileKey(user) {
  let key = "new_key";
  for (let number = 2; key in user.profile; number += 1) key = `new_key_${number}`;
  return { ...user, profile: { ...user.profile, [key]: "" } };
}

/** Return the user without a profile key. */
export function withoutProfileKey(user, key) {
  const { [key]: _, ...profile } = user.profile;
  return { ...user, profile };
}

/** Return the user with another text in one field of an event; an empty optional field goes away. */
export function withEventField(user, index, name, text) {
  const event = { ...user.history[index], [name]: text };
  if (text === "" && OPTIONAL.has(name)) delete event[name];
  return { ...user, history: user.history.with(index, event) };
}

/** Return the user with a new last event, at the forecast's time. */
export function withNewEvent(user) {
  const last = user.history.at(-1);
  const time = typeof user.as_of === "string" ? user.as_of : "";
  return { ...user, history: [...user.history, { time, action: last?.action ?? "purchase" }] };
}

/** Return the user without an event. */
export function withoutEvent(user, index) {
  return { ...user, history: user.history.toSpliced(index, 1) };
}

/** Return a value as the text of its field. */
export function fieldText(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return where JSON breaks. Not every browser says it, and some quote the text instead. */
function placeOfBreak(text) {
  if (!isBroken(text)) return text.trim() === "" ? "it is empty." : "it ends too early.";
  let [whole, broken] = [0, text.length];
  while (broken - whole > 1) {
    const middle = Math.floor((whole + broken) / 2);
    if (isBroken(text.slice(0, middle))) broken = middle;
    else whole = middle;
  }
  const lines = text.slice(0, whole).split("\n");
  return `look at line ${lines.length}, column ${lines.at(-1).length + 1}.`;
}

/** Return whether the beginning of a JSON text is wrong, whatever follows it. */
function isBroken(beginning) {
  try {
    JSON.parse(beginning);
    return false;
  } catch (error) {
    const position = /position (\d+)/.exec(error.message);
    if (position !== null) return Number(position[1]) < beginning.length;
    return !/end of|unterminated/i.test(error.message);
  }
}
