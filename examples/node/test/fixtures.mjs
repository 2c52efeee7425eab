/** A deployment for tests: one service `billing`, its key, and a KEK in the process. */

import { generateKeyPairSync, randomBytes } from "node:crypto";

import { commitment, sealBlob } from "../dek.mjs";
import { ownerBytes } from "../owner.mjs";
import { writeRecord } from "../records.mjs";
import { Registry } from "../registry.mjs";
import { LABELS, Signer } from "../signers.mjs";
import { LocalKek } from "../vault.mjs";
import { ZERO32, sha256 } from "../wire.mjs";

export const OWNER = { tenant_id: "t-88", integration_id: "crm" };
export const KEY_ID = "3f2a6c1e9b7d4058a1c3e5f708192a3b";
export const signer = new Signer(Buffer.alloc(32, 1));
export const registryFile = Buffer.from(JSON.stringify({
  v: 1, deployment: "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
  signers: [{
    signer_id: signer.id, public_key: signer.publicKey.toString("hex"), source: "billing", roles: ["events", "keys"],
    vault_principals: [], person: null, valid_from: "2020-01-01T00:00:00.000000Z",
    valid_until: "2100-01-01T00:00:00.000000Z", compromised_from: null,
  }],
}));
export const registry = new Registry(registryFile);
export const kek = new LocalKek({
  name: "tokens", version: "v1", privateKey: generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey,
});

/** A row of the key store as the service that keeps keys would write it; `changes` are fields of its record. */
export function row({ owner = OWNER, dek = randomBytes(32), version = 1, ...changes } = {}) {
  const place = { suite: 1, key_id: KEY_ID, key_version: version };
  const wrapped = kek.encrypt(sealBlob(place, owner, dek));
  const record = writeRecord({
    deployment: registry.deployment, key_id: Buffer.from(KEY_ID, "hex"), key_version: version, revision: 1, state: "active",
    reason: 0, suite: 1, owner_sha256: sha256(ownerBytes(owner)), kek_alias: "tokens", kek_version: "v1", wrap_alg: 2,
    wrapped_dek_sha256: sha256(wrapped), commitment: commitment(place, dek), changed_at_ms: 1794796867123, superseded_by: 0,
    retire_at_ms: 0, previous_record_sha256: changes.revision > 1 ? sha256() : ZERO32, event_sha256: ZERO32,
    signer_id: Buffer.from(signer.id, "hex"), ...changes,
  });
  return { record, signature: signer.sign(LABELS.record, record), wrapped_dek: wrapped };
}
