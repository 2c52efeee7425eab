/** Times: RFC 3339 text with six digits in JSON, milliseconds in bytes. */

const TIME = /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.(\d{3})(\d{3})Z$/;

/** Microseconds since 1970 as BigInt, or null where `text` is no time of the format. */
export function parseTime(text) {
  const parts = typeof text === "string" ? TIME.exec(text) : null;
  if (!parts) return null;
  const [year, month, day, hour, minute, second, milli, micro] = parts.slice(1).map(Number);
  const ms = Date.UTC(year, month - 1, day, hour, minute, second, milli);
  const date = new Date(ms);
  // Date.UTC turns 30 February into 2 March, and the years 0 to 99 into 1900 to 1999.
  if (year < 1970 || date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return null;
  return BigInt(ms) * 1000n + BigInt(micro);
}

/** The text of a time. A JavaScript clock has milliseconds, so the last three digits are zeros. */
export function formatTime(ms) {
  return new Date(ms).toISOString().replace("Z", "000Z");
}
