/**
 * Failures that touched no DEK: the first of each caller leave an event each, a flood of them is counted instead.
 *
 * Otherwise whoever can send garbage could fill the spool with it, and so stop every use of every key. The count is
 * exact: what has no event of its own stands in a `summary`.
 */

const BURST = 100; // events that one caller may leave at once
const PER_SECOND = 5; // and for as long as he likes
const SUMMARY_MS = 60_000;
const MAX_CALLERS = 10_000;
const COUNTED = new Set(["parse_error", "unknown_key", "owner_mismatch"]);

export class Failures {
  #trail;
  #clock;
  #callers = new Map();
  #timer = null;

  /** @param {{record: (event: object) => Promise<object>}} trail */
  constructor(trail, { clock = Date.now } = {}) {
    this.#trail = trail;
    this.#clock = clock;
  }

  /** Record the event of a use that did not succeed, or count it. */
  async record(event) {
    if (!COUNTED.has(event.reason)) return void (await this.#trail.record(event));
    const caller = this.#caller(event.actor);
    if (caller.left >= 1) {
      caller.left -= 1;
      return void (await this.#trail.record(event));
    }
    const what = `${event.operation} ${event.outcome} ${event.reason}`;
    caller.counts.set(what, (caller.counts.get(what) ?? 0) + 1);
    caller.purpose = event.purpose;
    this.#timer ??= setTimeout(() => this.flush().catch(() => {}), SUMMARY_MS);
    return undefined;
  }

  /** Write the summaries that are due; those that could not be written are kept. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    for (const [actor, caller] of this.#callers) {
      if (caller.counts.size === 0) continue;
      const told = caller.counts;
      caller.counts = new Map();
      try {
        await this.#trail.record(summary(actor, caller.purpose, told));
      } catch (err) {
        for (const [what, count] of told) caller.counts.set(what, (caller.counts.get(what) ?? 0) + count);
        this.#timer ??= setTimeout(() => this.flush().catch(() => {}), SUMMARY_MS);
        throw err;
      }
    }
  }

  #caller(actor) {
    const now = this.#clock();
    let caller = this.#callers.get(actor);
    if (caller === undefined) {
      if (this.#callers.size >= MAX_CALLERS) this.#forgetIdle(now);
      caller = { left: BURST, at: now, counts: new Map(), purpose: "" };
      this.#callers.set(actor, caller);
    }
    caller.left = leftOf(caller, now);
    caller.at = now;
    return caller;
  }

  /** Whose bucket is full again is as good as unknown. */
  #forgetIdle(now) {
    for (const [actor, caller] of this.#callers) {
      if (caller.counts.size === 0 && leftOf(caller, now) >= BURST) this.#callers.delete(actor);
    }
  }
}

function leftOf(caller, now) {
  return Math.min(BURST, caller.left + (Math.max(0, now - caller.at) / 1000) * PER_SECOND);
}

function summary(actor, purpose, counted) {
  const counts = [...counted].map(([what, count]) => {
    const [operation, outcome, reason] = what.split(" ");
    return { operation, outcome, reason, count };
  });
  const outcome = counts.every((entry) => entry.outcome === "denied") ? "denied" : "failed";
  return { phase: "single", operation: "summary", outcome, reason: "rate_limited", actor, purpose, counts };
}
