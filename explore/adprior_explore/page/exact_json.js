/** JSON whose integers keep all their digits: ids have 64 bits, and a number here has 53. */

/**
 * Return the value of a JSON text; an integer that a number would round is a string of its digits.
 *
 * A browser whose `JSON.parse` gives no `context.source` rounds it.
 */
export function parseJson(text) {
  return JSON.parse(text, (_key, value, context) => {
    if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
    return /^-?\d+$/.test(context?.source ?? "") ? context.source : value;
  });
}

/** Return an id, a number or digits, in the one form of `parseJson`; null if it is no 64-bit integer. */
export function readId(value) {
  if (Number.isSafeInteger(value)) return value;
  if (typeof value !== "string" || !/^[-−]?\d+$/.test(value)) return null;
  const id = BigInt(value.replace("−", "-"));
  if (id !== BigInt.asIntN(64, id)) return null;
  return Number.isSafeInteger(Number(id)) ? Number(id) : String(id);
}
