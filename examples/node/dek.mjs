/** What is wrapped under a KEK: 65 bytes that name where the DEK belongs, and the commitment to the DEK. */

import { hkdfSync } from "node:crypto";

import { BlobInvalid } from "./errors.mjs";
import { failing } from "./json.mjs";
import { ownerBytes } from "./owner.mjs";
import { exactly, label, same, sha256, u32, u8 } from "./wire.mjs";

const FORMAT = 1;
const fail = failing(BlobInvalid);

function place({ suite, key_id: keyId, key_version: keyVersion }) {
  return Buffer.concat([u8(suite), exactly(Buffer.from(keyId, "hex"), 16, "key_id"), u32(keyVersion)]);
}

/** @param {{suite: number, key_id: string, key_version: number}} key */
export function binding(key, owner) {
  return sha256(label("keytrail/dek-binding/v1"), place(key), ownerBytes(owner));
}

export function commitment(key, dek) {
  const info = Buffer.concat([label("keytrail/dek-commitment/v1"), place(key)]);
  return Buffer.from(hkdfSync("sha256", exactly(dek, 32, "DEK"), Buffer.alloc(0), info, 32));
}

export function sealBlob(key, owner, dek) {
  return Buffer.concat([u8(FORMAT), binding(key, owner), exactly(dek, 32, "DEK")]);
}

/** The DEK of an unwrapped blob, if it belongs to this key, version and owner and is the one of `committed`. */
export function openBlob(blob, key, owner, committed) {
  if (blob.length !== 65) fail("blob", "not 65 bytes");
  const wanted = Buffer.concat([u8(FORMAT), binding(key, owner)]);
  if (!same(blob.subarray(0, 33), wanted)) fail("binding", "of another key, version or owner");
  const dek = Buffer.from(blob.subarray(33));
  if (!same(commitment(key, dek), committed)) {
    dek.fill(0);
    fail("commitment", "of another DEK");
  }
  return dek;
}
