/** Approvals: two people allow what cannot be undone. Counting nonces and comparing the subject is the caller's. */

import { ApprovalInvalid } from "./errors.mjs";
import { failing, parse } from "./json.mjs";
import { LABELS, holds } from "./signers.mjs";
import { Reader, same } from "./wire.mjs";

const ACTIONS = [null, "destroy", "purge", "accept_loss", "recovery_grant", "silence", "allow_list", "review"];
const OF_A_KEY = new Set(["destroy", "recovery_grant"]);
const SIZE = 125;
const fail = failing(ApprovalInvalid);

function base64(value, field, size) {
  const bytes = Buffer.from(typeof value === "string" ? value : "", "base64");
  // Buffer.from takes what is almost base64; only the one spelling is accepted.
  if (bytes.toString("base64") !== value || bytes.length !== size) fail(field, `not ${size} bytes in base64`);
  return bytes;
}

export function parseApproval(bytes) {
  if (bytes.length !== SIZE) fail("approval", "not 125 bytes");
  const reader = new Reader(bytes, fail);
  const approval = {
    deployment: reader.take(16), action: ACTIONS[reader.u8()], key_id: reader.take(16), key_version: reader.u32(),
    revision: reader.u64("revision"), subject_sha256: reader.take(32), not_before_ms: reader.u64("not_before_ms"),
    expires_ms: reader.u64("expires_ms"), nonce: reader.take(16), signer_id: reader.take(16).toString("hex"),
  };
  if (!approval.action) fail("action", "unknown");
  const { key_version: version, revision } = approval;
  if (OF_A_KEY.has(approval.action)) {
    if (version < 1 || revision < 1) fail("key_version", "a key version and its revision are named");
  } else if (version !== 0 || revision !== 0 || approval.key_id.some((byte) => byte !== 0)) {
    fail("key_id", "no key is named");
  }
  if (approval.expires_ms <= approval.not_before_ms) fail("expires_ms", "not after not_before_ms");
  return approval;
}

/** The approval carried by this JSON text, with its `person`; throws ApprovalInvalid. */
export function verifyApproval(text, registry, atMs) {
  const raw = parse(Buffer.from(text, "utf8"), fail, "json");
  if (raw === null || typeof raw !== "object" || Object.keys(raw).sort().join() !== "approval,sig") {
    fail("json", "not approval and sig");
  }
  // 1. form and deployment
  const bytes = base64(raw.approval, "approval", SIZE);
  const signature = base64(raw.sig, "sig", 64);
  const approval = parseApproval(bytes);
  if (!same(approval.deployment, registry.deployment)) fail("deployment", "another");
  // 2. signer
  const signer = registry.find(approval.signer_id, "approve", atMs);
  if (signer === null || atMs >= signer.compromisedFrom) fail("signer_id", "may not approve then");
  // 3. signature
  if (!holds(signer.publicKey, LABELS.approval, bytes, signature)) fail("sig", "does not hold");
  // 4. time
  if (atMs < approval.not_before_ms || atMs >= approval.expires_ms) fail("expires_ms", "not at this time");
  return { ...approval, person: signer.person };
}

/** Two approvals of one thing by two people, or ApprovalInvalid. */
export function verifyPair(texts, registry, atMs) {
  if (texts.length !== 2) fail("approval", "two of them");
  const [one, other] = texts.map((text) => verifyApproval(text, registry, atMs));
  if (one.action !== other.action) fail("action", "not the same in both");
  const subject = (a) => `${a.key_id.toString("hex")} ${a.key_version} ${a.revision} ${a.subject_sha256.toString("hex")}`;
  if (subject(one) !== subject(other)) fail("subject_sha256", "not the same in both");
  if (plain(one.person) === plain(other.person)) fail("person", "one person twice");
  if (one.nonce.equals(other.nonce)) fail("nonce", "one nonce twice");
  return [one, other];
}

function plain(person) {
  return person.trim().toLowerCase();
}
