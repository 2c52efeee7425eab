/**
 * One chain on its way: lines are committed, sealed after a moment, and sent until the log acknowledges them.
 *
 * Sealing does not wait for sending: while the log is away batches still get the time of their lines. Sending is
 * one batch at a time for each partition, in order, for as long as it takes; the spool's quota is the bound.
 */

import { setTimeout as sleep } from "node:timers/promises";

import { batchHeaders } from "./batch.mjs";
import { writeLine } from "./events.mjs";
import { partitionBytes, partitionOf } from "./partition.mjs";
import { formatTime } from "./time.mjs";
import { LIFE_CYCLE } from "./words.mjs";

const LINGER_MS = 250;
const POLL_MS = 20;
const STOP_MS = 1000;
const RETRY_MS = [100, 200, 500, 1000, 2000, 5000];

export class Chain {
  #spool;
  #signer;
  #send;
  #clock;
  #uuid;
  #problem;
  #beatMs = -1;
  #committing = new Set();
  #timers = new Map();
  #sealing = new Map();
  #sending = new Map();
  #stopped = new AbortController();

  /**
   * @param {object} parts
   * @param {import("./spool.mjs").Spool} parts.spool
   * @param {import("./signers.mjs").Signer} parts.signer
   * @param {(partition: number, value: Buffer, headers: [string, Buffer][]) => Promise<void>} parts.send
   * @param {(what: string, err: Error) => void} parts.onProblem
   */
  constructor({ spool, signer, send, clock, uuid, onProblem }) {
    this.#spool = spool;
    this.#signer = signer;
    this.#send = send;
    this.#clock = clock;
    this.#uuid = uuid;
    this.#problem = onProblem;
    this.instance = Buffer.from(spool.meta.instance, "hex");
  }

  /** Durable when it resolves. `fields` are whole lines as objects; all are committed together or none. */
  async commit(...fields) {
    const lines = fields.map((line) => ({
      line,
      bytes: writeLine(line),
      partition: partitionOf(partitionBytes(line, this.instance), this.#spool.meta.partitions),
    }));
    const committed = this.#spool.commit(lines, this.#clock(), { always: fields.every((line) => line.type !== "key") });
    this.#committing.add(committed);
    try {
      await committed;
    } finally {
      this.#committing.delete(committed);
    }
    for (const { line, partition } of lines) this.#arm(partition, isUrgent(line));
  }

  open(durability, continues) {
    return this.commit({ ...this.#control("chain.open"), durability, ...(continues ? { continues } : {}) });
  }

  /**
   * Say that the process lives and how far its chains are, unless the last such line is still unsent: one says all
   * that two would. Also tries again what failed on the way.
   */
  async heartbeat() {
    this.resume();
    const oldest = this.#spool.oldestUnsentMs([partitionOf(this.instance, this.#spool.meta.partitions)]);
    if (oldest !== null && oldest <= this.#beatMs) return;
    this.#beatMs = this.#clock();
    await this.commit({ ...this.#control("heartbeat"), ...this.#standing() });
  }

  /** Seal and send what there is. */
  resume() {
    for (const partition of this.#spool.partitionsWithWork) this.#arm(partition, true);
  }

  /**
   * Write the last line, unless it is written, and wait until everything is sent.
   *
   * @param {AbortSignal} signal gives up waiting; what is unsent stays in the spool for whoever adopts it
   * @returns {Promise<boolean>} whether everything was sent
   */
  async close(signal) {
    await Promise.allSettled(this.#committing); // the heads of the last line are those of the last batches
    await this.#sealAll();
    if (!this.#spool.closed) {
      await this.commit({ ...this.#control("chain.close"), ...this.#standing() });
      await this.#sealAll();
    }
    return this.#drained(signal);
  }

  /** Stop sealing and sending where they are; `remove` the spool of a chain that was sent to its end. */
  async stop({ remove = false } = {}) {
    this.#stopped.abort();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    const waiting = new AbortController();
    const enough = sleep(STOP_MS, null, { signal: waiting.signal }).catch(() => {});
    await Promise.race([settled(this.#sealing, this.#sending), enough]); // a send may hang
    waiting.abort();
    await this.#spool.close();
    if (remove) this.#spool.remove();
  }

  async #drained(signal) {
    const givenUp = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    while (this.#spool.partitionsWithWork.length > 0 && !signal.aborted && !this.#stopped.signal.aborted) {
      this.resume();
      await Promise.race([settled(this.#sealing, this.#sending), givenUp]);
      if (this.#spool.partitionsWithWork.length > 0) await Promise.race([sleep(POLL_MS), givenUp]);
    }
    return this.#spool.partitionsWithWork.length === 0;
  }

  #control(type) {
    return { v: 1, type, id: this.#uuid(), at: formatTime(this.#clock()), service: this.#spool.meta.service };
  }

  #standing() {
    const { heads, tallies } = this.#spool;
    const oldest = this.#spool.oldestUnsentMs();
    return { heads, tallies, ...(oldest === null ? {} : { oldest_unsent_at: formatTime(oldest) }) };
  }

  #arm(partition, urgent) {
    if (urgent || this.#spool.full(partition)) this.#seal(partition);
    else if (!this.#timers.has(partition)) {
      this.#timers.set(partition, setTimeout(() => this.#seal(partition), LINGER_MS));
    }
  }

  #seal(partition) {
    clearTimeout(this.#timers.get(partition));
    this.#timers.delete(partition);
    this.#once(this.#sealing, partition, async () => {
      while (this.#spool.pending(partition) > 0) await this.#spool.seal(partition, this.#signer, this.#clock());
      this.#drain(partition);
    });
  }

  #drain(partition) {
    this.#once(this.#sending, partition, async () => {
      let failures = 0;
      for (let batch = this.#spool.nextBatch(partition); batch; batch = this.#spool.nextBatch(partition)) {
        try {
          await this.#send(partition, batch.value, batchHeaders(batch));
        } catch (err) {
          this.#problem("send", err);
          await sleep(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)], null, { signal: this.#stopped.signal });
          failures += 1;
          continue;
        }
        failures = 0;
        await this.#spool.markSent(partition, batch.sequence);
      }
    });
  }

  /** Run `work`, or once more where it runs already: what came meanwhile must not be left lying. */
  #once(running, partition, work) {
    const current = running.get(partition);
    if (current) current.again = true;
    if (current || this.#stopped.signal.aborted) return;
    const state = { again: false };
    running.set(partition, state);
    state.done = this.#repeat(state, work, () => running.delete(partition));
  }

  async #repeat(state, work, done) {
    try {
      do {
        state.again = false;
        await work();
      } while (state.again);
    } catch (err) {
      if (!this.#stopped.signal.aborted) this.#problem("spool", err); // the next heartbeat tries again
    } finally {
      done(); // in the same turn as the last look at `again`
    }
  }

  async #sealAll() {
    for (const partition of this.#spool.partitionsWithWork) this.#seal(partition);
    await settled(this.#sealing);
  }
}

function settled(...running) {
  return Promise.all(running.flatMap((states) => [...states.values()].map((state) => state.done)));
}

/** Denied, failed and life-cycle events do not wait, and neither does the beginning or end of a chain. */
function isUrgent(line) {
  if (line.type !== "key") return line.type !== "heartbeat";
  return line.outcome === "denied" || line.outcome === "failed" || LIFE_CYCLE.has(line.operation);
}
