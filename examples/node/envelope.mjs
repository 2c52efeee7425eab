/**
 * Envelopes: one plaintext under one DEK, bound to its owner and its place (`record`).
 *
 * XAES-256-GCM (https://c2sp.org/XAES-256-GCM) is AES-256-GCM under a key made for each message. The key is
 * derived by SP 800-108r1 in counter mode with CMAC-AES-256 as its PRF, and node:crypto has no CMAC. It needs
 * none: both inputs of the PRF are exactly one block of 16 bytes,
 *
 *     counter u16 (1, then 2) | "X" 0x00 | nonce[0:12]
 *
 * and CMAC of one whole block M is AES(K, M xor K1), where K1 is AES(K, 0) shifted left by one bit, with 0x87
 * added to its last byte if a bit fell out. So the key is two blocks of AES-256-ECB; a third one gives K1.
 */

import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";

import { DecryptionFailed, EnvelopeInvalid } from "./errors.mjs";
import { failing } from "./json.mjs";
import { ownerBytes } from "./owner.mjs";
import { exactly, label, lp16, u32, u8 } from "./wire.mjs";

export const SUITE = 1;
export const MAX_PLAINTEXT = 1_048_576;
export const HEADER = 47;
const TAG = 16;
const MAGIC = Buffer.from("KT", "ascii");
const fail = failing(EnvelopeInvalid);

function doubled(block) {
  const out = Buffer.alloc(16);
  for (let i = 0; i < 16; i += 1) out[i] = (block[i] << 1) | (i < 15 ? block[i + 1] >> 7 : 0);
  if (block[0] & 0x80) out[15] ^= 0x87;
  return out;
}

/** The AES-256-GCM key of one message: `nonce` is its first 12 bytes. */
export function deriveSubkey(dek, nonce) {
  const aes = (blocks) => {
    const cipher = createCipheriv("aes-256-ecb", exactly(dek, 32, "DEK"), null).setAutoPadding(false);
    return Buffer.concat([cipher.update(blocks), cipher.final()]);
  };
  const k1 = doubled(aes(Buffer.alloc(16)));
  exactly(nonce, 12, "nonce");
  const blocks = Buffer.concat([1, 2].flatMap((counter) => [Buffer.of(0, counter, 0x58, 0x00), nonce]));
  for (let i = 0; i < 32; i += 1) blocks[i] ^= k1[i % 16];
  return aes(blocks);
}

/** The bytes of the place where a ciphertext lives; text is UTF-8. Throws EnvelopeInvalid. */
export function recordBytes(record) {
  const bytes = typeof record === "string" ? Buffer.from(record, "utf8") : record;
  if (!(bytes instanceof Uint8Array) || bytes.length < 1 || bytes.length > 1024) fail("record", "not 1 to 1,024 bytes");
  return bytes;
}

export function checkPlaintext(plaintext) {
  if (plaintext.length > MAX_PLAINTEXT) fail("plaintext", "above 1 MiB");
}

export function associatedData(header, owner, record) {
  return Buffer.concat([label("keytrail/envelope/v1"), header, ownerBytes(owner), lp16(recordBytes(record))]);
}

/** `{key_id (hex), key_version}` of an envelope, without opening it; throws EnvelopeInvalid. */
export function parseHeader(envelope) {
  if (envelope.length < HEADER + TAG || envelope.length > HEADER + MAX_PLAINTEXT + TAG) {
    fail("envelope", "not of its length");
  }
  const bytes = Buffer.from(envelope.buffer, envelope.byteOffset, envelope.byteLength);
  if (!bytes.subarray(0, 2).equals(MAGIC)) fail("magic", "not an envelope");
  if (bytes[2] !== SUITE) fail("suite", "unknown");
  const keyVersion = bytes.readUInt32BE(19);
  if (keyVersion === 0) fail("key_version", "counts from 1");
  return { key_id: bytes.subarray(3, 19).toString("hex"), key_version: keyVersion };
}

/**
 * The envelope of `plaintext`. The nonce is drawn here and nowhere else.
 *
 * @param {{dek: Buffer, key_id: string, key_version: number}} key 32 bytes, 32 hex digits, from 1
 * @param {object} owner see owner.mjs
 * @param {string | Uint8Array} record where the ciphertext will live, 1 to 1,024 bytes
 * @param {Uint8Array} plaintext 0 to 1 MiB
 */
export function encrypt(key, owner, record, plaintext) {
  checkPlaintext(plaintext);
  const keyId = exactly(Buffer.from(key.key_id, "hex"), 16, "key_id");
  if (key.key_version < 1) throw new RangeError("key_version counts from 1");
  const nonce = randomBytes(24);
  const header = Buffer.concat([MAGIC, u8(SUITE), keyId, u32(key.key_version), nonce]);
  const subkey = deriveSubkey(key.dek, nonce.subarray(0, 12));
  const cipher = createCipheriv("aes-256-gcm", subkey, nonce.subarray(12), { authTagLength: TAG });
  subkey.fill(0);
  cipher.setAAD(associatedData(header, owner, record));
  return Buffer.concat([header, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** The plaintext, or EnvelopeInvalid (it does not parse) or DecryptionFailed (it does not open). */
export function decrypt(dek, owner, record, envelope) {
  parseHeader(envelope);
  const bytes = Buffer.from(envelope.buffer, envelope.byteOffset, envelope.byteLength);
  const header = bytes.subarray(0, HEADER);
  const aad = associatedData(header, owner, record);
  const subkey = deriveSubkey(dek, header.subarray(23, 35));
  const cipher = createDecipheriv("aes-256-gcm", subkey, header.subarray(35), { authTagLength: TAG });
  subkey.fill(0);
  cipher.setAAD(aad);
  cipher.setAuthTag(bytes.subarray(bytes.length - TAG));
  const plaintext = cipher.update(bytes.subarray(HEADER, bytes.length - TAG)); // not to be used before final()
  try {
    return Buffer.concat([plaintext, cipher.final()]);
  } catch {
    throw new DecryptionFailed();
  } finally {
    plaintext.fill(0);
  }
}
