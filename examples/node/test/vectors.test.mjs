/** Every vector of tests/vectors: what must pass passes with all its results, what must fail fails. */

import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { verifyApproval, verifyPair } from "../approvals.mjs";
import { openBatch, sealBatch } from "../batch.mjs";
import { binding, commitment, openBlob, sealBlob } from "../dek.mjs";
import { associatedData, decrypt, deriveSubkey, encrypt } from "../envelope.mjs";
import { readLine, writeLine } from "../events.mjs";
import { ownerBytes, parseOwner } from "../owner.mjs";
import { partitionBytes, partitionOf } from "../partition.mjs";
import { checkSuccession, parseRecord, verifyRecord, writeRecord } from "../records.mjs";
import { Registry } from "../registry.mjs";
import { Signer } from "../signers.mjs";
import { LocalKek } from "../vault.mjs";
import { STATES } from "../words.mjs";

const DIRECTORY = new URL("../../../tests/vectors/", import.meta.url);
const load = (name) => JSON.parse(readFileSync(new URL(`${name}.json`, DIRECTORY), "utf8"));
const hex = (text) => Buffer.from(text, "hex");

/**
 * That `act` throws the error that `expect` names, at the field it names. A path may be longer here
 * (`key.version` for `version`, a field for the whole `line`).
 */
function refuses(act, expect) {
  const [name, ...words] = expect.split(" ");
  assert.throws(act, (err) => {
    assert.equal(err.name, name, err.stack);
    if (name === "DecryptionFailed") return true;
    const finding = name === "BatchRejected" ? words.shift() : undefined;
    assert.equal(err.finding, finding);
    const field = words.join(" ");
    assert.ok(field === "line" || err.field === field || err.field.endsWith(`.${field}`), `${err.field} for ${field}`);
    return true;
  });
}

describe("envelope.json", () => {
  const vectors = load("envelope");
  for (const vector of vectors.must_pass) {
    test(vector.name, () => {
      const dek = hex(vector.dek);
      const envelope = hex(vector.envelope);

      assert.equal(ownerBytes(vector.owner).toString("hex"), vector.owner_bytes);
      assert.deepEqual(parseOwner(hex(vector.owner_bytes)), vector.owner);
      assert.equal(deriveSubkey(dek, hex(vector.nonce).subarray(0, 12)).toString("hex"), vector.subkey);
      const aad = associatedData(envelope.subarray(0, 47), vector.owner, hex(vector.record));
      assert.equal(aad.toString("hex"), vector.associated_data);
      assert.equal(decrypt(dek, vector.owner, hex(vector.record), envelope).toString("hex"), vector.plaintext);
      const again = encrypt({ ...vector, dek }, vector.owner, hex(vector.record), hex(vector.plaintext));
      assert.notEqual(again.toString("hex"), vector.envelope);
      assert.equal(decrypt(dek, vector.owner, hex(vector.record), again).toString("hex"), vector.plaintext);
    });
  }
  for (const vector of vectors.must_fail) {
    test(vector.name, () => {
      refuses(() => decrypt(hex(vector.dek), vector.owner, hex(vector.record), hex(vector.envelope)), vector.expect);
    });
  }
  for (const vector of vectors.owners_must_fail) {
    test(`owner: ${vector.name}`, () => refuses(() => parseOwner(hex(vector.owner_bytes)), vector.expect));
  }
});

describe("dek_blob.json", () => {
  const vectors = load("dek_blob");
  const kek = new LocalKek({ name: "vectors", version: "1", privateKey: rsaKey(vectors.kek) });
  for (const vector of vectors.must_pass) {
    test(vector.name, () => {
      const dek = hex(vector.dek);

      assert.equal(binding(vector, vector.owner).toString("hex"), vector.binding);
      assert.equal(sealBlob(vector, vector.owner, dek).toString("hex"), vector.blob);
      assert.equal(commitment(vector, dek).toString("hex"), vector.commitment);
      assert.equal(kek.decrypt(hex(vector.wrapped_dek)).toString("hex"), vector.blob);
      assert.deepEqual(openBlob(hex(vector.blob), vector, vector.owner, hex(vector.commitment)), dek);
      assert.equal(kek.decrypt(kek.encrypt(hex(vector.blob))).toString("hex"), vector.blob);
    });
  }
  for (const vector of vectors.must_fail) {
    test(vector.name, () => {
      refuses(() => openBlob(hex(vector.blob), vector, vector.owner, hex(vector.commitment)), vector.expect);
    });
  }
});

/** node:crypto wants the CRT parts of an RSA key too; BigInt computes them. */
function rsaKey({ n, e, p, q }) {
  const [P, Q] = [BigInt(`0x${p}`), BigInt(`0x${q}`)];
  const d = inverse(BigInt(e), (P - 1n) * (Q - 1n));
  const url = (value) => {
    const digits = value.toString(16);
    return hex(digits.length % 2 ? `0${digits}` : digits).toString("base64url");
  };
  const jwk = {
    kty: "RSA", n: hex(n).toString("base64url"), e: url(BigInt(e)), d: url(d), p: url(P), q: url(Q),
    dp: url(d % (P - 1n)), dq: url(d % (Q - 1n)), qi: url(inverse(Q, P)),
  };
  return createPrivateKey({ key: jwk, format: "jwk" });
}

function inverse(value, modulus) {
  let [a, b, x, y] = [value % modulus, modulus, 1n, 0n];
  while (a > 1n) [a, b, x, y] = [b % a, a, y - (b / a) * x, x];
  return ((x % modulus) + modulus) % modulus;
}

describe("key_record.json", () => {
  const vectors = load("key_record");
  const registry = new Registry(Buffer.from(vectors.registry));
  const seeds = load("registry").private_keys;
  vectors.must_pass.forEach((vector, index) => {
    test(vector.name, () => {
      const record = verifyRecord(hex(vector.record), hex(vector.signature), registry, vector.at_ms);

      const plain = Object.entries(record).map(([k, v]) => [k, Buffer.isBuffer(v) ? v.toString("hex") : v]);
      assert.deepEqual({ ...Object.fromEntries(plain), state: STATES.indexOf(record.state) }, vector.fields);
      assert.equal(writeRecord(record).toString("hex"), vector.record);
      const signature = new Signer(hex(seeds.billing)).sign("keytrail/key-record/v1", hex(vector.record));
      assert.equal(signature.toString("hex"), vector.signature);
      if (index > 0) checkSuccession(hex(vectors.must_pass[index - 1].record), hex(vector.record));
    });
  });
  for (const vector of vectors.must_fail) {
    test(vector.name, () => refuses(() => verifyRecord(hex(vector.record), hex(vector.signature), registry, vector.at_ms), vector.expect));
  }
  for (const vector of vectors.successors_must_fail) {
    test(`then: ${vector.name}`, () => {
      parseRecord(hex(vector.previous));
      refuses(() => checkSuccession(hex(vector.previous), hex(vector.following)), vector.expect);
    });
  }
});

describe("approval.json", () => {
  const vectors = load("approval");
  const registry = new Registry(Buffer.from(vectors.registry));
  for (const vector of vectors.must_pass) {
    test(vector.name, () => {
      const approval = verifyApproval(vector.json, registry, vector.at_ms);

      assert.equal(approval.nonce.toString("hex"), vector.fields.nonce);
      assert.equal(approval.revision, vector.fields.revision);
      assert.equal(approval.subject_sha256.toString("hex"), vector.fields.subject_sha256);
    });
  }
  for (const vector of vectors.must_fail) {
    test(vector.name, () => refuses(() => verifyApproval(vector.json, registry, vector.at_ms), vector.expect));
  }
  test("a pair", () => assert.equal(verifyPair(vectors.pair_must_pass, registry, vectors.at_ms).length, 2));
  for (const vector of vectors.pairs_must_fail) {
    test(`pair: ${vector.name}`, () => refuses(() => verifyPair(vector.jsons, registry, vectors.at_ms), vector.expect));
  }
});

describe("event.json", () => {
  const vectors = load("event");
  for (const vector of vectors.must_pass) {
    test(vector.name, () => {
      const line = readLine(Buffer.from(vector.line));

      const partition = partitionOf(partitionBytes(line, hex(vectors.instance)), 8);
      assert.equal(partition, vector.partition_of_8);
      assert.deepEqual(readLine(writeLine(line)), line);
    });
  }
  for (const vector of vectors.must_fail) {
    test(vector.name, () => refuses(() => readLine(Buffer.from(vector.line)), vector.expect));
  }
});

describe("sealed_batch.json", () => {
  const vectors = load("sealed_batch");
  const registry = new Registry(Buffer.from(vectors.registry));
  const signers = Object.values(load("registry").private_keys).map((seed) => new Signer(hex(seed)));
  const message = (vector) => ({
    value: Buffer.from(vector.value.repeat(vector.repeat ?? 1)),
    headers: vector.headers.map(([name, value]) => [name, hex(value)]),
    partition: vector.partition,
    append_ms: vector.append_ms,
  });
  for (const vector of vectors.must_pass) {
    test(vector.name, () => {
      const opened = openBatch(message(vector), registry, vector.generation);

      const seal = Object.entries(vector.seal).map(([name]) => [name, opened.seal[name]]);
      assert.deepEqual(Object.fromEntries(seal.map(([k, v]) => [k, Buffer.isBuffer(v) ? v.toString("hex") : v])), vector.seal);
      assert.equal(opened.digest.toString("hex"), vector.digest);
      assert.equal(opened.suspect, vector.suspect);
      const signer = signers.find(({ id }) => id === opened.seal.signer_id);
      const head = { ...opened.seal, previous: opened.seal.sequence === 0 ? null : opened.seal.previous };
      const again = sealBatch(head, message(vector).value, signer);
      assert.deepEqual([again.seal, again.signature], message(vector).headers.map(([, value]) => value));
    });
  }
  for (const vector of vectors.must_fail) {
    test(vector.name, () => refuses(() => openBatch(message(vector), registry, vector.generation), vector.expect));
  }
  for (const { key, count, partition } of vectors.partitions) {
    test(`${key} among ${count}`, () => assert.equal(partitionOf(hex(key), count), partition));
  }
});

describe("registry.json", () => {
  const vectors = load("registry");
  for (const vector of vectors.must_pass) {
    test(vector.name, () => {
      const registry = new Registry(Buffer.from(vector.text));
      assert.equal(registry.deployment.toString("hex"), JSON.parse(vector.text).deployment);
    });
  }
  for (const vector of vectors.must_fail) {
    test(vector.name, () => refuses(() => new Registry(Buffer.from(vector.text)), vector.expect));
  }
  test("the private keys are those of the file", () => {
    const listed = new Set(JSON.parse(vectors.must_pass[0].text).signers.map((signer) => signer.signer_id));
    for (const seed of Object.values(vectors.private_keys)) assert.ok(listed.has(new Signer(hex(seed)).id));
  });
});
