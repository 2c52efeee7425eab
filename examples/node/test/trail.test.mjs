/** The trail: chains without holes, also over deaths, outages and a full spool. */

import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { openBatch } from "../batch.mjs";
import { SpoolUnavailable } from "../errors.mjs";
import { Trail } from "../trail.mjs";
import { registry, signer } from "./fixtures.mjs";

const EVENT = {
  phase: "single", operation: "decrypt", outcome: "succeeded", owner: { tenant_id: "t-88", integration_id: "crm" },
  actor: "user:4711", purpose: "crm-sync",
};
const event = (index) => ({ ...EVENT, key: { id: index.toString(16).padStart(32, "0") } });

let directory;
let log;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "kt-"));
  log = new Log();
});
afterEach(() => rmSync(directory, { recursive: true }));

/** The topic: keeps what was appended, and can be away. */
class Log {
  messages = [];
  away = false;

  send = async (partition, value, headers) => {
    await null;
    if (this.away) throw new Error("no leader");
    this.messages.push({ partition, value, headers, append_ms: Date.now() });
  };

  /** The lines of each instance, after checking that its chains have no hole and no fork. */
  chains() {
    const heads = new Map();
    const lines = new Map();
    for (const message of this.messages) {
      const { seal, digest, lines: read } = openBatch(message, registry, 1);
      const instance = seal.instance.toString("hex");
      const name = `${instance} ${seal.partition}`;
      const head = heads.get(name) ?? { sequence: -1, digest: Buffer.alloc(32) };
      if (seal.sequence === head.sequence) {
        assert.deepEqual(digest, head.digest);
        continue;
      }
      assert.equal(seal.sequence, head.sequence + 1);
      assert.deepEqual(seal.previous, head.digest);
      heads.set(name, { sequence: seal.sequence, digest });
      lines.set(instance, [...(lines.get(instance) ?? []), ...read.map(({ fields }) => fields)]);
    }
    return lines;
  }
}

const open = (more = {}) => Trail.open({
  directory, service: "billing", registry, signer, generation: 1, partitions: 4, send: log.send, ...more,
});

async function until(good) {
  for (let i = 0; i < 200 && !good(); i += 1) await sleep(20);
  assert.ok(good());
}

test("a process that ends in order leaves open, events, close, and no file", async () => {
  const trail = await open();
  await Promise.all(Array.from({ length: 1200 }, (_, index) => trail.record(event(index))));

  assert.equal(await trail.close(), true);
  const lines = log.chains().get(trail.instance);
  assert.equal(lines.length, 1202);
  assert.equal(lines.filter(({ type }) => type === "chain.open").length, 1);
  const close = lines.find(({ type }) => type === "chain.close");
  assert.deepEqual(close.tallies.map((tally) => ({ ...tally })), [{ operation: "decrypt", outcome: "succeeded", count: 1200 }]);
  assert.equal(close.heads.length, 4);
  assert.deepEqual(readdirSync(directory), []);
});

test("a log that is away costs nothing but time", async () => {
  const trail = await open();
  log.away = true;
  for (let index = 0; index < 50; index += 1) await trail.record({ ...event(index), outcome: "failed", reason: "bad_tag" });
  log.away = false;

  assert.equal(await trail.close(), true);
  assert.equal(log.chains().get(trail.instance).length, 52);
});

test("a send that never ends does not keep the process from ending", async () => {
  const trail = await open({ send: () => new Promise(() => {}) });
  await trail.record(event(1));

  assert.equal(await trail.close({ timeoutMs: 50 }), false);
  await assert.rejects(trail.record(event(2)), SpoolUnavailable);
});

test("what a closed process could not send is sent by the next", async () => {
  const first = await open();
  log.away = true;
  await first.record(event(1));
  assert.equal(await first.close({ timeoutMs: 100 }), false);
  log.away = false;

  const second = await open();
  await until(() => second.adopting.length === 0);
  await second.close();
  const lines = log.chains().get(first.instance);
  assert.deepEqual(lines.map(({ type }) => type).sort(), ["chain.close", "chain.open", "key"]);
  assert.deepEqual(readdirSync(directory), []);
});

test("two that start at once adopt a spool once", async () => {
  const first = await open();
  log.away = true;
  await first.record(event(1));
  await first.close({ timeoutMs: 50 });
  log.away = false;

  const others = await Promise.all([open(), open(), open()]);
  await until(() => others.every((trail) => trail.adopting.length === 0));
  await Promise.all(others.map((trail) => trail.close()));
  assert.equal(log.chains().size, 4);
  assert.deepEqual(readdirSync(directory), []);
});

test("the spool of a process that lives is left alone", async () => {
  const first = await open();
  const second = await open();

  assert.deepEqual(second.adopting, []);
  await first.record(event(1));
  await Promise.all([first.close(), second.close()]);
  assert.equal(log.chains().size, 2);
});

test("a full spool refuses the event, and takes it again when the log is back", async () => {
  const trail = await open({ quota: 2000 });
  log.away = true;
  for (let index = 0; index < 3; index += 1) await trail.record(event(index));
  const refused = Promise.all(Array.from({ length: 9 }, (_, index) => trail.record(event(index))));

  await assert.rejects(refused, SpoolUnavailable);
  log.away = false;
  await until(() => log.messages.length > 2);
  await sleep(600);
  await trail.record(event(99));
  await trail.close();
  log.chains();
});

test("a spool is rewritten short while nothing of it is lost", async () => {
  const trail = await open();
  for (let round = 0; round < 8; round += 1) {
    await Promise.all(Array.from({ length: 1000 }, (_, index) => trail.record(event(index))));
    await until(() => log.messages.reduce((count, { value }) => count + value.length, 0) > (round + 1) * 250_000);
  }
  const [spool] = readdirSync(directory).filter((name) => name.endsWith(".spool"));
  assert.ok(statSync(join(directory, spool)).size < 2_000_000, "8,000 lines are more than 2 MB");

  await trail.close();
  const lines = log.chains().get(trail.instance);
  assert.equal(lines.filter(({ type }) => type === "key").length, 8000);
  assert.equal(lines.find(({ type }) => type === "chain.close").tallies[0].count, 8000);
});

test("a torn end is put aside, and everything before it is sent", async () => {
  const first = await open();
  log.away = true;
  await first.record(event(1));
  await first.close({ timeoutMs: 50 });
  const [spool] = readdirSync(directory);
  appendFileSync(join(directory, spool), Buffer.from("0000006fdeadbeef02", "hex"));
  log.away = false;
  const problems = [];

  const second = await open({ onProblem: (what) => problems.push(what) });
  await until(() => second.adopting.length === 0);
  await second.close();
  assert.equal(log.chains().get(first.instance).length, 3);
  assert.deepEqual(problems, ["torn"]);
  assert.equal(readdirSync(directory).filter((name) => name.includes(".torn-")).length, 1);
});

test("a process says that it lives, and while the log is away says it once", async () => {
  const trail = await open({ heartbeatMs: 10 });
  const beats = () => (log.chains().get(trail.instance) ?? []).filter(({ type }) => type === "heartbeat");
  await until(() => beats().length >= 2);
  log.away = true;
  await trail.record(event(1));
  const before = log.messages.length;
  await sleep(200);
  log.away = false;

  await trail.close();
  const late = log.messages.slice(before).flatMap((message) => openBatch(message, registry, 1).lines);
  assert.equal(late.filter(({ fields }) => fields.type === "heartbeat").length, 1);
});

test("a process whose spool was taken stops writing to it", async () => {
  const trail = await open();
  await trail.record(event(1));
  const [spool] = readdirSync(directory).filter((name) => name.endsWith(".spool"));
  renameSync(join(directory, spool), join(directory, "elsewhere"));

  await assert.rejects(trail.record(event(2)), SpoolUnavailable);
  await assert.rejects(trail.close({ timeoutMs: 50 }), SpoolUnavailable);
});

test("an event that a reader would reject is not committed", async () => {
  const trail = await open();

  await assert.rejects(trail.record({ ...event(1), outcome: "denied" }), { name: "EventInvalid", field: "reason" });
  await assert.rejects(trail.record({ ...event(1), plaintext: "x" }), { name: "EventInvalid", field: "plaintext" });
  await trail.close();
  assert.equal(log.chains().get(trail.instance).length, 2);
});

test("a signer may not speak for another service, and the count of partitions must be the broker's", async () => {
  await assert.rejects(open({ service: "crm" }), /registry/);
  await assert.rejects(open({ countPartitions: async () => 5 }), /partitions/);
});
