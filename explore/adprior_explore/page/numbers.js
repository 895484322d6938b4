/** Numbers as a person reads them; percentages look as those of `adprior predict`. */

/** Return a probability as a percentage; a tiny one keeps two digits, as in "0.00031 %". */
export function percent(probability) {
  const value = 100 * probability;
  if (value >= 0.1 || value === 0) return `${value.toFixed(1)} %`;
  return `${plain(Number(value.toPrecision(2)))} %`;
}

/** Return a number with this many decimals, and a real minus sign. */
export function decimal(value, digits = 3) {
  return value.toFixed(digits).replace("-", "−");
}

/** Return a number with a sign: what something adds. */
export function signed(value, digits = 3) {
  const text = decimal(value, digits);
  return value > 0 ? `+${text}` : text;
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

/** Return a number without an exponent: 3.1e-7 as 0.00000031. */
function plain(value) {
  if (value >= 1e-6) return String(value);
  return value.toFixed(Math.min(20, 1 - Math.floor(Math.log10(value)))).replace(/0+$/, "");
}
