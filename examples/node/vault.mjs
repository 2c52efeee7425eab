/**
 * Wrapping and unwrapping DEKs. A key wrapper is an object with
 *
 *   wrapAlg                      1 a vault, 2 local
 *   attempts                     how many calls one wrap or unwrap may need, 1 to 16
 *   ref(alias, version)          {vault, name, version} for the event; throws Failed for an alias that is not pinned
 *   wrap(alias, version, blob, calls)      -> wrapped_dek
 *   unwrap(alias, version, wrapped, calls) -> blob
 *
 * `calls` (class Calls) holds the ids drawn before, which stand in the intent, and takes down the attempts made.
 */

import { constants, createPublicKey, privateDecrypt, publicEncrypt, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { Denied, Failed } from "./errors.mjs";
import { formatTime } from "./time.mjs";
import { KEK_NAME, KEK_VERSION } from "./words.mjs";

const OAEP = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" }; // and MGF1 with the same hash
const API_VERSION = "7.4";
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;
const MAX_ANSWER = 65_536;

/** The call ids of one wrap or unwrap, and what became of them. */
export class Calls {
  attempts = [];
  #clock;

  constructor(count, { clock = Date.now, uuid = randomUUID } = {}) {
    this.ids = Array.from({ length: count }, () => uuid());
    this.#clock = clock;
  }

  begin() {
    const attempt = { call_id: this.ids[this.attempts.length], started_at: formatTime(this.#clock()) };
    if (attempt.call_id === undefined) throw new RangeError("more attempts than call ids");
    this.attempts.push(attempt);
    return attempt;
  }

  end(attempt, answer = {}) {
    const { call_id: id, started_at: startedAt } = attempt;
    const ended = { call_id: id, ...answer, started_at: startedAt, ended_at: formatTime(this.#clock()) };
    this.attempts[this.attempts.indexOf(attempt)] = ended;
  }
}

/** A KEK inside the process: for tests and demos only. No vault log accounts for it. */
export class LocalKek {
  wrapAlg = 2;
  attempts = 1;
  #ref;
  #privateKey;
  #publicKey;

  /** @param {{name: string, version: string, privateKey: import("node:crypto").KeyObject}} options an RSA key */
  constructor({ name, version, privateKey }) {
    this.#ref = { vault: "local", name, version };
    this.#privateKey = privateKey;
    this.#publicKey = createPublicKey(privateKey);
  }

  encrypt(blob) {
    return publicEncrypt({ key: this.#publicKey, ...OAEP }, blob);
  }

  decrypt(wrapped) {
    return privateDecrypt({ key: this.#privateKey, ...OAEP }, wrapped);
  }

  ref(alias, version) {
    if (alias !== this.#ref.name || version !== this.#ref.version) throw new Failed("vault_not_found");
    return this.#ref;
  }

  async wrap(alias, version, blob, calls) {
    return this.#act(alias, version, calls, () => this.encrypt(blob));
  }

  async unwrap(alias, version, wrapped, calls) {
    return this.#act(alias, version, calls, () => this.decrypt(wrapped));
  }

  #act(alias, version, calls, act) {
    this.ref(alias, version);
    const attempt = calls.begin();
    try {
      return act();
    } catch {
      throw new Failed("vault_error"); // what OpenSSL says may hang on key material
    } finally {
      calls.end(attempt);
    }
  }
}

/** Azure Key Vault over fetch. Every attempt is one request with its own `x-ms-client-request-id`. */
export class KeyVault {
  wrapAlg = 1;
  #keks;
  #token;
  #fetch;
  #timeoutMs;
  #pauseMs;

  /**
   * @param {object} options
   * @param {Record<string, {url: string, vault: string, name: string}>} options.keks what an alias means; pinned in
   *   configuration, never read from a row. `url` is the vault's, such as https://kv-prod.vault.azure.net
   * @param {() => Promise<string>} options.token a bearer token for the vault; called for each attempt, so cache there
   * @param {typeof fetch} [options.fetch]
   * @param {number} [options.attempts] at most 16
   */
  constructor({ keks, token, fetch = globalThis.fetch, attempts = 3, timeoutMs = 5000, pauseMs = 200 }) {
    if (!Number.isInteger(attempts) || attempts < 1 || attempts > 16) throw new RangeError("attempts: 1 to 16");
    this.#keks = new Map(Object.entries(keks).map(([alias, kek]) => [alias, pinned(kek)]));
    this.attempts = attempts;
    this.#token = token;
    this.#fetch = fetch;
    this.#timeoutMs = timeoutMs;
    this.#pauseMs = pauseMs;
  }

  ref(alias, version) {
    const { vault, name } = this.#kek(alias);
    if (!KEK_VERSION.test(version)) throw new Failed("vault_not_found"); // it becomes a part of a URL
    return { vault, name, version };
  }

  async wrap(alias, version, blob, calls) {
    return this.#act("wrapkey", alias, version, blob, calls);
  }

  async unwrap(alias, version, wrapped, calls) {
    return this.#act("unwrapkey", alias, version, wrapped, calls);
  }

  #kek(alias) {
    const kek = this.#keks.get(alias);
    if (kek === undefined) throw new Failed("vault_not_found");
    return kek;
  }

  async #act(verb, alias, version, value, calls) {
    const { name } = this.ref(alias, version);
    const kid = `${this.#kek(alias).origin}/keys/${name}/${version}`;
    const body = JSON.stringify({ alg: "RSA-OAEP-256", value: value.toString("base64url") });
    for (let pause = this.#pauseMs; ; pause *= 2) {
      const last = calls.attempts.length + 1 >= Math.min(this.attempts, calls.ids.length);
      try {
        return await this.#attempt(`${kid}/${verb}?api-version=${API_VERSION}`, kid, body, calls);
      } catch (err) {
        if (!(err instanceof Failed) || !err.retryable || last) throw err;
      }
      await sleep(pause * (0.5 + Math.random() / 2)); // jitter, not a secret
    }
  }

  /** No token, no call: nothing of it is in the vault's log, and nothing is taken down. */
  async #bearer() {
    try {
      return await this.#token();
    } catch {
      throw new Failed("vault_unreachable");
    }
  }

  async #attempt(url, kid, body, calls) {
    const token = await this.#bearer();
    const attempt = calls.begin();
    let response;
    let text;
    try {
      response = await this.#fetch(url, {
        method: "POST",
        body,
        headers: {
          authorization: `Bearer ${token}`,
          "content-type": "application/json",
          "x-ms-client-request-id": attempt.call_id,
          "x-ms-return-client-request-id": "true",
        },
        redirect: "manual", // a token is for one vault
        signal: AbortSignal.timeout(this.#timeoutMs),
      });
      text = await limited(response);
    } catch {
      calls.end(attempt, response ? answer(response) : {});
      throw new Failed("vault_unreachable", { retryable: true });
    }
    calls.end(attempt, answer(response));
    if (response.status !== 200) throw refusal(response.status);
    return result(text, kid);
  }
}

function pinned({ url, vault, name }) {
  const parsed = new URL(url);
  if (parsed.protocol !== "https:" && parsed.hostname !== "127.0.0.1") throw new TypeError("a vault's URL is https");
  if (!KEK_NAME.test(name)) throw new TypeError("a KEK's name is written in lower case");
  return { origin: parsed.origin, vault, name };
}

function answer(response) {
  const requestId = response.headers.get("x-ms-request-id");
  const known = requestId !== null && REQUEST_ID.test(requestId);
  return { ...(known ? { request_id: requestId } : {}), http_status: response.status };
}

/** The text of an answer that is not larger than any answer of a vault. */
async function limited(response) {
  const chunks = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new RangeError("answer too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function refusal(status) {
  if (status === 401 || status === 403) return new Denied("vault_denied");
  if (status === 404) return new Failed("vault_not_found");
  if (status === 429) return new Failed("vault_throttled", { retryable: true });
  return new Failed("vault_error", { retryable: status >= 500 });
}

/** The bytes of an answer about the key version that was asked for; its whole address is compared. */
function result(text, kid) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Failed("vault_error");
  }
  if (typeof body?.kid !== "string" || body.kid.toLowerCase() !== kid.toLowerCase()) throw new Failed("kid_mismatch");
  if (typeof body.value !== "string") throw new Failed("vault_error");
  return Buffer.from(body.value, "base64url");
}
