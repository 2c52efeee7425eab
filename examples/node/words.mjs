/** The closed lists of words of an audit event, and the patterns of its texts. */

export const USES = ["encrypt", "decrypt", "reencrypt"];
export const VAULT_CALLS = ["wrap", "unwrap"];
export const TOKEN_ACTS = ["token.store", "token.regenerate", "token.expire", "token.invalidate"];
export const KEY_ACTS = ["create", "activate", "rotate", "rewrap", "suspend", "resume", "revoke", "archive", "destroy"];
export const LIFE_CYCLE = new Set([...KEY_ACTS, ...TOKEN_ACTS]);
export const OPERATIONS = new Set([...USES, ...VAULT_CALLS, ...LIFE_CYCLE, "token.use", "summary"]);
export const OUTCOMES = new Set(["succeeded", "denied", "failed", "unknown"]);
export const PHASES = new Set(["single", "intent", "outcome"]);

export const CAUSES = new Set([
  "parse_error", "unknown_key", "owner_mismatch", "bad_tag", "key_state", "record_invalid", "record_rollback",
  "vault_denied", "vault_not_found", "vault_throttled", "vault_unreachable", "vault_error", "kid_mismatch",
  "commitment_mismatch", "rate_limited", "crashed",
]);
export const MOTIVES = new Set([
  "scheduled", "token_regenerated", "compromise_suspected", "ownership_changed", "offboarded", "operator",
]);

/** In the order of their numbers in a key record; index 0 is no state and reason 0 is "none". */
export const STATES = [null, "pre-activation", "active", "suspended", "revoked", "archived", "destroyed"];

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
export const HEX16 = /^[0-9a-f]{32}$/;
export const HEX32 = /^[0-9a-f]{64}$/;
export const SOURCE = /^[a-z0-9][a-z0-9._-]{0,63}$/;
export const VISIBLE_128 = /^[\x21-\x7e]{1,128}$/;
export const ACTOR = /^[a-z][a-z0-9-]{0,31}:[\x21-\x7e]{1,128}$/;
export const HOST = /^[0-9A-Za-z][0-9A-Za-z._-]{0,252}$/;
export const ADDRESS = /^[0-9a-f:.]{2,45}$/;
export const TRACE_ID = /^[0-9A-Za-z._-]{1,64}$/;
export const KEK_VAULT = /^[a-z0-9][a-z0-9.:_-]{0,126}$/;
export const KEK_NAME = /^[a-z0-9][a-z0-9-]{0,126}$/;
export const KEK_VERSION = /^[a-z0-9][a-z0-9_-]{0,63}$/;
// Characters are code points, so the flag u and not the number of UTF-16 units.
export const NOTE = /^[^\u0000-\u001f\u007f-\u009f]{1,512}$/u;
