/** The registry: who may sign what, and when. A reviewed file; nothing read from elsewhere changes it. */

import { RegistryInvalid } from "./errors.mjs";
import { failing, parse } from "./json.mjs";
import { signerId } from "./signers.mjs";
import { parseTime } from "./time.mjs";
import { HEX16, HEX32, SOURCE } from "./words.mjs";

const MAX_FILE = 1_048_576;
const MAX_SIGNERS = 4096;
const MAX_PRINCIPALS = 256;
const ROLES = new Set(["events", "keys", "approve"]);
const PRINCIPAL = /^[0-9a-z][0-9a-z._@-]{0,127}$/;
const PERSON = /^[^\u0000-\u001f\u007f-\u009f]{1,128}$/u;
const FIELDS = [
  "signer_id", "public_key", "source", "roles", "vault_principals", "person", "valid_from", "valid_until",
  "compromised_from",
];
const fail = failing(RegistryInvalid);

function shape(value, names, path) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) fail(path, "not an object");
  for (const name of Object.keys(value)) if (!names.includes(name)) fail(`${path}.${name}`, "an unknown field");
  for (const name of names) if (!Object.hasOwn(value, name)) fail(`${path}.${name}`, "missing");
}

function form(value, pattern, path) {
  if (typeof value !== "string" || !pattern.test(value)) fail(path, "not of its form");
  return value;
}

function words(value, least, most, good, path) {
  const fits = Array.isArray(value) && value.length >= least && value.length <= most && value.every(good);
  if (!fits || new Set(value).size !== value.length) fail(path, "not a list of its words");
  return value;
}

function milliseconds(value, path) {
  const us = parseTime(value);
  if (us === null || us % 1000n !== 0n) fail(path, "not a time of whole milliseconds");
  return Number(us / 1000n);
}

function readSigner(raw, path) {
  shape(raw, FIELDS, path);
  const publicKey = Buffer.from(form(raw.public_key, HEX32, `${path}.public_key`), "hex");
  if (form(raw.signer_id, HEX16, `${path}.signer_id`) !== signerId(publicKey)) {
    fail(`${path}.signer_id`, "not of this key");
  }
  const roles = words(raw.roles, 1, ROLES.size, (role) => ROLES.has(role), `${path}.roles`);
  if (raw.person !== null) form(raw.person, PERSON, `${path}.person`);
  if (roles.includes("approve") && raw.person === null) fail(`${path}.person`, "who approves is a person");
  const validFrom = milliseconds(raw.valid_from, `${path}.valid_from`);
  const validUntil = milliseconds(raw.valid_until, `${path}.valid_until`);
  if (validUntil <= validFrom) fail(`${path}.valid_until`, "not after valid_from");
  const isPrincipal = (principal) => typeof principal === "string" && PRINCIPAL.test(principal);
  const compromised = raw.compromised_from;
  return {
    id: raw.signer_id,
    publicKey,
    source: form(raw.source, SOURCE, `${path}.source`),
    roles: new Set(roles),
    principals: words(raw.vault_principals, 0, MAX_PRINCIPALS, isPrincipal, `${path}.vault_principals`),
    person: raw.person,
    validFrom,
    validUntil,
    compromisedFrom: compromised === null ? Infinity : milliseconds(compromised, `${path}.compromised_from`),
  };
}

export class Registry {
  #signers = new Map();

  /** @param {Uint8Array} bytes the file; throws RegistryInvalid */
  constructor(bytes) {
    if (bytes.length > MAX_FILE) fail("file", "above 1 MiB");
    const raw = parse(bytes, fail, "file");
    shape(raw, ["v", "deployment", "signers"], "file");
    if (raw.v !== 1) fail("v", "another version");
    this.deployment = Buffer.from(form(raw.deployment, HEX16, "deployment"), "hex");
    if (!Array.isArray(raw.signers) || raw.signers.length > MAX_SIGNERS) fail("signers", "not a list of its length");
    const sources = new Map();
    raw.signers.forEach((entry, index) => {
      const path = `signers[${index}]`;
      const signer = readSigner(entry, path);
      if (this.#signers.has(signer.id)) fail(`${path}.signer_id`, "listed twice");
      this.#signers.set(signer.id, signer);
      for (const principal of signer.principals) {
        if ((sources.get(principal) ?? signer.source) !== signer.source) {
          fail(`${path}.vault_principals`, "of two sources");
        }
        sources.set(principal, signer.source);
      }
    });
  }

  /** The signer with this id and role at this time, or null: outside its validity it counts as unknown. */
  find(id, role, atMs) {
    const signer = this.#signers.get(id);
    return signer && signer.roles.has(role) && signer.validFrom <= atMs && atMs < signer.validUntil ? signer : null;
  }
}
