/** Whose a key and a ciphertext is: `{tenant_id, integration_id}` or `{secret_name}`, and their canonical bytes. */

import { EnvelopeInvalid } from "./errors.mjs";
import { failing } from "./json.mjs";
import { Reader, lp16, u8 } from "./wire.mjs";
import { VISIBLE_128 } from "./words.mjs";

const fail = failing(EnvelopeInvalid);
const TENANT = ["tenant_id", "integration_id"];
const SECRET = ["secret_name"];

export function ownerBytes(owner) {
  const names = Object.keys(owner).sort().join();
  const parts = names === "integration_id,tenant_id" ? TENANT : names === "secret_name" ? SECRET : null;
  if (parts === null) fail("owner", "neither a tenant's integration nor a secret");
  for (const part of parts) {
    if (typeof owner[part] !== "string" || !VISIBLE_128.test(owner[part])) {
      fail(`owner.${part}`, "not 1 to 128 visible ASCII characters");
    }
  }
  const kind = parts === TENANT ? 1 : 2;
  return Buffer.concat([u8(kind), ...parts.map((part) => lp16(Buffer.from(owner[part], "ascii")))]);
}

/** The owner that these bytes name; only needed where the bytes come from elsewhere. */
export function parseOwner(bytes) {
  const whole = (_field, why) => fail("owner", why);
  const reader = new Reader(bytes, whole);
  const kind = reader.u8("owner");
  if (kind !== 1 && kind !== 2) fail("owner", "an unknown kind");
  const owner = {};
  for (const part of kind === 1 ? TENANT : SECRET) owner[part] = reader.lp16("owner").toString("latin1");
  reader.end("owner");
  ownerBytes(owner);
  return owner;
}
