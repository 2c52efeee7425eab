/** Ed25519 over `label 0x00 | message`, with raw keys of 32 bytes as the registry and the key files hold them. */

import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { readFileSync, statSync } from "node:fs";

import { exactly, label, sha256 } from "./wire.mjs";

// node:crypto takes raw keys only inside their DER structures (RFC 8410); these are the bytes before the key.
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");
const SPKI = Buffer.from("302a300506032b6570032100", "hex");

export const LABELS = Object.freeze({
  batch: "keytrail/sealed-batch/v1",
  record: "keytrail/key-record/v1",
  approval: "keytrail/approval/v1",
});

/** The first 16 bytes of the SHA-256 of a public key, as hex. */
export function signerId(publicKey) {
  return sha256(exactly(publicKey, 32, "public key")).subarray(0, 16).toString("hex");
}

export class Signer {
  #key;

  /** @param {Uint8Array} seed 32 bytes */
  constructor(seed) {
    const der = Buffer.concat([PKCS8, exactly(seed, 32, "seed")]);
    this.#key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const spki = createPublicKey(this.#key).export({ format: "der", type: "spki" });
    this.publicKey = spki.subarray(SPKI.length);
    this.id = signerId(this.publicKey);
  }

  /** From a file with 32 bytes or 64 hex digits; one that group or others can open is refused. */
  static fromFile(path) {
    if (statSync(path).mode & 0o077) throw new Error("the key file can be opened by group or others");
    const bytes = readFileSync(path);
    const text = bytes.toString("latin1");
    if (bytes.length !== 32 && !/^[0-9a-f]{64}\n?$/i.test(text)) throw new Error("the key file holds no Ed25519 key");
    return new Signer(bytes.length === 32 ? bytes : Buffer.from(text.slice(0, 64), "hex"));
  }

  sign(purpose, message) {
    return sign(null, Buffer.concat([label(purpose), message]), this.#key);
  }
}

export function holds(publicKey, purpose, message, signature) {
  const der = Buffer.concat([SPKI, exactly(publicKey, 32, "public key")]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  return signature.length === 64 && verify(null, Buffer.concat([label(purpose), message]), key, signature);
}
