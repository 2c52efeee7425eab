/** The code of README.md runs as it stands there, with a log in memory in the place of Kafka and of its client. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { openBatch } from "../batch.mjs";
import { Keys } from "../keys.mjs";
import { Registry } from "../registry.mjs";
import { Trail } from "../trail.mjs";
import { kek, registry, registryFile, row, signer } from "./fixtures.mjs";

const AsyncFunction = (async () => {}).constructor;
const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const [use, kafkajs] = [...text.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code);
const directory = mkdtempSync(join(tmpdir(), "kt-"));
after(() => rmSync(directory, { recursive: true }));

/** Run a block with these names and give back the values of others. */
function run(code, names, wanted) {
  return new AsyncFunction(...Object.keys(names), `${code}\nreturn { ${wanted.join()} };`)(...Object.values(names));
}

/** What kafkajs would take, as its documentation has it. */
class Kafka {
  sent = [];

  producer = () => ({ connect: async () => {}, send: async (record) => this.sent.push(record) });

  admin = () => ({
    connect: async () => {}, disconnect: async () => {},
    fetchTopicMetadata: async ({ topics }) => ({ topics: [{ name: topics[0], partitions: Array.from({ length: 12 }) }] }),
  });
}

test("the ten lines encrypt, decrypt and leave a trail that opens, over the code for kafkajs", async () => {
  const kafka = new Kafka();
  const { send, countPartitions } = await run(kafkajs, { kafka }, ["send", "countPartitions"]);
  const stored = row();
  const ending = [];
  const names = {
    readFileSync: () => registryFile, Registry, Signer: { fromFile: () => signer }, Keys, send, token: async () => "t",
    Trail: { open: (options) => Trail.open({ ...options, directory, countPartitions }) },
    KeyVault: function KeyVault() { return kek; },
    store: { find: async () => stored, newest: async () => stored },
    process: { once: (signal, handler) => ending.push([signal, handler]), exit: () => ending.push(["exit"]) },
  };

  const { plaintext } = await run(use, names, ["plaintext"]);
  await ending[0][1]();

  assert.equal(plaintext.toString(), "a token");
  assert.deepEqual(ending.map(([what]) => what), ["SIGTERM", "exit"]);
  const lines = kafka.sent.flatMap(({ topic, acks, messages: [{ partition, value, headers }] }) => {
    assert.deepEqual([topic, acks], ["key-events", -1]);
    return openBatch({ partition, value, headers: Object.entries(headers), append_ms: Date.now() }, registry, 1).lines;
  });
  const story = lines.map(({ fields }) => fields.operation ?? fields.type).sort();
  assert.deepEqual(story, ["chain.close", "chain.open", "decrypt", "encrypt", "unwrap", "unwrap"]);
});

test("the ten lines are ten", () => {
  assert.ok(use.trim().split("\n").length <= 10);
});
