/**
 * The durable state of one chain: committed lines, the batches sealed from them, what was acknowledged, the heads.
 *
 * It is a function of the journal: each change is an entry that is made durable and then applied, and a start
 * applies the same entries again. So a batch that is sent twice is the same bytes, and no number is used twice.
 *
 *     line   partition u16 | counted u8 | committed_ms u64 | line      a line, to be sealed
 *     seal   partition u16 | seal(141) | signature(64)                 the first `count` lines of a partition
 *     sent   partition u16 | sequence u64                              the log has acknowledged it
 *
 * and, where a shorter journal takes the place of a long one: meta, head, tally, intent (what `line` left behind).
 *
 * The file is `<instance>.<owner>.spool`: whose chain it is, and which process writes it. To adopt is to rename.
 */

import { readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

import { MAX_VALUE, SEAL_SIZE, parseSeal, sealBatch } from "./batch.mjs";
import { SpoolUnavailable } from "./errors.mjs";
import { Journal, entry, firstEntry, syncDirectory } from "./journal.mjs";
import { sha256, u16, u64, u8 } from "./wire.mjs";

const [META, LINE, SEAL, SENT, HEAD, TALLY, INTENT] = [1, 2, 3, 4, 5, 6, 7];
const BATCH_LINES = 500;
const BATCH_BYTES = 262_144; // one more line of 16 KiB stays far below the limit of a value
const SHRINK_ABOVE = 1_048_576;
const NAME = /^([0-9a-f]{32})\.([0-9a-f]{32})\.spool$/;
const NEWLINE = Buffer.from("\n");

/** The spools in a directory: `{path, instance, owner}` in hex. */
export function listSpools(directory) {
  const found = readdirSync(directory).map((name) => NAME.exec(name)).filter(Boolean);
  return found.map(([name, instance, owner]) => ({ path: join(directory, name), instance, owner }));
}

/** Whose a spool is, without touching it; null where the process died before that was durable. */
export function readMeta(path) {
  const first = firstEntry(path);
  return first?.kind === META ? JSON.parse(first.body) : null;
}

export class Spool {
  #journal;
  #path;
  #lanes = new Map();
  #intents = new Map();
  #tallies = new Map();
  #quota;
  #unsent = 0;
  #reserved = 0;

  constructor(path, journal, quota) {
    this.#path = path;
    this.#journal = journal;
    this.#quota = quota;
    this.meta = null;
  }

  /** @param {{deployment, service, instance, generation, partitions}} meta ids in hex */
  static async create(directory, meta, { quota }) {
    const path = join(directory, `${meta.instance}.${meta.instance}.spool`);
    const spool = new Spool(path, await Journal.create(path), quota);
    await spool.#append([[META, Buffer.from(JSON.stringify(meta))]]);
    return spool;
  }

  /** Take over a dead process's spool, or null where another process was faster. */
  static async adopt({ path, instance }, owner, { quota }) {
    const mine = join(dirname(path), `${instance}.${owner}.spool`);
    try {
      renameSync(path, mine); // one process wins
    } catch (err) {
      if (err.code === "ENOENT") return null;
      throw err;
    }
    syncDirectory(dirname(mine));
    rmSync(`${path}.next`, { force: true });
    const { journal, entries, torn } = await Journal.recover(mine);
    const spool = new Spool(mine, journal, quota);
    for (const { kind, body } of entries) spool.#apply(kind, body);
    spool.torn = torn;
    return spool;
  }

  get closed() {
    return this.meta.closed === true;
  }

  /** Parsed lines of intents whose outcome is missing. */
  get openIntents() {
    return [...this.#intents.values()].map((bytes) => JSON.parse(bytes));
  }

  get heads() {
    const known = [...this.#lanes].filter(([, lane]) => lane.head);
    return known.map(([partition, { head }]) => ({
      generation: this.meta.generation, partition, sequence: head.sequence, digest: head.digest.toString("hex"),
    }));
  }

  get tallies() {
    return [...this.#tallies].map(([name, count]) => {
      const [operation, outcome] = name.split(" ");
      return { operation, outcome, count };
    });
  }

  /** When the oldest line was committed that is not acknowledged, in these partitions; or null. */
  oldestUnsentMs(partitions = [...this.#lanes.keys()]) {
    const lanes = partitions.map((partition) => this.#lane(partition));
    const times = lanes.flatMap(({ batches, pending }) => [batches[0]?.ms, pending[0]?.ms]);
    const known = times.filter((ms) => ms !== undefined);
    return known.length > 0 ? Math.min(...known) : null;
  }

  get partitionsWithWork() {
    const busy = [...this.#lanes].filter(([, lane]) => lane.pending.length + lane.batches.length > 0);
    return busy.map(([partition]) => partition);
  }

  pending(partition) {
    return this.#lanes.get(partition)?.pending.length ?? 0;
  }

  full(partition) {
    const { pending, pendingBytes } = this.#lane(partition);
    return pending.length >= BATCH_LINES || pendingBytes >= BATCH_BYTES;
  }

  /** The oldest batch of a partition that the log has not acknowledged. */
  nextBatch(partition) {
    const batch = this.#lanes.get(partition)?.batches[0];
    return batch ? { ...batch, value: valueOf(batch.lines) } : null;
  }

  /**
   * Make lines durable. Rejects with SpoolUnavailable, and then none of them counts.
   *
   * @param {{partition: number, bytes: Buffer}[]} lines without newline
   * @param {boolean} [always] also above the quota: what tells of the process itself
   */
  async commit(lines, nowMs, { always = false } = {}) {
    const size = lines.reduce((sum, line) => sum + line.bytes.length + 1, 0);
    if (!always && this.#unsent + this.#reserved + size > this.#quota) throw new SpoolUnavailable("the spool is full");
    this.#reserved += size;
    try {
      const body = ({ partition, bytes }) => Buffer.concat([u16(partition), u8(0), u64(nowMs), bytes]);
      await this.#append(lines.map((line) => [LINE, body(line)]));
    } finally {
      this.#reserved -= size;
    }
  }

  /** Turn the next lines of a partition into a batch. One call at a time for each partition. */
  async seal(partition, signer, nowMs) {
    const lane = this.#lane(partition);
    let count = 0;
    let size = 0;
    for (const { bytes } of lane.pending) {
      if (count === BATCH_LINES || size + bytes.length + 1 > MAX_VALUE || size >= BATCH_BYTES) break;
      count += 1;
      size += bytes.length + 1;
    }
    const { deployment, instance, generation } = this.meta;
    const head = {
      deployment: Buffer.from(deployment, "hex"), instance: Buffer.from(instance, "hex"), generation, partition, count,
      sequence: lane.head ? lane.head.sequence + 1 : 0, sealed_at_ms: nowMs, previous: lane.head?.digest ?? null,
    };
    const { seal, signature } = sealBatch(head, valueOf(lane.pending.slice(0, count)), signer);
    await this.#append([[SEAL, Buffer.concat([u16(partition), seal, signature])]]);
  }

  async markSent(partition, sequence) {
    await this.#append([[SENT, Buffer.concat([u16(partition), u64(sequence)])]]);
    if (this.#journal.size > SHRINK_ABOVE && this.#journal.size > 4 * this.#unsent) {
      await this.#journal.replace(() => this.#snapshot());
    }
  }

  async close() {
    await this.#journal.close();
  }

  /** Everything was sent and the chain is closed: nothing is left to keep. */
  remove() {
    rmSync(this.#path, { force: true });
    syncDirectory(dirname(this.#path));
  }

  #append(changes) {
    const bytes = Buffer.concat(changes.map(([kind, body]) => entry(kind, body)));
    return this.#journal.append(bytes, () => changes.forEach(([kind, body]) => this.#apply(kind, body)));
  }

  #lane(partition) {
    if (!this.#lanes.has(partition)) {
      this.#lanes.set(partition, { pending: [], pendingBytes: 0, batches: [], head: null });
    }
    return this.#lanes.get(partition);
  }

  #apply(kind, body) {
    if (kind === META) this.meta = JSON.parse(body);
    else if (kind === TALLY) {
      const { operation, outcome, count } = JSON.parse(body);
      this.#tallies.set(`${operation} ${outcome}`, count);
    } else if (kind === INTENT) this.#intents.set(JSON.parse(body).id, Buffer.from(body));
    else {
      const lane = this.#lane(body.readUInt16BE());
      const rest = body.subarray(2);
      if (kind === LINE) this.#applyLine(lane, rest);
      else if (kind === SEAL) this.#applySeal(lane, rest);
      else if (kind === SENT) this.#applySent(lane, Number(rest.readBigUInt64BE()));
      else if (kind === HEAD) lane.head = { sequence: Number(rest.readBigUInt64BE()), digest: rest.subarray(8) };
      else throw new Error("the spool was written by a later version");
    }
  }

  #applyLine(lane, rest) {
    const bytes = rest.subarray(9);
    lane.pending.push({ bytes, ms: Number(rest.readBigUInt64BE(1)) });
    lane.pendingBytes += bytes.length + 1;
    this.#unsent += bytes.length + 1;
    if (rest[0] === 1) return; // a snapshot holds its tally and intent
    const line = JSON.parse(bytes);
    if (line.type === "chain.close") this.meta.closed = true;
    if (line.type !== "key") return;
    if (line.phase === "intent") this.#intents.set(line.id, bytes);
    else {
      const name = `${line.operation} ${line.outcome}`;
      this.#tallies.set(name, (this.#tallies.get(name) ?? 0) + 1);
      this.#intents.delete(line.intent_id);
    }
  }

  #applySeal(lane, rest) {
    const seal = rest.subarray(0, SEAL_SIZE);
    const { sequence, count } = parseSeal(seal);
    const lines = lane.pending.splice(0, count);
    const size = lines.reduce((sum, { bytes }) => sum + bytes.length + 1, 0);
    lane.pendingBytes -= size;
    lane.head = { sequence, digest: sha256(seal) };
    lane.batches.push({ sequence, seal, signature: rest.subarray(SEAL_SIZE), lines, size, ms: lines[0].ms });
  }

  #applySent(lane, sequence) {
    while (lane.batches.length > 0 && lane.batches[0].sequence <= sequence) this.#unsent -= lane.batches.shift().size;
  }

  /** A shorter journal with the same state. */
  #snapshot() {
    const entries = [[META, Buffer.from(JSON.stringify(this.meta))]];
    for (const tally of this.tallies) entries.push([TALLY, Buffer.from(JSON.stringify(tally))]);
    for (const bytes of this.#intents.values()) entries.push([INTENT, bytes]);
    for (const [partition, { pending, batches, head }] of this.#lanes) {
      const keep = ({ bytes, ms }) => entries.push([LINE, Buffer.concat([u16(partition), u8(1), u64(ms), bytes])]);
      if (head && batches.length === 0) {
        entries.push([HEAD, Buffer.concat([u16(partition), u64(head.sequence), head.digest])]);
      }
      for (const { seal, signature, lines } of batches) {
        lines.forEach(keep);
        entries.push([SEAL, Buffer.concat([u16(partition), seal, signature])]);
      }
      pending.forEach(keep);
    }
    return Buffer.concat(entries.map(([kind, body]) => entry(kind, body)));
  }
}

function valueOf(lines) {
  return Buffer.concat(lines.flatMap(({ bytes }) => [bytes, NEWLINE]));
}
