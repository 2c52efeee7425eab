/** Key records: what is believed of one revision of one key version, because a signer with the role `keys` said it. */

import { RecordInvalid } from "./errors.mjs";
import { failing } from "./json.mjs";
import { LABELS, holds } from "./signers.mjs";
import { Reader, ZERO32, exactly, lp16, same, sha256, u32, u64, u8 } from "./wire.mjs";
import { STATES } from "./words.mjs";

const MAGIC = Buffer.from("KTKR\x01", "latin1");
const EMPTY_SHA256 = sha256();
const VISIBLE = /^[\x21-\x7e]{1,128}$/;
const MAX_REASON = 6;
const fail = failing(RecordInvalid);

const STEPS = {
  "pre-activation": ["active", "revoked", "destroyed"],
  active: ["suspended", "revoked", "archived"],
  suspended: ["active", "revoked", "archived"],
  revoked: ["destroyed"],
  archived: ["revoked", "destroyed"],
  destroyed: [],
};
const NEVER_CHANGES = ["deployment", "key_id", "key_version", "suite", "owner_sha256", "commitment"];

/** The record's fields; `state` is its word, digests and ids are Buffers. Throws RecordInvalid. */
export function parseRecord(bytes) {
  const reader = new Reader(bytes, fail);
  if (!reader.take(5, "record").equals(MAGIC)) fail("record", "not a key record of format 1");
  const record = {
    deployment: reader.take(16, "record"), key_id: reader.take(16, "record"), key_version: reader.u32("record"),
    revision: reader.u64("revision"), state: STATES[reader.u8("record")], reason: reader.u8("record"),
    suite: reader.u8("record"), owner_sha256: reader.take(32, "record"),
    kek_alias: visible(reader.lp16("kek_alias"), "kek_alias"),
    kek_version: visible(reader.lp16("kek_version"), "kek_version"),
    wrap_alg: reader.u8("record"), wrapped_dek_sha256: reader.take(32, "record"), commitment: reader.take(32, "record"),
    changed_at_ms: reader.u64("changed_at_ms"), superseded_by: reader.u32("record"),
    retire_at_ms: reader.u64("retire_at_ms"), previous_record_sha256: reader.take(32, "record"),
    event_sha256: reader.take(32, "record"), signer_id: reader.take(16, "record"),
  };
  reader.end("record");
  judge(record);
  return record;
}

function visible(bytes, field) {
  const text = bytes.toString("latin1");
  if (!VISIBLE.test(text)) fail(field, "not 1 to 128 visible ASCII characters");
  return text;
}

/** What must hold within one record. */
function judge(record) {
  const first = record.revision === 1;
  if (record.key_version < 1) fail("key_version", "counts from 1");
  if (record.revision < 1) fail("revision", "counts from 1");
  if (!record.state) fail("state", "unknown");
  if (record.reason > MAX_REASON) fail("reason", "unknown");
  if (record.suite !== 1) fail("suite", "unknown");
  if (record.wrap_alg !== 1 && record.wrap_alg !== 2) fail("wrap_alg", "unknown");
  if (record.previous_record_sha256.equals(ZERO32) !== first) {
    fail("previous_record_sha256", "zeros at revision 1 and nowhere else");
  }
  if (first && record.state !== "pre-activation" && record.state !== "active") fail("state", "not one to begin with");
  if (record.state === "revoked" && record.reason === 0) fail("reason", "revoked without one");
  if (record.superseded_by !== 0 && record.superseded_by <= record.key_version) {
    fail("superseded_by", "not a later version");
  }
  if (record.wrapped_dek_sha256.equals(EMPTY_SHA256) && record.state !== "destroyed") {
    fail("wrapped_dek_sha256", "removed");
  }
}

/** The bytes of a record: for tests and for a service that keeps keys itself. */
export function writeRecord(r) {
  const bytes = Buffer.concat([
    MAGIC, exactly(r.deployment, 16, "deployment"), exactly(r.key_id, 16, "key_id"),
    u32(r.key_version), u64(r.revision),
    u8(STATES.indexOf(r.state)), u8(r.reason), u8(r.suite), exactly(r.owner_sha256, 32, "owner_sha256"),
    lp16(Buffer.from(r.kek_alias, "ascii")), lp16(Buffer.from(r.kek_version, "ascii")), u8(r.wrap_alg),
    exactly(r.wrapped_dek_sha256, 32, "wrapped_dek_sha256"), exactly(r.commitment, 32, "commitment"),
    u64(r.changed_at_ms), u32(r.superseded_by), u64(r.retire_at_ms),
    exactly(r.previous_record_sha256, 32, "previous_record_sha256"),
    exactly(r.event_sha256, 32, "event_sha256"), exactly(r.signer_id, 16, "signer_id"),
  ]);
  parseRecord(bytes);
  return bytes;
}

/**
 * The fields of a record that may be believed; throws RecordInvalid.
 *
 * @param {number} [atMs] when it was signed, as well as the caller knows: the broker's append time for a record from
 *   a topic; else the record's own word
 */
export function verifyRecord(bytes, signature, registry, atMs) {
  // 1. it parses and is of this deployment
  const record = parseRecord(bytes);
  if (!same(record.deployment, registry.deployment)) fail("deployment", "another");
  // 2. its signer may, at that time
  const signedMs = atMs ?? record.changed_at_ms;
  const signer = registry.find(record.signer_id.toString("hex"), "keys", signedMs);
  if (signer === null || signedMs >= signer.compromisedFrom) fail("signer_id", "may not sign key records then");
  // 3. the signature
  if (!holds(signer.publicKey, LABELS.record, bytes, signature)) fail("signature", "does not hold");
  return record;
}

/** What must hold from one revision (its bytes) to the next. */
export function checkSuccession(previousBytes, followingBytes) {
  const previous = parseRecord(previousBytes);
  const following = parseRecord(followingBytes);
  for (const field of NEVER_CHANGES) {
    const [before, after] = [previous[field], following[field]];
    if (Buffer.isBuffer(before) ? !before.equals(after) : before !== after) fail(field, "changed");
  }
  if (following.revision !== previous.revision + 1) fail("revision", "not one more");
  if (!following.previous_record_sha256.equals(sha256(previousBytes))) {
    fail("previous_record_sha256", "of another record");
  }
  if (following.state !== previous.state && !STEPS[previous.state].includes(following.state)) {
    fail("state", "no such step");
  }
  if (following.superseded_by < previous.superseded_by) fail("superseded_by", "got smaller");
  const removed = previous.wrapped_dek_sha256.equals(EMPTY_SHA256);
  if (removed && !following.wrapped_dek_sha256.equals(EMPTY_SHA256)) fail("wrapped_dek_sha256", "came back");
}

/**
 * What a version in this state permits; `nowMs` decides whether a superseded one has retired.
 *
 * @param {"encrypt" | "decrypt" | "reencrypt" | "rewrap"} act a recovery grant is not judged here
 */
export function permits(record, act, nowMs) {
  const superseded = record.superseded_by !== 0;
  const retired = superseded && record.retire_at_ms !== 0 && nowMs >= record.retire_at_ms;
  if (act === "encrypt") return record.state === "active" && !superseded;
  if (act === "decrypt") return record.state === "active" && !retired;
  if (act === "reencrypt") return record.state === "active";
  return ["pre-activation", "active", "suspended", "archived"].includes(record.state);
}
