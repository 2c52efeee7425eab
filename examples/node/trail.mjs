/**
 * The audit trail of one process: an instance, its chain, its heartbeats, and the chains of processes that died.
 *
 *     const trail = await Trail.open({ directory, service, registry, signer, generation, partitions, send });
 *     await trail.record({ phase: "single", operation: "decrypt", ... });      // durable when it resolves
 *     await trail.close();
 *
 * `send(partition, value, headers)` is the port to Kafka: it resolves when the log acknowledged with acks=all, and
 * rejects otherwise. See README.md.
 */

import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { hostname } from "node:os";

import { Chain } from "./chain.mjs";
import { SpoolUnavailable } from "./errors.mjs";
import { forget, isAlive, live } from "./liveness.mjs";
import { Spool, listSpools, readMeta } from "./spool.mjs";
import { formatTime } from "./time.mjs";
import { HOST } from "./words.mjs";

const HEARTBEAT_MS = 30_000;
const MAX_PARTITIONS = 64; // as many heads fit into a line
const QUOTA = 64 * 1024 * 1024; // held in memory, too

/** What an outcome repeats of its intent. */
const OF_THE_INTENT = [
  "operation", "key", "owner", "kek", "token_id", "actor", "purpose", "host", "address", "trace_id",
];

export class Trail {
  #options;
  #own = null;
  #liveness = null;
  #adopted = new Map();
  #timer = null;
  #adopting = Promise.resolve();
  #closed = null;
  #givingUp = new AbortController();

  /** @private use open() */
  constructor(options) {
    this.#options = options;
    this.instance = randomBytes(16).toString("hex");
  }

  /**
   * @param {object} options
   * @param {string} options.directory for spools; on one host, and on a disk that outlives the process
   * @param {string} options.service as the registry names the signer's source
   * @param {import("./registry.mjs").Registry} options.registry
   * @param {import("./signers.mjs").Signer} options.signer
   * @param {number} options.generation of the topic
   * @param {number} options.partitions of the topic's generation
   * @param {() => Promise<number>} [options.countPartitions] what the broker says; another number refuses to start
   * @param {(partition: number, value: Buffer, headers: [string, Buffer][]) => Promise<void>} options.send
   * @param {"volume" | "broker"} [options.durability]
   * @param {number} [options.quota] bytes of unsent lines above which events, and so uses of keys, are refused
   * @param {(what: string, err: Error) => void} [options.onProblem] for logs and metrics
   */
  static async open(options) {
    const filled = {
      durability: "volume", quota: QUOTA, heartbeatMs: HEARTBEAT_MS, clock: Date.now, uuid: randomUUID,
      onProblem: () => {}, ...options,
    };
    const { registry, signer, service, clock, countPartitions, partitions } = filled;
    const entry = registry.find(signer.id, "events", clock());
    if (entry === null || entry.source !== service) {
      throw new Error("the registry does not let this signer speak for the service");
    }
    if (partitions > MAX_PARTITIONS) {
      throw new RangeError(`a heartbeat names the heads of ${MAX_PARTITIONS} partitions at most`);
    }
    if (countPartitions && (await countPartitions()) !== partitions) {
      throw new Error("the topic has another number of partitions");
    }
    const trail = new Trail(filled);
    await trail.#start();
    return trail;
  }

  /**
   * Commit an event; `v`, `type`, `id`, `occurred_at`, `service` and `host` are filled in.
   *
   * @returns {Promise<object>} the whole event, durable. SpoolUnavailable: it is not, and what it tells of must not be.
   */
  async record(fields) {
    if (this.#closed) throw new SpoolUnavailable("the trail is closed");
    const { uuid, clock, service } = this.#options;
    const host = hostname();
    const given = { ...(HOST.test(host) ? { host } : {}), ...fields };
    const event = { ...given, v: 1, type: "key", id: uuid(), occurred_at: formatTime(clock()), service };
    await this.#own.commit(event);
    return event;
  }

  /** Commit the outcome of an intent that `record` returned. */
  async outcome(intent, fields) {
    return this.record({ ...pick(intent, OF_THE_INTENT), phase: "outcome", intent_id: intent.id, ...fields });
  }

  /** Instances whose chains this process carries to their end. */
  get adopting() {
    return [...this.#adopted.keys()];
  }

  /** @returns {Promise<boolean>} whether everything was sent; if not, the spool stays for the next process */
  close({ timeoutMs = 10_000 } = {}) {
    return (this.#closed ??= this.#close(timeoutMs)); // chain.close is the last line
  }

  async #close(timeoutMs) {
    clearInterval(this.#timer);
    const timer = setTimeout(() => this.#givingUp.abort(), timeoutMs);
    try {
      await this.#adopting;
      const sent = await this.#own.close(this.#givingUp.signal);
      await Promise.all(this.#adopted.values());
      await this.#own.stop({ remove: sent });
      return sent;
    } finally {
      clearTimeout(timer);
      await this.#liveness.close();
    }
  }

  async #start() {
    const { directory, registry, service, generation, partitions, quota, durability, heartbeatMs } = this.#options;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#liveness = await live(directory, this.instance); // before the spool, so that nobody takes it for a dead one
    const deployment = registry.deployment.toString("hex");
    const meta = { deployment, service, instance: this.instance, generation, partitions };
    this.#own = this.#chain(await Spool.create(directory, meta, { quota }));
    await this.#own.open(durability);
    await this.#adoptAll();
    this.#timer = setInterval(() => this.#beat(), heartbeatMs);
    this.#timer.unref();
  }

  #chain(spool) {
    const { signer, send, clock, uuid, onProblem } = this.#options;
    return new Chain({ spool, signer, send, clock, uuid, onProblem });
  }

  #beat() {
    this.#own.heartbeat().catch((err) => this.#options.onProblem("heartbeat", err));
    this.#adopting = this.#adopting.then(() => this.#adoptAll());
  }

  async #adoptAll() {
    const { directory, onProblem } = this.#options;
    for (const found of listSpools(directory)) {
      try {
        if (!(await this.#isCaredFor(found))) await this.#adopt(found);
      } catch (err) {
        onProblem("adopt", err);
      }
    }
  }

  /** One of this process's own is cared for, unless an adoption failed half way. */
  async #isCaredFor({ instance, owner }) {
    if (owner !== this.instance) return isAlive(this.#options.directory, owner);
    return instance === this.instance || this.#adopted.has(instance);
  }

  /** Carry the chain of a dead process to its end: open, outcomes of what it left open, close; then send all. */
  async #adopt(found) {
    const { directory, registry, service, generation, partitions, quota, onProblem } = this.#options;
    const meta = readMeta(found.path);
    if (meta === null) return void rmSync(found.path, { force: true }); // it died before it promised anything
    const ours = { deployment: registry.deployment.toString("hex"), service, generation, partitions };
    if (Object.entries(ours).some(([name, value]) => meta[name] !== value)) return; // for one of its own kind
    const spool = await Spool.adopt(found, this.instance, { quota });
    if (spool === null) return;
    if (spool.torn > 0) onProblem("torn", new Error(`${spool.torn} bytes were put aside`));
    forget(directory, found.owner);
    this.#adopted.set(found.instance, this.#finish(found.instance, spool));
  }

  async #finish(instance, spool) {
    const chain = this.#chain(spool);
    let sent = false;
    try {
      if (!spool.closed) {
        await chain.open(this.#options.durability, this.instance);
        await chain.commit(...spool.openIntents.map((intent) => this.#crashed(intent)));
      }
      sent = await chain.close(this.#givingUp.signal);
    } catch (err) {
      this.#options.onProblem("adopt", err);
    }
    await chain.stop({ remove: sent });
    this.#adopted.delete(instance);
  }

  /** How the act of a process that died between intent and outcome ended is not known. */
  #crashed(intent) {
    const { uuid, clock, service } = this.#options;
    return {
      v: 1, type: "key", id: uuid(), occurred_at: formatTime(clock()), service, ...pick(intent, OF_THE_INTENT),
      phase: "outcome", intent_id: intent.id, outcome: "unknown", reason: "crashed",
    };
  }
}

function pick(from, names) {
  return Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
}
