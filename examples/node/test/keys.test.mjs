/** Uses of keys: results only after their events, one answer for all that does not open, call ids on every request. */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { afterEach, beforeEach, describe, test } from "node:test";

import { DecryptionFailed, Denied, Failed, SpoolUnavailable } from "../errors.mjs";
import { writeLine } from "../events.mjs";
import { Keys } from "../keys.mjs";
import { Calls, KeyVault } from "../vault.mjs";
import { OWNER, kek, registry, row } from "./fixtures.mjs";

const CALLER = { actor: "user:4711", purpose: "crm-sync" };
const PLACE = "tokens/8f3c/access";

/** Takes events as the spool does, and can be full. */
class Recorder {
  events = [];
  full = false;

  async record(fields) {
    if (this.full) throw new SpoolUnavailable("the spool is full");
    const event = { v: 1, type: "key", id: crypto.randomUUID(), occurred_at: "2026-11-16T02:41:07.123456Z", service: "billing", ...fields };
    writeLine(event);
    this.events.push(event);
    return event;
  }

  async outcome(intent, fields) {
    const { operation, key, owner, kek: ref, actor, purpose } = intent;
    return this.record({ operation, key, owner, kek: ref, actor, purpose, phase: "outcome", intent_id: intent.id, ...fields });
  }

  get story() {
    return this.events.map(({ phase, operation, outcome, reason }) => [phase, operation, outcome, reason].filter(Boolean).join(" "));
  }
}

let trail;
let stored;
let keys;
const store = { find: async () => stored, newest: async () => stored };
const make = (wrapper = kek) => new Keys({ trail, registry, store, wrapper });
const decrypt = (envelope, more = {}) => keys.decrypt({ owner: OWNER, record: PLACE, envelope, caller: CALLER, ...more });
const encrypt = (more = {}) => keys.encrypt({ owner: OWNER, record: PLACE, plaintext: Buffer.from("a token"), caller: CALLER, ...more });

beforeEach(() => {
  trail = new Recorder();
  stored = row();
  keys = make();
});

test("an envelope opens, and the trail tells of each use and of one unwrap", async () => {
  const plaintext = await decrypt(await encrypt());

  assert.equal(plaintext.toString(), "a token");
  assert.deepEqual(trail.story, [
    "intent unwrap", "outcome unwrap succeeded", "single encrypt succeeded", "single decrypt succeeded",
  ]);
  assert.equal(trail.events[1].intent_id, trail.events[0].id);
  assert.deepEqual(trail.events[1].vault_attempts.map(({ call_id: id }) => id), trail.events[0].call_ids);
});

test("uses at the same time share one unwrap", async () => {
  await Promise.all([encrypt(), encrypt(), encrypt()]);

  assert.equal(trail.story.filter((line) => line === "intent unwrap").length, 1);
});

test("what a caller says is not taken for more than it may say", async () => {
  await encrypt({ caller: { ...CALLER, operation: "decrypt", phase: "intent", owner: {} } });

  assert.equal(trail.story.at(-1), "single encrypt succeeded");
});

describe("what does not open", () => {
  const cases = {
    "an envelope that does not parse": [() => Buffer.from("no"), {}, "single decrypt failed parse_error"],
    "another record": [(envelope) => envelope, { record: "tokens/8f3d/access" }, "single decrypt failed bad_tag"],
    "another owner": [(envelope) => envelope, { owner: { tenant_id: "t-89", integration_id: "crm" } }, "single decrypt denied owner_mismatch"],
    "a key that nobody knows": [(envelope) => { stored = null; return envelope; }, {}, "single decrypt failed unknown_key"],
  };
  for (const [name, [change, more, told]] of Object.entries(cases)) {
    test(`${name} gives the same error as any other`, async () => {
      const envelope = change(await encrypt());

      await assert.rejects(decrypt(envelope, more), new DecryptionFailed());
      assert.equal(trail.story.at(-1), told);
    });
  }
});

test("a flood of garbage is counted, exactly, and does not fill the trail", async () => {
  const flood = Array.from({ length: 412 }, () => assert.rejects(decrypt(Buffer.from("no")), DecryptionFailed));
  await Promise.all(flood);
  const told = trail.events.length;
  await keys.close();

  assert.ok(told >= 100 && told < 120, `${told} events`);
  const [summary] = trail.events.slice(told);
  assert.deepEqual(summary.counts, [{ operation: "decrypt", outcome: "failed", reason: "parse_error", count: 412 - told }]);
});

describe("a row", () => {
  const forms = {
    "with another DEK": [() => ({ ...stored, wrapped_dek: kek.encrypt(randomBytes(65)) }), Failed, "failed record_invalid"],
    "without a signature that holds": [() => ({ ...stored, signature: Buffer.alloc(64) }), Failed, "failed record_invalid"],
    "that is suspended": [() => row({ revision: 2, state: "suspended" }), Denied, "denied key_state"],
    "that has retired": [() => row({ superseded_by: 2, retire_at_ms: 1 }), Denied, "denied key_state"],
    "of another version": [() => row({ version: 2 }), Failed, "failed record_invalid"],
  };
  for (const [name, [change, ErrorClass, told]] of Object.entries(forms)) {
    test(`${name} is not used`, async () => {
      const envelope = await encrypt();
      stored = change();

      await assert.rejects(decrypt(envelope), ErrorClass);
      assert.equal(trail.story.at(-1), `single decrypt ${told}`);
    });
  }

  test("that was rolled back is not used", async () => {
    const old = stored;
    const envelope = await encrypt();
    stored = row({ revision: 2 });
    await encrypt();
    stored = old;

    await assert.rejects(decrypt(envelope), { name: "Denied", reason: "record_rollback" });
  });
});

test("a plaintext that cannot be told of is not handed out", async () => {
  const envelope = await encrypt();
  trail.full = true;

  await assert.rejects(decrypt(envelope), SpoolUnavailable);
});

test("a vault is not called when the intent cannot be told of", async () => {
  let called = 0;
  const wrapper = { wrapAlg: 2, attempts: 1, ref: () => ({ vault: "local", name: "tokens", version: "v1" }), unwrap: async () => (called += 1) };
  keys = make(wrapper);
  trail.full = true;

  await assert.rejects(encrypt(), SpoolUnavailable);
  assert.equal(called, 0);
});

test("a store that is away is told of and may be asked again", async () => {
  keys = new Keys({ trail, registry, wrapper: kek, store: { newest: async () => Promise.reject(new Error("no route")) } });

  await assert.rejects(encrypt(), { name: "Failed", reason: "key_state", retryable: true });
});

describe("a key vault", () => {
  const seen = [];
  let answers = [];
  let server;
  let url;

  beforeEach(async () => {
    seen.length = 0;
    server = createServer(async (request, response) => {
      const body = JSON.parse(Buffer.concat(await request.toArray()));
      seen.push({ path: request.url, id: request.headers["x-ms-client-request-id"], authorization: request.headers.authorization, body });
      const { status = 200, kid, drop } = answers.shift() ?? {};
      if (drop) return request.socket.destroy();
      const [, , name, version, verb] = request.url.split(/[/?]/);
      const act = verb === "wrapkey" ? (bytes) => kek.encrypt(bytes) : (bytes) => kek.decrypt(bytes);
      response.writeHead(status, { "x-ms-request-id": `answer-${seen.length}` });
      const value = status === 200 ? act(Buffer.from(body.value, "base64url")).toString("base64url") : undefined;
      return response.end(JSON.stringify({ kid: kid ?? `${url}/keys/${name}/${version}`, value }));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    url = `http://127.0.0.1:${server.address().port}`;
  });

  afterEach(() => server.close());

  const vault = (more = {}) => new KeyVault({
    keks: { tokens: { url, vault: "kv-prod", name: "tokens" } }, token: async () => "secret", pauseMs: 1, ...more,
  });
  const unwrap = (calls, more) => vault(more).unwrap("tokens", "v1", kek.encrypt(Buffer.alloc(65, 7)), calls);

  test("every attempt has its own id, and the attempts say what came back", async () => {
    answers = [{ status: 503 }, { status: 429 }, {}];
    const calls = new Calls(3);

    assert.deepEqual(await unwrap(calls), Buffer.alloc(65, 7));
    assert.deepEqual(seen.map(({ id }) => id), calls.ids);
    assert.deepEqual(calls.attempts.map(({ http_status: status }) => status), [503, 429, 200]);
    assert.deepEqual(calls.attempts.map(({ request_id: id }) => id), ["answer-1", "answer-2", "answer-3"]);
    assert.match(seen[0].path, /^\/keys\/tokens\/v1\/unwrapkey\?api-version=/);
    assert.equal(seen[0].authorization, "Bearer secret");
    assert.equal(seen[0].body.alg, "RSA-OAEP-256");
  });

  const refusals = [
    [[{ status: 403 }], "Denied", "vault_denied", 1],
    [[{ status: 404 }], "Failed", "vault_not_found", 1],
    [[{ status: 429 }, { status: 429 }, { status: 429 }], "Failed", "vault_throttled", 3],
    [[{ drop: true }, { drop: true }, { drop: true }], "Failed", "vault_unreachable", 3],
    [[{ kid: "https://kv-other.vault.azure.net/keys/tokens/v1" }], "Failed", "kid_mismatch", 1],
    [[{ status: 302 }], "Failed", "vault_error", 1],
  ];
  for (const [given, name, reason, attempts] of refusals) {
    test(`${reason} after ${attempts}`, async () => {
      answers = given;
      const calls = new Calls(3);

      await assert.rejects(unwrap(calls), { name, reason });
      assert.equal(calls.attempts.length, attempts);
    });
  }

  test("what it wrapped, it unwraps", async () => {
    const wrapped = await vault().wrap("tokens", "v1", Buffer.alloc(65, 9), new Calls(1));

    assert.deepEqual(await vault().unwrap("tokens", "v1", wrapped, new Calls(1)), Buffer.alloc(65, 9));
  });

  test("an alias that is not pinned, or a version that is a path, reaches no vault", async () => {
    await assert.rejects(vault().unwrap("other", "v1", Buffer.alloc(1), new Calls(1)), { reason: "vault_not_found" });
    await assert.rejects(vault().unwrap("tokens", "../x", Buffer.alloc(1), new Calls(1)), { reason: "vault_not_found" });
    assert.equal(seen.length, 0);
  });
});
