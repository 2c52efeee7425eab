/**
 * Audit events and control lines: what one may hold, and the bytes of a new one.
 *
 * `readLine(bytes)` judges a line as docs/formats.md does; `writeLine(fields)` writes one in the order of the
 * tables and judges it the same way, so that a producer cannot commit what a reader will reject.
 * When to write which event is for the caller (keys.mjs).
 */

import { EventInvalid } from "./errors.mjs";
import { failing, parse } from "./json.mjs";
import { parseTime } from "./time.mjs";
import { MAX_INTEGER } from "./wire.mjs";
import * as w from "./words.mjs";

export const MAX_LINE = 16_384; // without the newline
const fail = failing(EventInvalid);

// --- kinds of values: (value, path) => void, or they throw ----------------------------------------------------

const text = (pattern) => (value, path) => {
  if (typeof value !== "string" || !pattern.test(value)) fail(path, "not of its form");
};
const word = (words) => (value, path) => {
  if (!words.has(value)) fail(path, "an unknown word");
};
const integer = (least, most = MAX_INTEGER) => (value, path) => {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    fail(path, `not an integer of ${least} to ${most}`);
  }
};
const exactly = (wanted) => (value, path) => {
  if (value !== wanted) fail(path, "another value");
};
const time = (value, path) => {
  if (parseTime(value) === null) fail(path, "not a time");
};
const list = (each, least, most, identity) => (value, path) => {
  if (!Array.isArray(value) || value.length < least || value.length > most) fail(path, "not a list of its length");
  value.forEach((item, index) => each(item, `${path}[${index}]`));
  if (new Set(value.map(identity)).size !== value.length) fail(path, "one thing twice");
};

/** An object with these members and no other; `?` behind a name: may be absent. */
const object = (shape) => {
  const members = Object.entries(shape).map(([name, kind]) => [name.replace("?", ""), kind, name.endsWith("?")]);
  const names = new Set(members.map(([name]) => name));
  return (value, path) => {
    const at = (name) => (path ? `${path}.${name}` : name);
    if (value === null || typeof value !== "object" || Array.isArray(value)) fail(path, "not an object");
    for (const name of Object.keys(value)) if (!names.has(name)) fail(at(name), "an unknown field");
    for (const [name, kind, optional] of members) {
      if (Object.hasOwn(value, name)) kind(value[name], at(name));
      else if (!optional) fail(at(name), "missing");
    }
  };
};

const part = text(w.VISIBLE_128);
const OWNERS = {
  "integration_id,tenant_id": object({ tenant_id: part, integration_id: part }),
  secret_name: object({ secret_name: part }),
};
const owner = (value, path) => {
  const names = value !== null && typeof value === "object" ? Object.keys(value).sort().join() : "";
  if (!Object.hasOwn(OWNERS, names)) fail(path, "neither a tenant's integration nor a secret");
  OWNERS[names](value, path);
};

const ATTEMPT = object({
  call_id: text(w.UUID), "request_id?": text(w.VISIBLE_128), "http_status?": integer(100, 599),
  started_at: time, "ended_at?": time,
});
const COUNT = object({
  operation: word(new Set([...w.OPERATIONS].filter((operation) => operation !== "summary"))),
  outcome: word(new Set(["denied", "failed"])), reason: word(w.CAUSES), count: integer(1),
});

// The order of the members is that of the table, and of every line that is written here.
const EVENT = {
  v: exactly(1), type: exactly("key"), id: text(w.UUID), phase: word(w.PHASES), operation: word(w.OPERATIONS),
  "outcome?": word(w.OUTCOMES), "reason?": word(new Set([...w.CAUSES, ...w.MOTIVES])), occurred_at: time,
  service: text(w.SOURCE),
  "key?": object({
    id: text(w.HEX16), "version?": integer(1, 0xffffffff), "revision?": integer(1),
    "kind?": word(new Set(["dek", "kek"])), "state?": word(new Set(w.STATES.slice(1))),
  }),
  "claimed_key_id?": text(w.HEX16), "owner?": owner,
  "kek?": object({ vault: text(w.KEK_VAULT), name: text(w.KEK_NAME), "version?": text(w.KEK_VERSION) }),
  "token_id?": text(w.VISIBLE_128), actor: text(w.ACTOR), purpose: text(w.SOURCE), "intent_id?": text(w.UUID),
  "call_ids?": list(text(w.UUID), 1, 16, (id) => id),
  "vault_attempts?": list(ATTEMPT, 1, 16, (attempt) => attempt.call_id),
  "counts?": list(COUNT, 1, 64, (entry) => `${entry.operation} ${entry.outcome} ${entry.reason}`),
  "recovery?": exactly(true), "outage_grace?": exactly(true), "host?": text(w.HOST), "address?": text(w.ADDRESS),
  "trace_id?": text(w.TRACE_ID), "note?": text(w.NOTE),
};

const HEAD = object({
  generation: integer(0, 0xffff), partition: integer(0, 0xffff), sequence: integer(0), digest: text(w.HEX32),
});
const TALLY = object({ operation: word(w.OPERATIONS), outcome: word(w.OUTCOMES), count: integer(1) });
const CONTROL = { v: exactly(1), type: null, id: text(w.UUID), at: time, service: text(w.SOURCE) };
const STANDING = {
  heads: list(HEAD, 0, MAX_LINE, (head) => `${head.generation} ${head.partition}`),
  tallies: list(TALLY, 0, MAX_LINE, (tally) => `${tally.operation} ${tally.outcome}`),
  "oldest_unsent_at?": time,
};

const SHAPES = {
  key: EVENT,
  "chain.open": {
    ...CONTROL, type: exactly("chain.open"), durability: word(new Set(["volume", "broker"])),
    "continues?": text(w.HEX16),
  },
  heartbeat: { ...CONTROL, type: exactly("heartbeat"), ...STANDING },
  "chain.close": { ...CONTROL, type: exactly("chain.close"), ...STANDING },
};
const KINDS = Object.fromEntries(Object.entries(SHAPES).map(([type, shape]) => [type, object(shape)]));
const ORDER = Object.fromEntries(
  Object.entries(SHAPES).map(([type, shape]) => [type, Object.keys(shape).map((name) => name.replace("?", ""))]),
);

// --- rules over several fields ---------------------------------------------------------------------------------

/** An act of the life cycle on a KEK itself, not on a DEK under it. */
function isActOnKek(event) {
  return w.KEY_ACTS.includes(event.operation) && event.key?.kind === "kek" && event.kek !== undefined;
}

function presence(event, field, { allowed, required = false }) {
  const there = event[field] !== undefined;
  if (there && !allowed) fail(field, "not in such an event");
  if (!there && required) fail(field, "missing");
}

function judgePhase(event) {
  const { phase, outcome } = event;
  presence(event, "outcome", { allowed: phase !== "intent", required: phase !== "intent" });
  if (outcome === "unknown" && phase !== "outcome") fail("outcome", "unknown stands only in an outcome");
  presence(event, "intent_id", { allowed: phase === "outcome", required: phase === "outcome" });
}

function judgeReason({ operation, phase, outcome, reason }) {
  if (operation === "summary") {
    if (reason !== "rate_limited") fail("reason", "a summary's is rate_limited");
  } else if (outcome === "denied" || outcome === "failed") {
    if (!w.CAUSES.has(reason)) fail("reason", "a cause is missing");
  } else if (reason !== undefined) {
    const motive = w.LIFE_CYCLE.has(operation) && (phase === "intent" || outcome === "succeeded");
    if (outcome === "unknown" ? reason !== "crashed" : !motive || !w.MOTIVES.has(reason)) {
      fail("reason", "not in such an event");
    }
  }
}

function judgeKey(event) {
  const { operation, outcome } = event;
  const optional =
    ["denied", "failed", "unknown"].includes(outcome) || operation.startsWith("token.") || operation === "summary";
  presence(event, "key", { allowed: true, required: !optional });
  presence(event, "claimed_key_id", { allowed: event.key === undefined });
  const owned = [...w.USES, ...w.VAULT_CALLS].includes(operation);
  presence(event, "owner", { allowed: true, required: owned });
  presence(event, "token_id", { allowed: operation.startsWith("token.") });
}

function judgeVault(event, actOnKek) {
  const { operation, phase, outcome } = event;
  const call = w.VAULT_CALLS.includes(operation);
  const remote = call || actOnKek;
  presence(event, "kek", { allowed: true, required: call });
  if (event.kek && event.kek.version === undefined && !w.KEY_ACTS.includes(operation)) fail("kek.version", "missing");
  presence(event, "call_ids", { allowed: remote && phase === "intent", required: call && phase === "intent" });
  const attempted = remote && phase === "outcome";
  presence(event, "vault_attempts", { allowed: attempted, required: call && attempted && outcome === "succeeded" });
}

function judgeRest(event) {
  const { operation } = event;
  const summary = operation === "summary";
  presence(event, "counts", { allowed: summary, required: summary });
  if (summary && event.phase !== "single") fail("phase", "a summary is single");
  if (summary && !["denied", "failed"].includes(event.outcome)) {
    fail("outcome", "a summary counts what did not succeed");
  }
  presence(event, "recovery", { allowed: operation === "reencrypt" });
  presence(event, "outage_grace", { allowed: w.USES.includes(operation) });
  presence(event, "note", { allowed: event.actor.startsWith("user:") && w.LIFE_CYCLE.has(operation) });
}

// --- in and out ------------------------------------------------------------------------------------------------

function judge(line) {
  if (line === null || typeof line !== "object" || Array.isArray(line)) fail("line", "not an object");
  if (!Object.hasOwn(line, "v")) fail("v", "missing");
  if (line.v !== 1) fail("v", "another version");
  if (typeof line.type !== "string" || !Object.hasOwn(KINDS, line.type)) fail("type", "missing or unknown");
  KINDS[line.type](line, "");
  if (line.type !== "key") return line;
  const actOnKek = isActOnKek(line);
  judgePhase(line);
  judgeReason(line);
  judgeKey(line);
  judgeVault(line, actOnKek);
  judgeRest(line);
  return line;
}

/** The object of one line, given without its newline; throws EventInvalid. */
export function readLine(bytes) {
  if (bytes.length > MAX_LINE) fail("line", "above 16 KiB");
  return judge(parse(bytes, fail, "line"));
}

/** The bytes of a new line, without newline: compact, in the order of the tables, and judged. */
export function writeLine(fields) {
  const order = ORDER[fields.type];
  if (order === undefined) fail("type", "missing or unknown");
  const known = order.filter((name) => fields[name] !== undefined).map((name) => [name, fields[name]]);
  for (const name of Object.keys(fields)) if (!order.includes(name)) fail(name, "an unknown field");
  const bytes = Buffer.from(JSON.stringify(Object.fromEntries(known)), "utf8");
  readLine(bytes);
  return bytes;
}
