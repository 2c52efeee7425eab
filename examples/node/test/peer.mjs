/**
 * A process for tests of two implementations: does one task, given as JSON on stdin, and answers with JSON.
 *
 * Bytes are hex. `serve` is a service with a real trail: it appends its messages to the file `log`, one JSON a line,
 * and prints the id of each event when it is durable, until it ends or is killed.
 */

import { createPrivateKey } from "node:crypto";
import { appendFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { verifyApproval } from "../approvals.mjs";
import { commitment, openBlob, sealBlob } from "../dek.mjs";
import { decrypt, encrypt } from "../envelope.mjs";
import { readLine } from "../events.mjs";
import { Keys } from "../keys.mjs";
import { verifyRecord } from "../records.mjs";
import { Registry } from "../registry.mjs";
import { Signer } from "../signers.mjs";
import { Trail } from "../trail.mjs";
import { Calls, LocalKek } from "../vault.mjs";

const bytes = (hex) => Buffer.from(hex, "hex");
const say = (value) => writeSync(1, `${JSON.stringify(value)}\n`); // at once, also when it is killed next

const TASKS = {
  encrypt: (task) => encrypt({ ...task, dek: bytes(task.dek) }, task.owner, task.record, bytes(task.plaintext)).toString("hex"),
  decrypt: (task) => decrypt(bytes(task.dek), task.owner, task.record, bytes(task.envelope)).toString("hex"),
  record: (task) => verifyRecord(bytes(task.record), bytes(task.signature), new Registry(Buffer.from(task.registry))).state,
  approval: (task) => verifyApproval(task.json, new Registry(Buffer.from(task.registry)), task.at_ms).person,

  async wrap(task) {
    const dek = bytes(task.dek);
    const wrapped = await kekOf(task).wrap(task.kek.name, task.kek.version, sealBlob(task, task.owner, dek), new Calls(1));
    return { wrapped_dek: wrapped.toString("hex"), commitment: commitment(task, dek).toString("hex") };
  },

  async unwrap(task) {
    const blob = await kekOf(task).unwrap(task.kek.name, task.kek.version, bytes(task.wrapped_dek), new Calls(1));
    return openBlob(blob, task, task.owner, bytes(task.commitment)).toString("hex");
  },

  /** For each line, null or the field that is refused. */
  lines: ({ lines }) => lines.map((line) => {
    try {
      readLine(bytes(line));
      return null;
    } catch (err) {
      if (err.name !== "EventInvalid") throw err;
      return err.field;
    }
  }),

  serve,
};

function kekOf({ kek }) {
  return new LocalKek({ ...kek, privateKey: createPrivateKey(kek.pem) });
}

async function serve(task) {
  const registry = new Registry(Buffer.from(task.registry));
  const signer = new Signer(bytes(task.seed));
  const send = async (partition, value, headers) => {
    if (task.away) throw new Error("no leader");
    const message = { partition, value: value.toString("hex"), headers: headers.map(([name, body]) => [name, body.toString("hex")]) };
    appendFileSync(task.log, `${JSON.stringify({ ...message, append_ms: Date.now() })}\n`);
  };
  const { directory, service, generation, partitions } = task;
  const trail = await Trail.open({ directory, service, registry, signer, generation, partitions, send, heartbeatMs: task.heartbeat_ms ?? 30_000 });
  say({ instance: trail.instance });
  const row = { record: bytes(task.row.record), signature: bytes(task.row.signature), wrapped_dek: bytes(task.row.wrapped_dek) };
  const store = { find: async () => row, newest: async () => row };
  const keys = new Keys({ trail, registry, store, wrapper: kekOf(task) });
  const use = { owner: task.owner, record: task.record, caller: { actor: "user:4711", purpose: "crm-sync", address: "10.2.3.4" } };
  for (let index = 0; index < task.uses; index += 1) {
    const envelope = await keys.encrypt({ ...use, plaintext: Buffer.from(`token ${index}`) });
    await keys.decrypt({ ...use, envelope });
    say({ envelope: envelope.toString("hex") });
    if (task.pace_ms) await sleep(task.pace_ms);
  }
  if (task.hang) {
    const { key_id: id, key_version: version } = task;
    const intent = await trail.record({
      phase: "intent", operation: "unwrap", key: { id, version, kind: "dek" }, owner: task.owner, actor: "user:4711",
      purpose: "crm-sync", kek: { vault: "local", name: task.kek.name, version: task.kek.version }, call_ids: new Calls(1).ids,
    });
    say({ hanging: intent.id });
    await sleep(60_000);
  }
  await keys.close();
  while (trail.adopting.length > 0) await sleep(20);
  return { sent: await trail.close({ timeoutMs: task.away ? 100 : 10_000 }) };
}

const task = JSON.parse(Buffer.concat(await process.stdin.toArray()));
try {
  say({ answer: await TASKS[task.act](task) });
} catch (err) {
  say({ error: err.name, field: err.field, reason: err.reason });
  process.exitCode = 1;
}
