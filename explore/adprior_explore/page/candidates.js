/** Reads pasted candidates: the JSON of `adprior rank`, or one "id, base logit" in a line. */

import { parseJson, readId } from "./exact_json.js";

/**
 * Return candidates as the server takes them.
 *
 * Throws an Error with one clear line: what was found, what was expected, where.
 */
export function readCandidates(text, most) {
  const trimmed = text.trim();
  if (trimmed === "") throw new Error("Found nothing; expected candidates, one in a line: id, base logit.");
  const candidates = trimmed.startsWith("[") ? fromJson(trimmed) : fromLines(text);
  if (candidates.length === 0) throw new Error("Found an empty list; expected at least one candidate.");
  if (candidates.length > most) throw new Error(`Found ${candidates.length} candidates; at most ${most} are ranked.`);
  return candidates;
}

/** Return candidates as lines of text. */
export function writeCandidates(candidates) {
  return candidates.map(({ advertiser_id, base_logit }) => `${advertiser_id}, ${base_logit}`).join("\n");
}

function fromJson(text) {
  let list;
  try {
    list = parseJson(text);
  } catch {
    throw new Error('This begins like JSON but is none; expected [{"advertiser_id": 17, "base_logit": -2.3}, …].');
  }
  return list.map((item, index) => candidate(item?.advertiser_id, item?.base_logit, `candidate ${index + 1}`));
}

function fromLines(text) {
  return text.split("\n")
    .map((line, index) => ({ parts: line.trim().split(/[\s,;]+/).filter(Boolean), place: `line ${index + 1}` }))
    .filter(({ parts }, index) => parts.length > 0 && !(index === 0 && isHeading(parts)))
    .map(({ parts, place }) => {
      if (parts.length !== 2) throw new Error(`${place}: found ${parts.length} values, expected two: id, base logit.`);
      return candidate(parts[0], number(parts[1]), place);
    });
}

function isHeading(parts) {
  return parts.every((part) => Number.isNaN(number(part)));
}

function number(text) {
  return text === "" ? Number.NaN : Number(text.replace("−", "-"));
}

function candidate(id, base_logit, place) {
  const advertiser_id = readId(id);
  if (advertiser_id === null) {
    throw new Error(`${place}: expected the advertiser's id, an integer of at most 64 bits.`);
  }
  if (typeof base_logit !== "number" || !Number.isFinite(base_logit)) {
    throw new Error(`${place}: expected the base logit, a number.`);
  }
  return { advertiser_id, base_logit };
}
