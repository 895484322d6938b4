/** Numbers as a person reads them. */

/** Return a probability as a percentage; below one per cent it keeps two digits, as in "0.00031 %". */
export function percent(probability) {
  const value = 100 * probability;
  if (value >= 0.995 || value === 0) return `${value.toFixed(1)} %`;
  return `${value >= 1e-6 ? value.toPrecision(2) : tiny(value)} %`;
}

/** Return a number with this many decimals, and a real minus sign; what rounds to 0 has no sign. */
export function decimal(value, digits = 3) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Return a number with a sign: what something adds. */
export function signed(value, digits = 3) {
  const text = decimal(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** Return a time in milliseconds, or in seconds from ten seconds on. */
export function milliseconds(value) {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ms`;
}

/** Return a size in KiB, or in bytes below one. */
export function kibibytes(bytes) {
  return bytes < 1024 ? `${bytes} bytes` : `${(bytes / 1024).toFixed(1)} KiB`;
}

/** Return a count with separators: 1,000. */
export function count(value) {
  return value.toLocaleString("en");
}

/** Return a count with its noun: 1 event, 2 events. */
export function counted(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Return two digits of a number below a millionth, without an exponent: 0.00000031. */
function tiny(value) {
  return value.toFixed(Math.min(100, 1 - Math.floor(Math.log10(value))));
}
