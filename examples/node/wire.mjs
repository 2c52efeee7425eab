/** The notation of docs/formats.md as functions: u8, u16, u32, u64, lp16, labels, and a reader of the same. */

import { createHash, timingSafeEqual } from "node:crypto";

export const MAX_INTEGER = Number.MAX_SAFE_INTEGER; // 2^53 - 1, for every field
export const ZERO32 = Buffer.alloc(32);

export function u8(value) {
  return Buffer.of(bounded(value, 0xff));
}

export function u16(value) {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(bounded(value, 0xffff));
  return out;
}

export function u32(value) {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(bounded(value, 0xffffffff));
  return out;
}

export function u64(value) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(bounded(value, MAX_INTEGER)));
  return out;
}

export function lp16(bytes) {
  return Buffer.concat([u16(bytes.length), bytes]);
}

/** `"text" 0x00`: what a signature or digest is for. */
export function label(text) {
  return Buffer.from(`${text}\0`, "ascii");
}

/** Exactly `size` bytes, or a TypeError: a caller's mistake, not input. */
export function exactly(bytes, size, what) {
  if (!(bytes instanceof Uint8Array) || bytes.length !== size) throw new TypeError(`${what}: ${size} bytes expected`);
  return bytes;
}

export function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** Equality in constant time; unequal lengths are no secret. */
export function same(left, right) {
  return left.length === right.length && timingSafeEqual(left, right);
}

/** Takes fields off the front of `bytes`; `fail(field, why)` must throw. */
export class Reader {
  #bytes;
  #at = 0;
  #fail;

  constructor(bytes, fail) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#fail = fail;
  }

  take(size, field) {
    if (this.#at + size > this.#bytes.length) this.#fail(field, "cut short");
    return this.#bytes.subarray(this.#at, (this.#at += size));
  }

  u8(field) {
    return this.take(1, field)[0];
  }

  u16(field) {
    return this.take(2, field).readUInt16BE();
  }

  u32(field) {
    return this.take(4, field).readUInt32BE();
  }

  u64(field) {
    const value = this.take(8, field).readBigUInt64BE();
    if (value > BigInt(MAX_INTEGER)) this.#fail(field, "above 2^53 - 1");
    return Number(value);
  }

  lp16(field) {
    return this.take(this.u16(field), field);
  }

  end(field) {
    if (this.#at !== this.#bytes.length) this.#fail(field, "bytes too many");
  }
}

function bounded(value, most) {
  if (!Number.isSafeInteger(value) || value < 0 || value > most) throw new RangeError(`not an integer of 0 to ${most}`);
  return value;
}
