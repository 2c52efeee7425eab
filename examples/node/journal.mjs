/**
 * An append-only file of framed entries, durable when `append` resolves.
 *
 *     entry = size u32 | crc32 u32 (of kind and body) | kind u8 | body
 *
 * Entries of callers that wait at the same time share one write and one fdatasync. What a crash tore off the end
 * was never promised to anybody: reading stops there and the rest is put aside in a file, never thrown away.
 */

import { closeSync, constants, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname } from "node:path";

import { SpoolUnavailable } from "./errors.mjs";
import { crc32 } from "./partition.mjs";
import { u32, u8 } from "./wire.mjs";

const FRAME = 8;

export function entry(kind, body) {
  const payload = Buffer.concat([u8(kind), body]);
  return Buffer.concat([u32(payload.length), u32(crc32(payload)), payload]);
}

/** The first entry of a journal, read only; null where not even that is whole. */
export function firstEntry(path) {
  const [first] = entriesOf(readFileSync(path)).entries;
  return first ?? null;
}

/** The whole entries at the beginning of `bytes`, and where they end. */
function entriesOf(bytes) {
  const entries = [];
  let at = 0;
  while (at + FRAME <= bytes.length) {
    const size = bytes.readUInt32BE(at);
    const payload = bytes.subarray(at + FRAME, at + FRAME + size);
    if (size === 0 || payload.length !== size || crc32(payload) !== bytes.readUInt32BE(at + 4)) break;
    entries.push({ kind: payload[0], body: payload.subarray(1) });
    at += FRAME + size;
  }
  return { entries, end: at };
}

export class Journal {
  #path;
  #file;
  #size;
  #waiting = [];
  #running = null;
  #broken = null;

  /** @private use create() or recover() */
  constructor(path, file, size) {
    this.#path = path;
    this.#file = file;
    this.#size = size;
  }

  get size() {
    return this.#size;
  }

  static async create(path) {
    const { O_CREAT, O_EXCL, O_WRONLY, O_APPEND } = constants;
    const file = await open(path, O_CREAT | O_EXCL | O_WRONLY | O_APPEND, 0o600);
    await file.sync();
    syncDirectory(dirname(path));
    return new Journal(path, file, 0);
  }

  /**
   * Read what is there, put a torn end aside, and go on writing.
   *
   * @returns {Promise<{journal: Journal, entries: {kind: number, body: Buffer}[], torn: number}>}
   */
  static async recover(path) {
    const bytes = readFileSync(path);
    const { entries, end: at } = entriesOf(bytes);
    const torn = bytes.length - at;
    if (torn > 0) writeDurably(`${path}.torn-${Date.now()}`, bytes.subarray(at));
    const file = await open(path, constants.O_WRONLY | constants.O_APPEND);
    if (torn > 0) {
      await file.truncate(at);
      await file.sync();
    }
    return { journal: new Journal(path, file, at), entries, torn };
  }

  /** Make these bytes (of whole entries) durable; `applied` runs then, in the order of the file. */
  append(bytes, applied = () => {}) {
    if (this.#broken) return Promise.reject(this.#broken);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ bytes, applied, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  /** Write all of `bytes()` to a new file and put it in this one's place; appends wait meanwhile. */
  async replace(bytes) {
    while (this.#running) await this.#running;
    if (this.#broken) throw this.#broken;
    this.#running = this.#replace(bytes()).finally(() => {
      this.#running = this.#waiting.length > 0 ? this.#run() : null;
    });
    await this.#running;
    if (this.#broken) throw this.#broken;
  }

  async close() {
    while (this.#running) await this.#running;
    this.#broken ??= new SpoolUnavailable("the spool is closed");
    await this.#file.close();
  }

  async #run() {
    await null; // let callers of this turn join
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0);
      const bytes = Buffer.concat(group.map((one) => one.bytes));
      const error = this.#broken ?? (await this.#write(bytes));
      for (const one of group) {
        if (error) one.reject(error);
        else one.resolve(one.applied());
      }
    }
    this.#running = null;
  }

  /** Null, or why these bytes are not durable. */
  async #write(bytes) {
    if (this.#isTaken()) return this.#broken;
    try {
      await this.#file.writeFile(bytes);
    } catch {
      return this.#takenBack();
    }
    try {
      await this.#file.datasync();
    } catch {
      // Nobody knows now what is on disk, and a second fsync would not tell: this file promises nothing more.
      return (this.#broken = new SpoolUnavailable("the spool's disk gave an error"));
    }
    this.#size += bytes.length;
    return null;
  }

  /** Whoever took the file for a dead process's has renamed it: two writers of one chain would be a fork. */
  #isTaken() {
    if (existsSync(this.#path)) return false;
    this.#broken = new SpoolUnavailable("the spool was taken away");
    return true;
  }

  /** A write that failed (no space) may have left half an entry: cut it off, and later writes may succeed. */
  async #takenBack() {
    try {
      await this.#file.truncate(this.#size);
      await this.#file.sync();
      return new SpoolUnavailable("the spool could not be written");
    } catch {
      return (this.#broken = new SpoolUnavailable("the spool's disk gave an error"));
    }
  }

  async #replace(bytes) {
    if (this.#isTaken()) return;
    const next = `${this.#path}.next`;
    try {
      writeDurably(next, bytes);
      renameSync(next, this.#path);
      syncDirectory(dirname(this.#path));
      const old = this.#file;
      this.#file = await open(this.#path, constants.O_WRONLY | constants.O_APPEND);
      this.#size = bytes.length;
      await old.close();
    } catch {
      this.#broken = new SpoolUnavailable("the spool's disk gave an error");
    }
  }
}

function writeDurably(path, bytes) {
  const handle = openSync(path, "w", 0o600);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

export function syncDirectory(path) {
  const handle = openSync(path, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
