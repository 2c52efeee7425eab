"""Rebuild the vectors: `python tests/vectors/generate.py`, or `--check` to compare with the files only.

This is a second writer of the formats, made from docs/formats.md with hashlib, struct and bare ciphers; it imports
nothing of cryptocore, so that a vector is no echo of the code it tests. What each vector that must fail is expected to
say is written by hand. Keys, nonces and the OAEP seed are fixed here, which no public interface allows.
"""

import json
import struct
import sys
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from hmac import digest as hmac_digest
from pathlib import Path
from typing import Any
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

HERE = Path(__file__).parent
Vector = dict[str, Any]

DEPLOYMENT = bytes.fromhex("d0d1d2d3d4d5d6d7d8d9dadbdcdddedf")
INSTANCE = bytes.fromhex("1a1b1c1d1e1f20212223242526272829")
KEY_ID = bytes.fromhex("3f2a6c1e9b7d4058a1c3e5f708192a3b")
OTHER_KEY_ID = bytes.fromhex("4f2a6c1e9b7d4058a1c3e5f708192a3b")
DEK = bytes(range(0x40, 0x60))
NONCE = bytes(range(0x80, 0x98))
BILLING = bytes([0x01]) * 32
CRM = bytes([0x02]) * 32
ALICE = bytes([0x03]) * 32
STRANGER = bytes([0x04]) * 32
BRUNO = bytes([0x05]) * 32
ALICE_AGAIN = bytes([0x06]) * 32
TENANT = {"tenant_id": "t-88", "integration_id": "crm"}
SECRET = {"secret_name": "smtp"}
RECORD = b"tokens/8f3c/access"
VALID_FROM = "2026-01-01T00:00:00.000000Z"
VALID_UNTIL = "2027-01-01T00:00:00.000000Z"
COMPROMISED = "2026-12-01T00:00:00.000000Z"
NOV_16 = 1_794_796_867_123  # 2026-11-16T02:41:07.123Z
DEC_2 = 1_796_169_600_000  # 2026-12-02T00:00:00.000Z
YEAR_2028 = 1_830_297_600_000

P = int(
    "d4ab6f54f7d35f56fe5a4fd83845fbff20c6523034aa5cca3d1c626713efd4cd"
    "947165563c7828f959da49902225c939759114101f70240481c062ce12adecf4"
    "e7f8af5f5285b976e105b8e56f903bd3ac532244111e6fde6e5d7d5964533055"
    "78b9c0db3b66af9e5e0c3c2edc2cc69289f69e3b45e3f06fa8bc6bd8298c5453",
    16,
)
Q = int(
    "d33a76fc3bb0fffafc2e270164760e7c193c273cd9b1562d36a921d6057db9ab"
    "6b3824861a9c82af15610eace15f3ddd2acab13ee819c342639331066ea05d61"
    "ac65f5be71f6a7be5713b65b588cd9f935a4e053c0d73c447061cc633c985bbd"
    "05843072b70ee1b7e4e3716a20d4b5f9f55226991386f14e914073fa9d752875",
    16,
)
E = 65537


def u(size: int, number: int) -> bytes:
    return number.to_bytes(size, "big")


def lp16(part: bytes) -> bytes:
    return u(2, len(part)) + part


def public(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def signer_id(private: bytes) -> bytes:
    return sha256(public(private)).digest()[:16]


def sign(private: bytes, label: str, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).sign(label.encode() + b"\0" + message)


def compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def without(document: Vector, *names: str) -> Vector:
    return {name: item for name, item in document.items() if name not in names}


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


# ---- owner and envelope


def owner_bytes(owner: dict[str, str]) -> bytes:
    if "secret_name" in owner:
        return b"\x02" + lp16(owner["secret_name"].encode())
    return b"\x01" + lp16(owner["tenant_id"].encode()) + lp16(owner["integration_id"].encode())


def aes(key: bytes, block: bytes) -> bytes:
    return Cipher(AES(key), ECB()).encryptor().update(block)


def subkey(key: bytes, nonce: bytes) -> bytes:
    """Follow the detailed algorithm of https://c2sp.org/XAES-256-GCM, not a library's KDF."""
    doubled = int.from_bytes(aes(key, bytes(16)), "big") << 1
    mask = doubled % 2**128 ^ (0b10000111 if doubled >> 128 else 0)
    blocks = (u(2, number) + b"X\0" + nonce[:12] for number in (1, 2))
    return b"".join(aes(key, u(16, int.from_bytes(block, "big") ^ mask)) for block in blocks)


def header(key_id: bytes = KEY_ID, version: int = 3, nonce: bytes = NONCE, suite: int = 1) -> bytes:
    return b"KT" + u(1, suite) + key_id + u(4, version) + nonce


def associated_data(head: bytes, owner: dict[str, str], record: bytes) -> bytes:
    return b"keytrail/envelope/v1\0" + head + owner_bytes(owner) + lp16(record)


def envelope(
    plaintext: bytes,
    owner: dict[str, str],
    record: bytes = RECORD,
    version: int = 3,
    nonce: bytes = NONCE,
) -> bytes:
    head = header(version=version, nonce=nonce)
    sealed = AESGCM(subkey(DEK, nonce)).encrypt(nonce[12:], plaintext, associated_data(head, owner, record))
    return head + sealed


def envelope_vectors() -> Vector:
    cases = [
        ("a token of a tenant", b"a token", TENANT, RECORD, NONCE),
        ("an internal secret", b"hunter2", SECRET, b"secrets/smtp", bytes(range(24))),
        ("nothing", b"", TENANT, RECORD, bytes(24)),
        ("longest owner and record", b"x" * 100, {"secret_name": "~" * 128}, b"\xff" * 1024, b"\xff" * 24),
        ("shortest owner and record", b"\0", {"tenant_id": "!", "integration_id": "!"}, b"\0", NONCE),
    ]
    passing = []
    for name, plaintext, owner, record, nonce in cases:
        passing.append(
            {
                "name": name,
                "dek": DEK.hex(),
                "key_id": KEY_ID.hex(),
                "key_version": 3,
                "nonce": nonce.hex(),
                "owner": owner,
                "owner_bytes": owner_bytes(owner).hex(),
                "record": record.hex(),
                "subkey": subkey(DEK, nonce).hex(),
                "associated_data": associated_data(header(nonce=nonce), owner, record).hex(),
                "plaintext": plaintext.hex(),
                "envelope": envelope(plaintext, owner, record, nonce=nonce).hex(),
            },
        )
    good = envelope(b"a token", TENANT)
    failing: list[tuple[str, str, Vector]] = [
        ("another tenant", "DecryptionFailed", {"owner": {**TENANT, "tenant_id": "t-89"}}),
        (
            "the parts of the owner shifted",
            "DecryptionFailed",
            {"owner": {"tenant_id": "t-8", "integration_id": "8crm"}},
        ),
        ("another record of the same owner", "DecryptionFailed", {"record": b"tokens/8f3c/refresh".hex()}),
        ("another key", "DecryptionFailed", {"dek": DEK[::-1].hex()}),
        ("another key id in the header", "DecryptionFailed", {"envelope": flipped(good, 3).hex()}),
        ("another key version in the header", "DecryptionFailed", {"envelope": flipped(good, 20).hex()}),
        ("first half of the nonce changed", "DecryptionFailed", {"envelope": flipped(good, 23).hex()}),
        ("second half of the nonce changed", "DecryptionFailed", {"envelope": flipped(good, 46).hex()}),
        ("ciphertext changed", "DecryptionFailed", {"envelope": flipped(good, 47).hex()}),
        ("tag changed", "DecryptionFailed", {"envelope": flipped(good, -1 % len(good)).hex()}),
        ("ciphertext cut", "DecryptionFailed", {"envelope": good[:-1].hex()}),
        ("bytes after the tag", "DecryptionFailed", {"envelope": (good + b"\0").hex()}),
        ("shorter than header and tag", "EnvelopeInvalid envelope", {"envelope": good[:62].hex()}),
        ("empty", "EnvelopeInvalid envelope", {"envelope": ""}),
        ("another magic", "EnvelopeInvalid magic", {"envelope": (b"KU" + good[2:]).hex()}),
        ("suite 0", "EnvelopeInvalid suite", {"envelope": (b"KT\0" + good[3:]).hex()}),
        ("suite 2", "EnvelopeInvalid suite", {"envelope": (b"KT\2" + good[3:]).hex()}),
        ("key version 0", "EnvelopeInvalid key_version", {"envelope": envelope(b"a token", TENANT, version=0).hex()}),
        ("no record", "EnvelopeInvalid record", {"record": ""}),
        ("a record of 1025 bytes", "EnvelopeInvalid record", {"record": (b"r" * 1025).hex()}),
        ("an owner with a blank", "EnvelopeInvalid owner.tenant_id", {"owner": {**TENANT, "tenant_id": "t 88"}}),
        (
            "an empty part of the owner",
            "EnvelopeInvalid owner.integration_id",
            {"owner": {**TENANT, "integration_id": ""}},
        ),
        ("an owner of 129 characters", "EnvelopeInvalid owner.secret_name", {"owner": {"secret_name": "s" * 129}}),
    ]
    base = {"dek": DEK.hex(), "owner": TENANT, "record": RECORD.hex(), "envelope": good.hex()}
    owners = [
        ("kind 3", "EnvelopeInvalid owner", b"\x03" + lp16(b"smtp")),
        ("a length beyond the end", "EnvelopeInvalid owner", b"\x02\x00\x05smtp"),
        ("one part too many", "EnvelopeInvalid owner", owner_bytes(TENANT) + lp16(b"x")),
        ("nothing at all", "EnvelopeInvalid owner", b""),
    ]
    return {
        "format": "docs/formats.md, Owner and envelope; all bytes in hex",
        "must_pass": passing,
        "must_fail": [{"name": name, "expect": expect, **base, **changes} for name, expect, changes in failing],
        "owners_must_fail": [
            {"name": name, "expect": expect, "owner_bytes": raw.hex()} for name, expect, raw in owners
        ],
    }


# ---- DEK under KEK


def binding(suite: int, key_id: bytes, version: int, owner: dict[str, str]) -> bytes:
    named = u(1, suite) + key_id + u(4, version) + owner_bytes(owner)
    return sha256(b"keytrail/dek-binding/v1\0" + named).digest()


def commitment(dek: bytes, suite: int, key_id: bytes, version: int) -> bytes:
    """HKDF spelled out: extract with an empty salt, then the one block of expand that 32 bytes need."""
    extracted = hmac_digest(bytes(32), dek, "sha256")
    info = b"keytrail/dek-commitment/v1\0" + u(1, suite) + key_id + u(4, version)
    return hmac_digest(extracted, info + b"\x01", "sha256")


def mgf1(seed: bytes, size: int) -> bytes:
    return b"".join(sha256(seed + u(4, block)).digest() for block in range(-(-size // 32)))[:size]


def oaep(blob: bytes, seed: bytes) -> bytes:
    """RSA-OAEP of RFC 8017, section 7.1.1, with SHA-256 twice and no label, and a fixed seed."""
    room = 256 - 33 - 32
    block = sha256(b"").digest() + bytes(room - len(blob) - 1) + b"\x01" + blob
    masked = bytes(a ^ b for a, b in zip(block, mgf1(seed, len(block)), strict=True))
    masked_seed = bytes(a ^ b for a, b in zip(seed, mgf1(masked, 32), strict=True))
    return u(256, pow(int.from_bytes(b"\0" + masked_seed + masked, "big"), E, P * Q))


def dek_blob_vectors() -> Vector:
    passing: list[Vector] = []
    for name, version, owner in (("of a tenant", 3, TENANT), ("of a secret", 2**32 - 1, SECRET)):
        blob = b"\x01" + binding(1, KEY_ID, version, owner) + DEK
        passing.append(
            {
                "name": name,
                "dek": DEK.hex(),
                "suite": 1,
                "key_id": KEY_ID.hex(),
                "key_version": version,
                "owner": owner,
                "binding": binding(1, KEY_ID, version, owner).hex(),
                "blob": blob.hex(),
                "commitment": commitment(DEK, 1, KEY_ID, version).hex(),
                "wrapped_dek": oaep(blob, sha256(name.encode()).digest()).hex(),
            },
        )
    base = without(passing[0], "name", "binding", "wrapped_dek", "dek")
    blob = bytes.fromhex(passing[0]["blob"])
    failing: list[tuple[str, str, Vector]] = [
        ("another owner", "BlobInvalid binding", {"owner": {**TENANT, "tenant_id": "t-89"}}),
        ("another key", "BlobInvalid binding", {"key_id": OTHER_KEY_ID.hex()}),
        ("another key version", "BlobInvalid binding", {"key_version": 4}),
        ("format 2", "BlobInvalid binding", {"blob": (b"\x02" + blob[1:]).hex()}),
        ("binding changed", "BlobInvalid binding", {"blob": flipped(blob, 1).hex()}),
        ("DEK changed", "BlobInvalid commitment", {"blob": flipped(blob, 64).hex()}),
        ("commitment changed", "BlobInvalid commitment", {"commitment": bytes(32).hex()}),
        ("a bare DEK", "BlobInvalid blob", {"blob": DEK.hex()}),
        ("64 bytes", "BlobInvalid blob", {"blob": blob[:-1].hex()}),
        ("66 bytes", "BlobInvalid blob", {"blob": (blob + b"\0").hex()}),
        ("nothing", "BlobInvalid blob", {"blob": ""}),
    ]
    return {
        "format": "docs/formats.md, DEK under KEK; all bytes in hex; kek is an RSA key for these vectors only",
        "kek": {"n": f"{P * Q:x}", "e": E, "p": f"{P:x}", "q": f"{Q:x}"},
        "must_pass": passing,
        "must_fail": [{"name": name, "expect": expect, **base, **changes} for name, expect, changes in failing],
    }


# ---- registry


def entry(private: bytes, source: str, roles: list[str], **more: Any) -> Vector:
    return {
        "signer_id": signer_id(private).hex(),
        "public_key": public(private).hex(),
        "source": source,
        "roles": roles,
        "vault_principals": [],
        "person": None,
        "valid_from": VALID_FROM,
        "valid_until": VALID_UNTIL,
        "compromised_from": None,
        **more,
    }


def registry() -> Vector:
    principal = "6f0f2f6e-3a43-4b52-9d5c-0f5a1f0e7a11"
    return {
        "v": 1,
        "deployment": DEPLOYMENT.hex(),
        "signers": [
            entry(BILLING, "billing", ["events", "keys"], vault_principals=[principal]),
            entry(CRM, "crm", ["events"], compromised_from=COMPROMISED),
            entry(ALICE, "people", ["approve"], person="Alice Example"),
        ],
    }


def changed_entry(place: int, **changes: Any) -> str:
    document = registry()
    document["signers"][place].update(changes)
    return compact(document)


def registry_vectors() -> Vector:
    good = registry()
    twice = {**good, "signers": [*good["signers"], good["signers"][0]]}
    stolen = entry(STRANGER, "other", ["events"], vault_principals=good["signers"][0]["vault_principals"])
    missing = {**good, "signers": [without(good["signers"][0], "person")]}
    overlap = entry(STRANGER, "billing", ["events"], vault_principals=good["signers"][0]["vault_principals"])
    failing = [
        ("version 2", "RegistryInvalid v", compact({**good, "v": 2})),
        ("no deployment", "RegistryInvalid file.deployment", compact(without(good, "deployment"))),
        ("a short deployment", "RegistryInvalid deployment", compact({**good, "deployment": "d0"})),
        ("an unknown field", "RegistryInvalid file.comment", compact({**good, "comment": "x"})),
        ("an unknown field of a signer", "RegistryInvalid signers[1].comment", changed_entry(1, comment="x")),
        ("a missing field of a signer", "RegistryInvalid signers[0].person", compact(missing)),
        ("a repeated key", "RegistryInvalid v", '{"v":1,' + compact(good)[1:]),
        ("not the id of the key", "RegistryInvalid signers[0].signer_id", changed_entry(0, signer_id="00" * 16)),
        ("hex in upper case", "RegistryInvalid signers[0].public_key", changed_entry(0, public_key="AB" * 32)),
        ("a signer listed twice", "RegistryInvalid signers[3].signer_id", compact(twice)),
        ("a principal of two sources", "RegistryInvalid signers[3].vault_principals",
         compact({**good, "signers": [*good["signers"], stolen]})),
        ("a principal in upper case", "RegistryInvalid signers[0].vault_principals",
         changed_entry(0, vault_principals=["6F0F2F6E"])),
        ("no role", "RegistryInvalid signers[0].roles", changed_entry(0, roles=[])),
        ("an unknown role", "RegistryInvalid signers[0].roles", changed_entry(0, roles=["admin"])),
        ("an approver without person", "RegistryInvalid signers[2].person", changed_entry(2, person=None)),
        ("a source in upper case", "RegistryInvalid signers[0].source", changed_entry(0, source="Billing")),
        ("a time with an offset", "RegistryInvalid signers[0].valid_from",
         changed_entry(0, valid_from="2026-01-01T00:00:00.000000+00:00")),
        ("a time finer than a millisecond", "RegistryInvalid signers[0].valid_from",
         changed_entry(0, valid_from="2026-01-01T00:00:00.000001Z")),
        ("valid until before from", "RegistryInvalid signers[0].valid_until", changed_entry(0, valid_until=VALID_FROM)),
        ("not JSON", "RegistryInvalid file", "sources"),
    ]  # fmt: skip
    return {
        "format": "docs/formats.md, Signers and the registry; text is the file",
        "private_keys": {"billing": BILLING.hex(), "crm": CRM.hex(), "alice": ALICE.hex()},
        "must_pass": [
            {"name": "three signers", "text": compact(good)},
            {"name": "no signer yet", "text": compact({**good, "signers": []})},
            {"name": "a rotation with overlap", "text": compact({**good, "signers": [*good["signers"], overlap]})},
        ],
        "must_fail": [{"name": name, "expect": expect, "text": text} for name, expect, text in failing],
    }


# ---- key records


def record_fields(**changes: Any) -> Vector:
    return {
        "deployment": DEPLOYMENT.hex(),
        "key_id": KEY_ID.hex(),
        "key_version": 3,
        "revision": 1,
        "state": 2,
        "reason": 0,
        "suite": 1,
        "owner_sha256": sha256(owner_bytes(TENANT)).hexdigest(),
        "kek_alias": "tokens",
        "kek_version": "0c9a4f6be1d24c7d8f1c2a3b4c5d6e7f",
        "wrap_alg": 1,
        "wrapped_dek_sha256": sha256(b"a wrapped DEK").hexdigest(),
        "commitment": commitment(DEK, 1, KEY_ID, 3).hex(),
        "changed_at_ms": NOV_16,
        "superseded_by": 0,
        "retire_at_ms": 0,
        "previous_record_sha256": bytes(32).hex(),
        "event_sha256": sha256(b"an event").hexdigest(),
        "signer_id": signer_id(BILLING).hex(),
        **changes,
    }


def record_bytes(fields: Vector) -> bytes:
    raw = {
        name: bytes.fromhex(item)
        for name, item in fields.items()
        if name not in ("kek_alias", "kek_version") and isinstance(item, str)
    }
    return (
        b"KTKR\x01"
        + raw["deployment"]
        + raw["key_id"]
        + u(4, fields["key_version"])
        + u(8, fields["revision"])
        + bytes([fields["state"], fields["reason"], fields["suite"]])
        + raw["owner_sha256"]
        + lp16(fields["kek_alias"].encode())
        + lp16(fields["kek_version"].encode())
        + u(1, fields["wrap_alg"])
        + raw["wrapped_dek_sha256"]
        + raw["commitment"]
        + u(8, fields["changed_at_ms"])
        + u(4, fields["superseded_by"])
        + u(8, fields["retire_at_ms"])
        + raw["previous_record_sha256"]
        + raw["event_sha256"]
        + raw["signer_id"]
    )


def signed_record(private: bytes = BILLING, label: str = "keytrail/key-record/v1", **changes: Any) -> Vector:
    record = record_bytes(record_fields(**changes))
    return {"record": record.hex(), "signature": sign(private, label, record).hex(), "at_ms": NOV_16}


def next_fields(fields: Vector, **changes: Any) -> Vector:
    linked = {"revision": fields["revision"] + 1, "previous_record_sha256": sha256(record_bytes(fields)).hexdigest()}
    return {**fields, **linked, **changes}


def key_record_vectors() -> Vector:
    first = record_fields()
    superseded = next_fields(first, superseded_by=4, reason=1, retire_at_ms=NOV_16 + 1000)
    revoked = next_fields(superseded, state=4, reason=3)
    destroyed = next_fields(revoked, state=6, wrapped_dek_sha256=sha256(b"").hexdigest())
    history = [first, superseded, revoked, destroyed]
    passing = [
        {"name": f"revision {fields['revision']}", "fields": fields, **signed_record(**fields)} for fields in history
    ]
    good = signed_record()
    raw = bytes.fromhex(good["record"])

    def resigned(record: bytes) -> Vector:
        return {
            "record": record.hex(),
            "signature": sign(BILLING, "keytrail/key-record/v1", record).hex(),
            "at_ms": NOV_16,
        }

    failing = [
        ("a DEK inserted by a database writer", "RecordInvalid signature",
         {**good, "record": record_bytes(record_fields(commitment="00" * 32)).hex()}),
        ("signed by a stranger", "RecordInvalid signer_id",
         signed_record(STRANGER, signer_id=signer_id(STRANGER).hex())),
        ("signed by a stranger in another's name", "RecordInvalid signature", signed_record(STRANGER)),
        ("signed by a service without the role", "RecordInvalid signer_id",
         signed_record(CRM, signer_id=signer_id(CRM).hex())),
        ("signed after valid_until", "RecordInvalid signer_id", {**good, "at_ms": YEAR_2028}),
        ("signed for another purpose", "RecordInvalid signature", signed_record(label="keytrail/sealed-batch/v1")),
        ("another deployment", "RecordInvalid deployment", signed_record(deployment="00" * 16)),
        ("another magic", "RecordInvalid record", resigned(b"KTKS" + raw[4:])),
        ("format 2", "RecordInvalid record", resigned(raw[:4] + b"\2" + raw[5:])),
        ("cut short", "RecordInvalid record", resigned(raw[:-1])),
        ("a byte too many", "RecordInvalid record", resigned(raw + b"\0")),
        ("cut in the head", "RecordInvalid record", resigned(raw[:40])),
        ("kek_alias longer than the record", "RecordInvalid kek_alias",
         resigned(raw[:84] + b"\xff\xff" + raw[86:])),
        ("an empty kek_alias", "RecordInvalid kek_alias", signed_record(kek_alias="")),
        ("kek_version with a blank", "RecordInvalid kek_version", signed_record(kek_version="a b")),
        ("key version 0", "RecordInvalid key_version", signed_record(key_version=0)),
        ("revision 0", "RecordInvalid revision", signed_record(revision=0)),
        ("state 0", "RecordInvalid state", signed_record(state=0)),
        ("state 7", "RecordInvalid state", signed_record(state=7)),
        ("reason 7", "RecordInvalid reason", signed_record(reason=7)),
        ("suite 2", "RecordInvalid suite", signed_record(suite=2)),
        ("wrap_alg 0", "RecordInvalid wrap_alg", signed_record(wrap_alg=0)),
        ("a predecessor at revision 1", "RecordInvalid previous_record_sha256",
         signed_record(previous_record_sha256="11" * 32)),
        ("no predecessor at revision 2", "RecordInvalid previous_record_sha256", signed_record(revision=2)),
        ("born suspended", "RecordInvalid state", signed_record(state=3)),
        ("revoked without reason", "RecordInvalid reason", signed_record(**next_fields(first, state=4))),
        ("superseded by itself", "RecordInvalid superseded_by", signed_record(superseded_by=3)),
        ("active without a wrapped DEK", "RecordInvalid wrapped_dek_sha256",
         signed_record(wrapped_dek_sha256=sha256(b"").hexdigest())),
    ]  # fmt: skip
    breaks: list[tuple[str, str, Vector, Vector]] = [
        ("revoked back to active", "RecordInvalid state", revoked, {"state": 2, "reason": 6}),
        ("destroyed back to archived", "RecordInvalid state", destroyed,
         {"state": 5, "wrapped_dek_sha256": sha256(b"x").hexdigest()}),
        ("a revision skipped", "RecordInvalid revision", first, {"revision": 3}),
        ("the same revision again", "RecordInvalid revision", superseded, {"revision": 2}),
        ("another predecessor", "RecordInvalid previous_record_sha256", first, {"previous_record_sha256": "11" * 32}),
        ("another DEK", "RecordInvalid commitment", first, {"commitment": "11" * 32}),
        ("another owner", "RecordInvalid owner_sha256", first, {"owner_sha256": "11" * 32}),
        ("another key", "RecordInvalid key_id", first, {"key_id": OTHER_KEY_ID.hex()}),
        ("another key version", "RecordInvalid key_version", first, {"key_version": 4}),
        ("no longer superseded", "RecordInvalid superseded_by", superseded, {"superseded_by": 0}),
        ("a removed DEK comes back", "RecordInvalid wrapped_dek_sha256", destroyed,
         {"wrapped_dek_sha256": sha256(b"x").hexdigest()}),
    ]  # fmt: skip
    return {
        "format": "docs/formats.md, Key records; all bytes in hex; registry is that of registry.json, three signers",
        "registry": compact(registry()),
        "must_pass": passing,
        "must_fail": [{"name": name, "expect": expect, **signed} for name, expect, signed in failing],
        "successors_must_fail": [
            {
                "name": name,
                "expect": expect,
                "previous": record_bytes(previous).hex(),
                "following": record_bytes(next_fields(previous, **changes)).hex(),
            }
            for name, expect, previous, changes in breaks
        ],
    }


# ---- approvals


def approvers() -> Vector:
    """Name two people, the second key of one of them, and a key that was in other hands from December on."""
    people = [
        entry(ALICE, "people", ["approve"], person="Alice Example"),
        entry(BRUNO, "people", ["approve"], person="Bruno Example", compromised_from=COMPROMISED),
        entry(ALICE_AGAIN, "people", ["approve"], person="Alice Example"),
    ]
    return {**registry(), "signers": [entry(BILLING, "billing", ["events", "keys"]), *people]}


def approval_fields(private: bytes = ALICE, **changes: Any) -> Vector:
    return {
        "deployment": DEPLOYMENT.hex(),
        "action": 1,
        "key_id": KEY_ID.hex(),
        "key_version": 3,
        "revision": 7,
        "subject_sha256": sha256(record_bytes(record_fields())).hexdigest(),
        "not_before_ms": NOV_16,
        "expires_ms": NOV_16 + 86_400_000,
        "nonce": sha256(b"nonce" + private).digest()[:16].hex(),
        "signer_id": signer_id(private).hex(),
        **changes,
    }


def approval_bytes(fields: Vector) -> bytes:
    raw = {name: bytes.fromhex(item) for name, item in fields.items() if isinstance(item, str)}
    return (
        raw["deployment"]
        + u(1, fields["action"])
        + raw["key_id"]
        + u(4, fields["key_version"])
        + u(8, fields["revision"])
        + raw["subject_sha256"]
        + u(8, fields["not_before_ms"])
        + u(8, fields["expires_ms"])
        + raw["nonce"]
        + raw["signer_id"]
    )


def carried(raw: bytes, private: bytes, label: str = "keytrail/approval/v1") -> str:
    return compact({"approval": b64encode(raw).decode(), "sig": b64encode(sign(private, label, raw)).decode()})


def approved(private: bytes = ALICE, label: str = "keytrail/approval/v1", **changes: Any) -> Vector:
    text = carried(approval_bytes(approval_fields(private, **changes)), private, label)
    return {"json": text, "at_ms": NOV_16}


def approval_vectors() -> Vector:
    file = {"key_id": "00" * 16, "key_version": 0, "revision": 0, "subject_sha256": sha256(b"a file").hexdigest()}
    cases: list[tuple[str, bytes, Vector]] = [
        ("Alice lets a key version be destroyed", ALICE, {}),
        ("Bruno, too", BRUNO, {}),
        ("a recovery grant", ALICE, {"action": 4}),
        ("a purge: no key, the bytes of a file", ALICE, {"action": 2, **file}),
        ("a review", BRUNO, {"action": 7, **file}),
    ]
    passing = [
        {"name": name, "fields": approval_fields(private, **changes), **approved(private, **changes)}
        for name, private, changes in cases
    ]
    good = approved()
    raw = approval_bytes(approval_fields())
    document = json.loads(good["json"])

    def text(changed: str) -> Vector:
        return {"json": changed, "at_ms": NOV_16}

    failing = [
        ("before not_before", "ApprovalInvalid expires_ms", {**good, "at_ms": NOV_16 - 1}),
        ("at expires", "ApprovalInvalid expires_ms", {**good, "at_ms": NOV_16 + 86_400_000}),
        ("expires with not_before", "ApprovalInvalid expires_ms", approved(expires_ms=NOV_16)),
        ("another deployment", "ApprovalInvalid deployment", approved(deployment="00" * 16)),
        ("action 0", "ApprovalInvalid action", approved(action=0)),
        ("action 8", "ApprovalInvalid action", approved(action=8)),
        ("destroy without a key version", "ApprovalInvalid key_version", approved(key_version=0)),
        ("destroy without a revision", "ApprovalInvalid key_version", approved(revision=0)),
        ("a silence that names a key", "ApprovalInvalid key_id", approved(action=5)),
        ("a revision above 2^53 - 1", "ApprovalInvalid revision", approved(revision=2**53)),
        ("an end above 2^53 - 1", "ApprovalInvalid expires_ms", approved(expires_ms=2**53)),
        ("a byte short", "ApprovalInvalid approval", text(carried(raw[:-1], ALICE))),
        ("a byte too many", "ApprovalInvalid approval", text(carried(raw + b"\0", ALICE))),
        ("signed by a service", "ApprovalInvalid signer_id", approved(BILLING)),
        ("signed by a stranger", "ApprovalInvalid signer_id", approved(STRANGER)),
        ("signed by a stranger in another's name", "ApprovalInvalid sig",
         approved(STRANGER, signer_id=signer_id(ALICE).hex())),
        ("signed for another purpose", "ApprovalInvalid sig", approved(label="keytrail/key-record/v1")),
        ("signed with a key that is in other hands", "ApprovalInvalid signer_id",
         {**approved(BRUNO, expires_ms=DEC_2 + 1), "at_ms": DEC_2}),
        ("after the approver's valid_until", "ApprovalInvalid signer_id",
         {**approved(expires_ms=YEAR_2028 + 1), "at_ms": YEAR_2028}),
        ("another record", "ApprovalInvalid sig",
         text(compact({**document, "approval": b64encode(flipped(raw, 50)).decode()}))),
        ("a short signature", "ApprovalInvalid sig", text(compact({**document, "sig": "AAAA"}))),
        ("a signature without padding", "ApprovalInvalid sig",
         text(compact({**document, "sig": document["sig"].rstrip("=")}))),
        ("base64 for URLs", "ApprovalInvalid sig", text(compact({**document, "sig": "-_" + document["sig"][2:]}))),
        ("bits behind the end of the base64", "ApprovalInvalid sig", text(compact({**document, "sig": "AB=="}))),
        ("no signature", "ApprovalInvalid json", text(compact(without(document, "sig")))),
        ("an unknown field", "ApprovalInvalid json", text(compact({**document, "comment": "x"}))),
        ("no JSON", "ApprovalInvalid json", text("approval")),
    ]  # fmt: skip
    alice, bruno = approved()["json"], approved(BRUNO)["json"]
    pairs = [
        ("one person only", "ApprovalInvalid approval", [alice]),
        ("the same approval twice", "ApprovalInvalid person", [alice, alice]),
        ("one person with two keys", "ApprovalInvalid person", [alice, approved(ALICE_AGAIN)["json"]]),
        ("another revision", "ApprovalInvalid subject_sha256", [alice, approved(BRUNO, revision=8)["json"]]),
        ("another record", "ApprovalInvalid subject_sha256",
         [alice, approved(BRUNO, subject_sha256="11" * 32)["json"]]),
        ("another action", "ApprovalInvalid action", [alice, approved(BRUNO, action=4)["json"]]),
        ("one nonce for both", "ApprovalInvalid nonce",
         [alice, approved(BRUNO, nonce=approval_fields()["nonce"])["json"]]),
        ("three", "ApprovalInvalid approval", [alice, bruno, alice]),
    ]  # fmt: skip
    return {
        "format": "docs/formats.md, Approvals; json is the text as carried; pairs are judged for action 1 (destroy) at "
        "at_ms",
        "registry": compact(approvers()),
        "at_ms": NOV_16,
        "must_pass": passing,
        "pair_must_pass": [alice, bruno],
        "must_fail": [{"name": name, "expect": expect, **vector} for name, expect, vector in failing],
        "pairs_must_fail": [{"name": name, "expect": expect, "jsons": jsons} for name, expect, jsons in pairs],
    }


# ---- audit event

EVENT_ID = "6a1f9c52-8e0b-4f0e-9a51-3c2d7e4b1a90"
INTENT_ID = "0d7e6b31-25c4-4a8f-8a6e-51f0c2b9d3e7"
CALL_ID = "b52a1c0d-6f4e-4a37-9d18-7c0e5f2b8a64"
TIME = "2026-11-16T02:41:07.123456Z"
EVENT: Vector = {
    "v": 1,
    "type": "key",
    "id": EVENT_ID,
    "phase": "single",
    "operation": "decrypt",
    "outcome": "succeeded",
    "occurred_at": TIME,
    "service": "billing",
    "key": {"id": KEY_ID.hex(), "version": 3, "revision": 7, "kind": "dek", "state": "active"},
    "owner": TENANT,
    "actor": "user:4711",
    "purpose": "crm-sync",
    "host": "billing-7f9c4",
    "address": "10.2.3.4",
}
KEK = {"vault": "kv-prod", "name": "tokens", "version": "0c9a4f6be1d24c7d8f1c2a3b4c5d6e7f"}
INTENT: Vector = {
    **without(EVENT, "outcome"),
    "phase": "intent",
    "operation": "unwrap",
    "kek": KEK,
    "call_ids": [CALL_ID],
}
ATTEMPT = {
    "call_id": CALL_ID,
    "request_id": "5b0e4a52-1d1c-4f5e-8a37-2f6c1b9d0e73",
    "http_status": 200,
    "started_at": TIME,
    "ended_at": "2026-11-16T02:41:07.160000Z",
}
OUTCOME: Vector = {
    **EVENT,
    "phase": "outcome",
    "operation": "unwrap",
    "kek": KEK,
    "intent_id": INTENT_ID,
    "vault_attempts": [ATTEMPT],
}
KEK_ID = sha256(b"keytrail/kek-id/v1\x00" + b"kv-prod/tokens").digest()[:16]
KEK_INTENT: Vector = {
    **without(INTENT, "owner"),
    "operation": "rotate",
    "key": {"id": KEK_ID.hex(), "kind": "kek"},
    "kek": without(KEK, "version"),
}
KEK_OUTCOME: Vector = {
    **without(OUTCOME, "owner"),
    "operation": "rotate",
    "reason": "scheduled",
    "key": {"id": KEK_ID.hex(), "kind": "kek", "state": "active"},
}
COUNT = {"operation": "decrypt", "outcome": "failed", "reason": "bad_tag", "count": 412}
SUMMARY: Vector = {
    **without(EVENT, "key"),
    "operation": "summary",
    "outcome": "failed",
    "reason": "rate_limited",
    "counts": [COUNT],
}
OPEN: Vector = {
    "v": 1,
    "type": "chain.open",
    "id": EVENT_ID,
    "at": TIME,
    "service": "billing",
    "durability": "volume",
}
HEAD = {"generation": 1, "partition": 3, "sequence": 12, "digest": "ab" * 32}
TALLY = {"operation": "decrypt", "outcome": "succeeded", "count": 9}
HEARTBEAT: Vector = {**without(OPEN, "durability"), "type": "heartbeat", "heads": [HEAD], "tallies": [TALLY]}


def good_lines() -> list[tuple[str, str, bytes]]:
    """Each with the bytes by which it finds its partition."""
    unknown = {
        **without(EVENT, "key"),
        "outcome": "denied",
        "reason": "unknown_key",
        "claimed_key_id": OTHER_KEY_ID.hex(),
    }
    revoke = {**EVENT, "operation": "revoke", "reason": "compromise_suspected", "note": "Laptop gestohlen “Ticket 12”"}
    return [
        ("a decrypt", compact(EVENT), KEY_ID),
        ("the same in another order and with blanks", json.dumps(dict(reversed(EVENT.items())), indent=None), KEY_ID),
        ("an internal owner", compact({**EVENT, "owner": SECRET}), KEY_ID),
        ("an intent", compact(INTENT), KEY_ID),
        ("its outcome", compact(OUTCOME), KEY_ID),
        ("an attempt that nobody answered",
         compact({**OUTCOME, "outcome": "failed", "reason": "vault_unreachable",
                  "vault_attempts": [{"call_id": CALL_ID, "started_at": TIME}]}), KEY_ID),
        ("the outcome of an adopted intent",
         compact(without({**OUTCOME, "outcome": "unknown", "reason": "crashed"}, "vault_attempts")), KEY_ID),
        ("an unknown key", compact(unknown), OTHER_KEY_ID),
        ("an envelope that cannot be read",
         compact(without({**EVENT, "outcome": "failed", "reason": "parse_error"}, "key")), INSTANCE),
        ("a revoke with a note", compact(revoke), KEY_ID),
        ("an escaped note", compact({**revoke, "note": 'she said "now"'}), KEY_ID),
        ("a summary", compact(SUMMARY), INSTANCE),
        ("a re-encryption under a grant", compact({**EVENT, "operation": "reencrypt", "recovery": True}), KEY_ID),
        ("a use while the vault was out", compact({**EVENT, "outage_grace": True}), KEY_ID),
        ("the intent of a KEK's rotation", compact(KEK_INTENT), KEK_ID),
        ("its outcome, with the new version", compact(KEK_OUTCOME), KEK_ID),
        ("a token used", compact({**without(EVENT, "key"), "operation": "token.use"}), INSTANCE),
        ("a traced encrypt", compact({**EVENT, "operation": "encrypt", "trace_id": "4bf92f3577b34da6a3ce"}), KEY_ID),
        ("29 February of a leap year", compact({**EVENT, "occurred_at": "2028-02-29T23:59:59.999999Z"}), KEY_ID),
        ("a chain opened", compact(OPEN), INSTANCE),
        ("a chain adopted", compact({**OPEN, "continues": "5b" * 16}), INSTANCE),
        ("a heartbeat", compact(HEARTBEAT), INSTANCE),
        ("a first heartbeat", compact({**HEARTBEAT, "heads": [], "tallies": []}), INSTANCE),
        ("a chain closed", compact({**HEARTBEAT, "type": "chain.close", "oldest_unsent_at": TIME}), INSTANCE),
    ]  # fmt: skip


def bad_lines() -> list[tuple[str, str, str]]:
    return [
        ("no version", "v", compact(without(EVENT, "v"))),
        ("version 2", "v", compact({**EVENT, "v": 2})),
        ("no type", "type", compact(without(EVENT, "type"))),
        ("another type", "type", compact({**EVENT, "type": "key2"})),
        ("an unknown field", "plaintext", compact({**EVENT, "plaintext": "x"})),
        ("an unknown field of the key", "key.commitment",
         compact({**EVENT, "key": {**EVENT["key"], "commitment": "ab"}})),
        ("null", "reason", compact({**EVENT, "reason": None})),
        ("an empty list", "call_ids", compact({**EVENT, "call_ids": []})),
        ("false", "recovery", compact({**EVENT, "recovery": False})),
        ("a number as text", "key.version", compact({**EVENT, "key": {**EVENT["key"], "version": "3"}})),
        ("an id in upper case", "id", compact({**EVENT, "id": EVENT_ID.upper()})),
        ("a time with milliseconds", "occurred_at", compact({**EVENT, "occurred_at": "2026-11-16T02:41:07.123Z"})),
        ("a time with an offset", "occurred_at", compact({**EVENT, "occurred_at": "2026-11-16T02:41:07.123456+00:00"})),
        ("a leap second", "occurred_at", compact({**EVENT, "occurred_at": "2026-12-31T23:59:60.000000Z"})),
        ("a week date", "occurred_at", compact({**EVENT, "occurred_at": "2026-W47-1T02:41:07.123456Z"})),
        ("before 1970", "occurred_at", compact({**EVENT, "occurred_at": "1969-12-31T23:59:59.999999Z"})),
        ("a purpose in upper case", "purpose", compact({**EVENT, "purpose": "CRM"})),
        ("a purpose of 65 characters", "purpose", compact({**EVENT, "purpose": "p" * 65})),
        ("an actor without kind", "actor", compact({**EVENT, "actor": "4711"})),
        ("no actor", "actor", compact(without(EVENT, "actor"))),
        ("no purpose", "purpose", compact(without(EVENT, "purpose"))),
        ("a service with a slash", "service", compact({**EVENT, "service": "billing/eu"})),
        ("a key id in upper case", "key.id", compact({**EVENT, "key": {"id": KEY_ID.hex().upper()}})),
        ("key version 0", "key.version", compact({**EVENT, "key": {"id": KEY_ID.hex(), "version": 0}})),
        ("revision 2^53", "key.revision", compact({**EVENT, "key": {"id": KEY_ID.hex(), "revision": 2**53}})),
        ("an unknown state", "key.state", compact({**EVENT, "key": {"id": KEY_ID.hex(), "state": "retired"}})),
        ("no key", "key", compact(without(EVENT, "key"))),
        ("no owner", "owner", compact(without(EVENT, "owner"))),
        ("half an owner", "owner", compact({**EVENT, "owner": {"tenant_id": "t-88"}})),
        ("two owners", "owner", compact({**EVENT, "owner": {**TENANT, **SECRET}})),
        ("an owner outside ASCII", "owner.secret_name", compact({**EVENT, "owner": {"secret_name": "schlüssel"}})),
        ("an unknown operation", "operation", compact({**EVENT, "operation": "delete"})),
        ("an intent with an outcome", "outcome", compact({**INTENT, "outcome": "succeeded"})),
        ("a single without outcome", "outcome", compact(without(EVENT, "outcome"))),
        ("an unknown single", "outcome", compact({**EVENT, "outcome": "unknown"})),
        ("an outcome without intent_id", "intent_id", compact(without(OUTCOME, "intent_id"))),
        ("a single with intent_id", "intent_id", compact({**EVENT, "intent_id": INTENT_ID})),
        ("a failure without reason", "reason", compact({**EVENT, "outcome": "failed"})),
        ("a denial with a motive", "reason", compact({**EVENT, "outcome": "denied", "reason": "operator"})),
        ("a success with a cause", "reason", compact({**EVENT, "reason": "bad_tag"})),
        ("a decrypt with a motive", "reason", compact({**EVENT, "reason": "offboarded"})),
        ("exception text", "reason", compact({**EVENT, "outcome": "failed", "reason": "InvalidTag()"})),
        ("an unwrap without kek", "kek", compact(without(INTENT, "kek"))),
        ("a vault in upper case", "kek.vault", compact({**INTENT, "kek": {**KEK, "vault": "KV-Prod"}})),
        ("an intent without call ids", "call_ids", compact(without(INTENT, "call_ids"))),
        ("one call id twice", "call_ids", compact({**INTENT, "call_ids": [CALL_ID, CALL_ID]})),
        ("call ids on a decrypt", "call_ids", compact({**EVENT, "call_ids": [CALL_ID]})),
        ("call ids on the rotation of a DEK", "call_ids",
         compact({**KEK_INTENT, "key": {"id": KEY_ID.hex(), "kind": "dek"}})),
        ("call ids of a KEK's rotation without its kek", "call_ids", compact(without(KEK_INTENT, "kek"))),
        ("call ids on the outcome of a KEK's rotation", "call_ids", compact({**KEK_OUTCOME, "call_ids": [CALL_ID]})),
        ("attempts on the intent of a KEK's rotation", "vault_attempts",
         compact({**KEK_INTENT, "vault_attempts": [ATTEMPT]})),
        ("an unwrap under no version", "kek.version", compact({**INTENT, "kek": without(KEK, "version")})),
        ("a success without attempts", "vault_attempts", compact(without(OUTCOME, "vault_attempts"))),
        ("attempts on an intent", "vault_attempts", compact({**INTENT, "vault_attempts": [ATTEMPT]})),
        ("an attempt without start", "vault_attempts[0].started_at",
         compact({**OUTCOME, "vault_attempts": [without(ATTEMPT, "started_at")]})),
        ("a claimed id beside a key", "claimed_key_id", compact({**EVENT, "claimed_key_id": KEY_ID.hex()})),
        ("a note on a decrypt", "note", compact({**EVENT, "note": "x"})),
        ("a note by a service", "note", compact({**EVENT, "operation": "revoke", "actor": "service:x", "note": "x"})),
        ("a note of 513 characters", "note", compact({**EVENT, "operation": "revoke", "note": "n" * 513})),
        ("recovery on a decrypt", "recovery", compact({**EVENT, "recovery": True})),
        ("a summary without counts", "counts", compact(without(SUMMARY, "counts"))),
        ("a summary of successes", "counts[0].outcome",
         compact({**SUMMARY, "counts": [{**COUNT, "outcome": "succeeded"}]})),
        ("a count of 0", "counts[0].count", compact({**SUMMARY, "counts": [{**COUNT, "count": 0}]})),
        ("counts on a decrypt", "counts", compact({**EVENT, "counts": [COUNT]})),
        ("an unknown durability", "durability", compact({**OPEN, "durability": "memory"})),
        ("a heartbeat without heads", "heads", compact(without(HEARTBEAT, "heads"))),
        ("a head with a short digest", "heads[0].digest", compact({**HEARTBEAT, "heads": [{**HEAD, "digest": "ab"}]})),
        ("partition 65536", "heads[0].partition", compact({**HEARTBEAT, "heads": [{**HEAD, "partition": 65536}]})),
        ("an event's field on a control line", "actor", compact({**HEARTBEAT, "actor": "user:1"})),
    ]  # fmt: skip


def bad_bytes() -> list[tuple[str, str, str]]:
    """Lines that only their bytes, the calendar or a comparison between parts show to be wrong: no schema can tell."""
    line = compact(EVENT)
    full = {**EVENT, "operation": "revoke"}
    return [
        ("a repeated key", "phase", line.replace('"phase":"single"', '"phase":"single","phase":"single"')),
        ("a repeated key in an object", "version", line.replace('"version":3', '"version":3,"version":3')),
        ("a key repeated by an escape", "purpose", line[:-1] + ',"purpos\\u0065":"crm-sync"}'),
        ("a float", "key.revision", line.replace('"revision":7', '"revision":7.0')),
        ("an exponent", "key.revision", line.replace('"revision":7', '"revision":7e0')),
        ("minus zero", "line", compact(HEARTBEAT).replace('"sequence":12', '"sequence":-0')),
        ("30 February", "occurred_at", compact({**EVENT, "occurred_at": "2026-02-30T00:00:00.000000Z"})),
        ("29 February 2027", "occurred_at", compact({**EVENT, "occurred_at": "2027-02-29T00:00:00.000000Z"})),
        ("longer than 16 KiB", "line", compact(full)[:-1] + " " * 16384 + "}"),
        ("two heads of one chain", "heads", compact({**HEARTBEAT, "heads": [HEAD, {**HEAD, "sequence": 13}]})),
        ("two tallies of one thing", "tallies", compact({**HEARTBEAT, "tallies": [TALLY, {**TALLY, "count": 1}]})),
        ("two attempts with one call id", "vault_attempts",
         compact({**OUTCOME, "vault_attempts": [ATTEMPT, {**ATTEMPT, "http_status": 500}]})),
        ("not JSON", "line", line[:-1]),
        ("a lone surrogate", "line", line.replace("t-88", "t-\\ud800")),
        ("nothing", "line", ""),
    ]  # fmt: skip


def event_vectors() -> Vector:
    passing: list[Vector] = []
    for name, line, key in good_lines():
        passing.append({"name": name, "line": line, "partition_of_8": crc32(key) % 8})
    failing = [
        {"name": name, "expect": f"EventInvalid {field}", "schema": schema, "line": line}
        for schema, lines in (("rejects", bad_lines()), ("cannot tell", bad_bytes()))
        for name, field, line in lines
    ]
    return {
        "format": "docs/formats.md, Audit event and Control lines; line is the text without its newline",
        "instance": INSTANCE.hex(),
        "must_pass": passing,
        "must_fail": failing,
    }


# ---- sealed batch


def seal(value: bytes, **changes: Any) -> bytes:
    fields: Vector = {
        "magic": b"KTSB",
        "format": 1,
        "deployment": DEPLOYMENT,
        "instance": INSTANCE,
        "generation": 1,
        "partition": 0,
        "sequence": 0,
        "count": value.count(b"\n"),
        "sealed_at_ms": NOV_16,
        "previous": bytes(32),
        "value_sha256": sha256(value).digest(),
        "signer_id": signer_id(BILLING),
        **changes,
    }
    return struct.pack(">4sB16s16sHHQIQ32s32s16s", *fields.values())


def message(value: bytes, private: bytes = BILLING, label: str = "keytrail/sealed-batch/v1", **changes: Any) -> Vector:
    sealed = seal(value, **{"signer_id": signer_id(private), **changes})
    return {
        "value": value.decode(),
        "headers": [["kt-seal", sealed.hex()], ["kt-sig", sign(private, label, sealed).hex()]],
        "append_ms": NOV_16 + 400,
        "generation": 1,
        "partition": 0,
    }


def lines(*documents: Vector) -> bytes:
    return b"".join(compact(document).encode() + b"\n" for document in documents)


def opened(batch: Vector, *, suspect: bool) -> Vector:
    raw = bytes.fromhex(batch["headers"][0][1])
    names = ("deployment", "instance", "generation", "partition", "sequence", "count", "sealed_at_ms", "previous")
    unpacked = struct.unpack(">4sB16s16sHHQIQ32s32s16s", raw)[2:10]
    fields = {name: item.hex() if isinstance(item, bytes) else item for name, item in zip(names, unpacked, strict=True)}
    return {**batch, "seal": fields, "digest": sha256(raw).hexdigest(), "suspect": suspect}


def sealed_batch_vectors() -> Vector:
    first = message(lines(OPEN, EVENT))
    first_digest = sha256(bytes.fromhex(first["headers"][0][1])).digest()
    head = {"generation": 1, "partition": 0, "sequence": 0, "digest": first_digest.hex()}
    heartbeat = {**HEARTBEAT, "heads": [head], "tallies": [{**TALLY, "count": 1}]}
    second = message(lines(heartbeat), sequence=1, previous=first_digest)
    crm = message(lines({**EVENT, "service": "crm"}), CRM)
    value = lines(EVENT)
    good = message(value)
    seal_header, sig_header = good["headers"]
    foreign = lines(EVENT, {**EVENT, "service": "crm"})
    full = lines(EVENT) * 1000
    passing = [
        ("the first batch of a chain", opened(first, suspect=False)),
        ("its successor", opened(second, suspect=False)),
        ("a thousand lines", {**opened(message(full), suspect=False), "value": compact(EVENT) + "\n", "repeat": 1000}),
        ("another source", opened(crm, suspect=False)),
        ("a source after its key was lost", opened({**crm, "append_ms": DEC_2}, suspect=True)),
    ]
    failing = [
        ("no seal", "BatchRejected rejected kt-seal", {**good, "headers": [sig_header]}),
        ("no signature", "BatchRejected rejected kt-sig", {**good, "headers": [seal_header]}),
        ("two seals", "BatchRejected rejected kt-seal", {**good, "headers": [seal_header, sig_header, seal_header]}),
        ("a third header", "BatchRejected rejected headers", {**good, "headers": [seal_header, sig_header, ["x", ""]]}),
        ("a short seal", "BatchRejected rejected kt-seal",
         {**good, "headers": [["kt-seal", seal_header[1][:-2]], sig_header]}),
        ("a long signature", "BatchRejected rejected kt-sig",
         {**good, "headers": [seal_header, ["kt-sig", sig_header[1] + "00"]]}),
        ("another magic", "BatchRejected rejected kt-seal", message(value, magic=b"KTSC")),
        ("format 2", "BatchRejected rejected kt-seal", message(value, format=2)),
        ("count 0", "BatchRejected rejected seal.count", message(value, count=0)),
        ("count 1001", "BatchRejected rejected seal.count", message(value, count=1001)),
        ("sequence 2^53", "BatchRejected rejected seal.sequence",
         message(value, sequence=2**53, previous=first_digest)),
        ("a predecessor at sequence 0", "BatchRejected rejected seal.previous", message(value, previous=first_digest)),
        ("no predecessor at sequence 1", "BatchRejected rejected seal.previous", message(value, sequence=1)),
        ("another deployment", "BatchRejected deployment_mismatch seal.deployment",
         message(value, deployment=bytes(16))),
        ("an unknown signer", "BatchRejected signer_unknown seal.signer_id", message(value, STRANGER)),
        ("a signer without the role", "BatchRejected signer_unknown seal.signer_id", message(value, ALICE)),
        ("appended after valid_until", "BatchRejected signer_unknown seal.signer_id", {**good, "append_ms": YEAR_2028}),
        ("appended before valid_from", "BatchRejected signer_unknown seal.signer_id", {**good, "append_ms": 0}),
        ("signed by another", "BatchRejected seal_invalid kt-sig",
         message(value, STRANGER, signer_id=signer_id(BILLING))),
        ("signed for another purpose", "BatchRejected seal_invalid kt-sig",
         message(value, label="keytrail/key-record/v1")),
        ("a changed seal", "BatchRejected seal_invalid kt-sig",
         {**good, "headers": [["kt-seal", seal(value, sealed_at_ms=NOV_16 + 1).hex()], sig_header]}),
        ("another partition", "BatchRejected seal_invalid seal.partition", {**good, "partition": 1}),
        ("another generation", "BatchRejected seal_invalid seal.partition", {**good, "generation": 2}),
        ("a changed value", "BatchRejected seal_invalid value",
         {**good, "value": good["value"].replace("decrypt", "encrypt")}),
        ("a line too few", "BatchRejected seal_invalid seal.count", message(value, count=2)),
        ("the last line not ended", "BatchRejected rejected line 2: line", message(lines(EVENT) + b"{}", count=1)),
        ("an empty line", "BatchRejected rejected line 2: line", message(value + b"\n")),
        ("a bad line", "BatchRejected rejected line 2: actor", message(lines(EVENT, without(EVENT, "actor")))),
        ("a service speaks for another", "BatchRejected source_mismatch line 2: service", message(foreign)),
    ]  # fmt: skip
    return {
        "format": "docs/formats.md, Sealed batch; bytes in hex; value is text, written `repeat` times where given; "
        "registry is the file of registry.json, three signers",
        "registry": compact(registry()),
        "must_pass": [{"name": name, **batch} for name, batch in passing],
        "must_fail": [{"name": name, "expect": expect, **batch} for name, expect, batch in failing],
        "partitions": [
            {"key": key.hex(), "count": count, "partition": crc32(key) % count}
            for key in (KEY_ID, INSTANCE, b"kv-prod/tokens")
            for count in (1, 8, 12)
        ],
    }


FILES = {
    "envelope.json": envelope_vectors,
    "dek_blob.json": dek_blob_vectors,
    "key_record.json": key_record_vectors,
    "approval.json": approval_vectors,
    "event.json": event_vectors,
    "sealed_batch.json": sealed_batch_vectors,
    "registry.json": registry_vectors,
}


def main(arguments: Iterable[str]) -> int:
    """Write the files, or with `--check` name those that differ."""
    differing = []
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        path = HERE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differing.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    for name in differing:
        sys.stdout.write(f"{name} {'differs' if '--check' in arguments else 'written'}\n")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
