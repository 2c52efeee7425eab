/**
 * Encrypt and decrypt as docs/formats.md asks for it: every use is in the trail before its result is handed out.
 *
 * The store is a port with two functions, both promises of a row or null:
 *
 *     find(keyId, keyVersion)      that version, in its newest revision
 *     newest(owner)                the newest version of the owner's active key
 *     row = { record: Buffer, signature: Buffer, wrapped_dek: Buffer }
 *
 * Rows are believed only with their signed record. Creating and rotating keys is not part of this reference.
 */

import { openBlob } from "./dek.mjs";
import { SUITE, checkPlaintext, decrypt, encrypt, parseHeader, recordBytes } from "./envelope.mjs";
import { BlobInvalid, DecryptionFailed, Denied, EnvelopeInvalid, Failed, RecordInvalid } from "./errors.mjs";
import { Failures } from "./failures.mjs";
import { ownerBytes } from "./owner.mjs";
import { permits, verifyRecord } from "./records.mjs";
import { Calls } from "./vault.mjs";
import { same, sha256 } from "./wire.mjs";
import { CAUSES } from "./words.mjs";

const CACHE_MS = 300_000;
const REMEMBERED = 10_000; // DEKs, and revisions seen

export class Keys {
  #trail;
  #failures;
  #registry;
  #store;
  #wrapper;
  #clock;
  #cacheMs;
  #deks = new Map();
  #unwrapping = new Map();
  #revisions = new Map();

  /**
   * @param {object} parts
   * @param {import("./trail.mjs").Trail} parts.trail
   * @param {import("./registry.mjs").Registry} parts.registry
   * @param {{find: Function, newest: Function}} parts.store
   * @param {object} parts.wrapper a key wrapper, see vault.mjs
   * @param {number} [parts.cacheMs] how long a DEK is remembered
   */
  constructor({ trail, registry, store, wrapper, clock = Date.now, cacheMs = CACHE_MS }) {
    this.#trail = trail;
    this.#failures = new Failures(trail, { clock });
    this.#registry = registry;
    this.#store = store;
    this.#wrapper = wrapper;
    this.#clock = clock;
    this.#cacheMs = cacheMs;
  }

  /**
   * @param {object} use
   * @param {object} use.owner see owner.mjs
   * @param {string | Uint8Array} use.record the place of the ciphertext
   * @param {Uint8Array} use.plaintext
   * @param {{actor: string, purpose: string, address?: string, trace_id?: string}} use.caller
   * @returns {Promise<Buffer>} the envelope; Denied, Failed
   */
  async encrypt({ owner, record, plaintext, caller }) {
    ownerBytes(owner);
    recordBytes(record);
    checkPlaintext(plaintext);
    return this.#used("encrypt", owner, caller, async (about) => {
      const row = await this.#row(() => this.#store.newest(owner));
      if (row === null) throw new Denied("unknown_key");
      const key = this.#believed(row, owner, about);
      if (!permits(key, "encrypt", this.#clock())) throw new Denied("key_state");
      const dek = await this.#dek(key, row, owner, caller);
      return encrypt({ dek, key_id: hexId(key), key_version: key.key_version }, owner, record, plaintext);
    });
  }

  /** @returns {Promise<Buffer>} the plaintext; DecryptionFailed (and no word on why), Denied, Failed */
  async decrypt({ owner, record, envelope, caller }) {
    ownerBytes(owner);
    recordBytes(record);
    return this.#used("decrypt", owner, caller, async (about) => {
      // 1. the header
      const header = parseHeader(envelope);
      about.claimed_key_id = header.key_id;
      // 2. the record
      const row = await this.#row(() => this.#store.find(header.key_id, header.key_version));
      if (row === null) throw hidden(new Failed("unknown_key"));
      // 3. the owner
      const key = this.#believed(row, owner, about, header);
      // 4. the state
      if (!permits(key, "decrypt", this.#clock())) throw new Denied("key_state");
      // 5. the DEK
      const dek = await this.#dek(key, row, owner, caller);
      // 6. the envelope
      return decrypt(dek, owner, record, envelope);
    });
  }

  /** Tell of failures that were only counted so far; before the trail is closed. */
  close() {
    this.forget();
    return this.#failures.flush();
  }

  /** Forget every DEK. They are not overwritten: a use under way would go on with a key of zeros. */
  forget() {
    this.#deks.clear();
  }

  /** A store that does not answer leaves open whether the key may be used. */
  async #row(ask) {
    try {
      return await ask();
    } catch {
      throw new Failed("key_state", { retryable: true });
    }
  }

  /** Do it and record it, or record why not; `act` fills in `about`, what the event says of the key. */
  async #used(operation, owner, caller, act) {
    const about = {};
    const base = { ...told(caller), phase: "single", operation, owner };
    let result;
    try {
      result = await act(about);
    } catch (err) {
      const { outcome, reason, shown } = judged(err);
      if (reason) await this.#failures.record({ ...base, ...about, outcome, reason });
      throw shown;
    }
    await this.#trail.record({ ...base, ...about, outcome: "succeeded" });
    return result;
  }

  /** The record of a row, if it may be believed, is the one asked for, no older than one seen, and of this owner. */
  #believed(row, owner, about, asked) {
    const key = verifyRecord(row.record, row.signature, this.#registry);
    const name = `${hexId(key)} ${key.key_version}`;
    if (asked && name !== `${asked.key_id} ${asked.key_version}`) {
      throw new RecordInvalid("key_id", "another was asked for");
    }
    if (!same(key.wrapped_dek_sha256, sha256(row.wrapped_dek))) {
      throw new RecordInvalid("wrapped_dek_sha256", "another");
    }
    const seen = this.#revisions.get(name) ?? 0;
    if (key.revision < seen) throw new Denied("record_rollback");
    remember(this.#revisions, name, key.revision);
    delete about.claimed_key_id;
    about.key = { id: hexId(key), version: key.key_version, revision: key.revision, kind: "dek", state: key.state };
    if (!same(key.owner_sha256, sha256(ownerBytes(owner)))) throw hidden(new Denied("owner_mismatch"));
    return key;
  }

  async #dek(key, row, owner, caller) {
    // With the commitment in its name, what was remembered is what this record speaks of.
    const name = `${hexId(key)} ${key.key_version} ${key.commitment.toString("hex")}`;
    const cached = this.#deks.get(name);
    if (cached && this.#clock() < cached.untilMs) return cached.dek;
    if (!this.#unwrapping.has(name)) {
      this.#unwrapping.set(name, this.#unwrap(key, row, owner, caller).finally(() => this.#unwrapping.delete(name)));
    }
    const dek = await this.#unwrapping.get(name);
    remember(this.#deks, name, { dek, untilMs: this.#clock() + this.#cacheMs });
    return dek;
  }

  /** Intent, call, outcome: in this order, and each of the two durable before the next step. */
  async #unwrap(key, row, owner, caller) {
    if (key.wrap_alg !== this.#wrapper.wrapAlg) throw new Failed("record_invalid");
    const kek = this.#wrapper.ref(key.kek_alias, key.kek_version);
    const calls = new Calls(this.#wrapper.attempts, { clock: this.#clock });
    const about = { id: hexId(key), version: key.key_version, revision: key.revision, kind: "dek", state: key.state };
    const intent = await this.#trail.record({
      phase: "intent", operation: "unwrap", key: about, owner, kek, call_ids: calls.ids, ...told(caller),
    });
    const attempts = () => (calls.attempts.length > 0 ? { vault_attempts: calls.attempts } : {});
    let dek;
    try {
      const blob = await this.#wrapper.unwrap(key.kek_alias, key.kek_version, row.wrapped_dek, calls);
      dek = openBlob(blob, { suite: SUITE, key_id: hexId(key), key_version: key.key_version }, owner, key.commitment);
      blob.fill(0);
    } catch (err) {
      const { outcome, reason, shown } = judged(err);
      await this.#trail.outcome(intent, { outcome, reason: reason ?? "vault_error", ...attempts() });
      throw shown;
    }
    await this.#trail.outcome(intent, { outcome: "succeeded", ...attempts() });
    return dek;
  }
}

/** Set, and let go of what was set first where there is too much. */
function remember(map, name, value) {
  map.delete(name);
  if (map.size >= REMEMBERED) map.delete(map.keys().next().value);
  map.set(name, value);
}

/** What a caller may say about itself, and nothing else of the event. */
function told({ actor, purpose, address, trace_id: traceId }) {
  return { actor, purpose, ...(address && { address }), ...(traceId && { trace_id: traceId }) };
}

function hexId(key) {
  return key.key_id.toString("hex");
}

/** The caller must not learn the reason: it would say which keys there are, and whose. */
function hidden(err) {
  return Object.assign(err, { hidden: true });
}

/** How an event tells of this error, and what the caller gets. Errors without reason are no audit events. */
function judged(err) {
  if (err instanceof EnvelopeInvalid) return failed("parse_error", new DecryptionFailed());
  if (err instanceof DecryptionFailed) return failed("bad_tag", err);
  if (err instanceof RecordInvalid) return failed("record_invalid", new Failed("record_invalid"));
  if (err instanceof BlobInvalid) return failed("commitment_mismatch", new Failed("commitment_mismatch"));
  const known = (err instanceof Denied || err instanceof Failed) && CAUSES.has(err.reason);
  const shown = err.hidden ? new DecryptionFailed() : err;
  return known ? { outcome: err instanceof Denied ? "denied" : "failed", reason: err.reason, shown } : { shown };
}

function failed(reason, shown) {
  return { outcome: "failed", reason, shown };
}
