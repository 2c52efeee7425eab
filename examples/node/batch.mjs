/** Sealed batches: lines that one process vouches for, numbered and chained. Sealing, and opening in eight steps. */

import { BatchRejected, EventInvalid } from "./errors.mjs";
import { readLine } from "./events.mjs";
import { LABELS, holds } from "./signers.mjs";
import { Reader, ZERO32, exactly, same, sha256, u16, u32, u64 } from "./wire.mjs";

export const MAX_LINES = 1000;
export const MAX_VALUE = 921_600;
export const SEAL_SIZE = 141;
const MAGIC = Buffer.from("KTSB\x01", "latin1");
const NEWLINE = 0x0a;

/**
 * @param {object} head deployment, instance (16 bytes each), generation, partition, sequence, count, sealed_at_ms,
 *   previous (digest of the batch before, or null at sequence 0)
 * @returns {{seal: Buffer, signature: Buffer, digest: Buffer}}
 */
export function sealBatch(head, value, signer) {
  const seal = Buffer.concat([
    MAGIC, exactly(head.deployment, 16, "deployment"), exactly(head.instance, 16, "instance"), u16(head.generation),
    u16(head.partition), u64(head.sequence), u32(head.count), u64(head.sealed_at_ms),
    exactly(head.previous ?? ZERO32, 32, "previous"), sha256(value), Buffer.from(signer.id, "hex"),
  ]);
  parseSeal(seal);
  return { seal, signature: signer.sign(LABELS.batch, seal), digest: sha256(seal) };
}

/** The two headers of a batch's message. */
export function batchHeaders({ seal, signature }) {
  return [["kt-seal", seal], ["kt-sig", signature]];
}

/** The fields of a seal within their limits; what it claims is not looked at. */
export function parseSeal(bytes) {
  const fail = (field, why) => {
    throw new BatchRejected("rejected", field, why);
  };
  if (bytes.length !== SEAL_SIZE) fail("kt-seal", "not 141 bytes");
  const reader = new Reader(bytes, fail);
  if (!reader.take(5, "kt-seal").equals(MAGIC)) fail("kt-seal", "not a seal of format 1");
  const seal = {
    deployment: reader.take(16), instance: reader.take(16), generation: reader.u16(), partition: reader.u16(),
    sequence: reader.u64("seal.sequence"), count: reader.u32(), sealed_at_ms: reader.u64("seal.sealed_at_ms"),
    previous: reader.take(32), value_sha256: reader.take(32), signer_id: reader.take(16).toString("hex"),
  };
  if (seal.count < 1 || seal.count > MAX_LINES) fail("seal.count", "not 1 to 1,000");
  if ((seal.sequence === 0) !== seal.previous.equals(ZERO32)) {
    fail("seal.previous", "zeros at sequence 0 and nowhere else");
  }
  return seal;
}

/**
 * The lines of a message, or BatchRejected. The first thing that is wrong decides.
 *
 * @param {{value: Buffer, headers: [string, Buffer][], partition: number, append_ms: number}} message
 * @param {import("./registry.mjs").Registry} registry
 * @param {number} generation of the topic it was read from
 */
export function openBatch(message, registry, generation) {
  const fail = (finding, field, why) => {
    throw new BatchRejected(finding, field, why);
  };
  const { value, append_ms: appendMs } = message;
  // 1. headers, seal, size
  const sealBytes = onlyHeader(message.headers, "kt-seal", SEAL_SIZE);
  const signature = onlyHeader(message.headers, "kt-sig", 64);
  if (message.headers.length !== 2) fail("rejected", "headers", "exactly two");
  const seal = parseSeal(sealBytes);
  if (value.length < 1 || value.length > MAX_VALUE) fail("rejected", "value", "not 1 byte to 900 KiB");
  // 2. deployment
  if (!same(seal.deployment, registry.deployment)) fail("deployment_mismatch", "seal.deployment", "another");
  // 3. signer
  const signer = registry.find(seal.signer_id, "events", appendMs);
  if (signer === null) fail("signer_unknown", "seal.signer_id", "not registered for events then");
  // 4. signature
  if (!holds(signer.publicKey, LABELS.batch, sealBytes, signature)) fail("seal_invalid", "kt-sig", "does not hold");
  // 5. place
  if (seal.generation !== generation || seal.partition !== message.partition) {
    fail("seal_invalid", "seal.partition", "read from another");
  }
  // 6. value
  if (!same(seal.value_sha256, sha256(value))) fail("seal_invalid", "value", "not the one that was sealed");
  // 7. lines
  const lines = splitLines(value);
  const ended = lines.filter((line) => line !== null).length;
  if (ended !== seal.count) fail("seal_invalid", "seal.count", "another number of lines");
  const read = lines.map((line, index) => {
    if (line === null) fail("rejected", `line ${index + 1}: line`, "not ended");
    try {
      return { bytes: line, fields: readLine(line) };
    } catch (err) {
      if (!(err instanceof EventInvalid)) throw err;
      throw new BatchRejected("rejected", `line ${index + 1}: ${err.field}`, "not of version 1");
    }
  });
  // 8. source
  read.forEach(({ fields }, index) => {
    if (fields.service !== signer.source) fail("source_mismatch", `line ${index + 1}: service`, "another source");
  });
  const suspect = appendMs >= signer.compromisedFrom;
  return { seal, digest: sha256(sealBytes), source: signer.source, lines: read, suspect };
}

function onlyHeader(headers, name, size) {
  const found = headers.filter(([key]) => key === name);
  if (found.length !== 1) throw new BatchRejected("rejected", name, "once");
  if (found[0][1]?.length !== size) throw new BatchRejected("rejected", name, `not ${size} bytes`);
  return found[0][1];
}

/** The lines without their newlines; a last one that is not ended stands as null. */
function splitLines(value) {
  const lines = [];
  let from = 0;
  for (let at = value.indexOf(NEWLINE); at !== -1; at = value.indexOf(NEWLINE, from)) {
    lines.push(value.subarray(from, at));
    from = at + 1;
  }
  if (from < value.length) lines.push(null);
  return lines;
}
