"""Throws changed bytes at every parser: what does not parse is refused by a FormatError, what parses is written back.

    python -m tests.cryptocore.fuzz --inputs 1000000
    python -m tests.cryptocore.fuzz --inputs 1000000 --atheris        # guided by coverage; pip install atheris

Inputs are changed vectors of tests/vectors, those that must fail too. Whoever finds bytes that end in another error,
or that a parser reads and its writer does not give back, has found a fault; they are printed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptocore.batch import Seal, SealedBatch, open_batch
from cryptocore.envelope import Header, Owner, Suite
from cryptocore.errors import FormatError
from cryptocore.events import decode_line, decode_lines, encode_line
from cryptocore.life.approvals import Approval, SignedApproval
from cryptocore.purposes import Purposes
from cryptocore.records import KeyRecord, SignedRecord
from cryptocore.registry import Registry
from cryptocore.signing import SEALED_BATCH, Signer
from cryptocore.wrapping import BLOB_SIZE, build_blob, open_blob

VECTORS: Final = Path(__file__).parents[1] / "vectors"
SEAL_SIZE: Final = 141
SIGNATURE_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and what it can read."""

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes], None]


def check_envelope(raw: bytes) -> None:
    assert raw.startswith(Header.parse(raw).encode())


def check_owner(raw: bytes) -> None:
    assert Owner.decode(raw).encode() == raw


def check_blob(raw: bytes) -> None:
    owner = Owner.tenant("t-88", "crm")
    dek = open_blob(raw, Suite.XAES_256_GCM, bytes(16), 1, owner)
    assert build_blob(dek, Suite.XAES_256_GCM, bytes(16), 1, owner) == raw


def check_record(raw: bytes) -> None:
    assert KeyRecord.decode(raw).encode() == raw


def check_signed_record(raw: bytes) -> None:
    assert SignedRecord.decode(raw).encode() == raw


def check_approval(raw: bytes) -> None:
    assert Approval.decode(raw).encode() == raw


def check_signed_approval(raw: bytes) -> None:
    SignedApproval.decode(raw)


def check_line(raw: bytes) -> None:
    line = decode_line(raw)
    assert decode_line(encode_line(line)) == line


def check_lines(raw: bytes) -> None:
    lines, raws = decode_lines(raw)
    assert b"".join(each + b"\n" for each in raws) == raw
    assert [decode_line(each) for each in raws] == lines


def check_batch(raw: bytes) -> None:
    """Read a batch as it came, and again with a seal that fits its changed value: only then lines are looked at."""
    seal, signature, value = (
        raw[:SEAL_SIZE],
        raw[SEAL_SIZE : SEAL_SIZE + SIGNATURE_SIZE],
        raw[SEAL_SIZE + SIGNATURE_SIZE :],
    )
    for batch in (SealedBatch(value, seal, signature), _resealed(seal, value)):
        try:
            opened = open_batch(batch, _REGISTRY, generation=1, partition=0, append_ms=_APPEND_MS)
        except FormatError:
            continue
        assert opened.seal.encode() == batch.seal
        assert len(opened.lines) == opened.seal.count


def check_registry(raw: bytes) -> None:
    registry = Registry.parse(raw)
    assert Registry.parse(registry.encode()) == registry


def check_purposes(raw: bytes) -> None:
    purposes = Purposes.parse(raw.decode("utf-8", "replace"))
    assert isinstance(purposes.of("billing"), frozenset)


def _resealed(seal: bytes, value: bytes) -> SealedBatch:
    try:
        before = Seal.decode(seal)
    except FormatError:
        before = _SEAL
    count = min(max(value.count(b"\n"), 1), 1000)
    written = replace(before, count=count, value_sha256=sha256(value).digest(), signer_id=_SIGNER.signer_id).encode()
    return SealedBatch(value, written, _SIGNER.sign(SEALED_BATCH, written))


def _vectors(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def _all(name: str, field: str) -> list[Any]:
    document = _vectors(name)
    return [vector[field] for group in ("must_pass", "must_fail") for vector in document[group] if field in vector]


def _batches() -> list[bytes]:
    found = []
    for vector in _vectors("sealed_batch")["must_pass"]:
        headers = {name: bytes.fromhex(value) for name, value in vector["headers"]}
        found.append(
            headers["kt-seal"] + headers["kt-sig"] + vector["value"].encode() * min(vector.get("repeat", 1), 3)
        )
    return found


_REGISTRY: Final = Registry.parse(_vectors("sealed_batch")["registry"].encode())
_SIGNER: Final = Signer.from_private_bytes(bytes.fromhex(_vectors("registry")["private_keys"]["billing"]))
_APPEND_MS: Final = _vectors("sealed_batch")["must_pass"][0]["append_ms"]
_SEAL: Final = Seal.decode(_batches()[0][:SEAL_SIZE])
_BLOB: Final = build_blob(bytes(32), Suite.XAES_256_GCM, bytes(16), 1, Owner.tenant("t-88", "crm"))
_PURPOSES: Final = b'[[purpose]]\nid = "crm-sync"\nservices = ["billing"]\nbatch = true\n'


def targets() -> list[Target]:
    """Every parser of bytes that somebody else wrote."""
    lines = [line.encode() for line in _all("event", "line")]
    records = [bytes.fromhex(record) for record in _all("key_record", "record")]
    signed = [bytes.fromhex(vector["record"] + vector["signature"]) for vector in _vectors("key_record")["must_pass"]]
    approvals = [text.encode() for text in _all("approval", "json")]
    seeds: list[tuple[str, list[bytes], Callable[[bytes], None]]] = [
        ("envelope", [bytes.fromhex(text) for text in _all("envelope", "envelope")], check_envelope),
        ("owner", [bytes.fromhex(text) for text in _all("envelope", "owner_bytes")], check_owner),
        ("dek blob", [_BLOB, *(bytes.fromhex(text) for text in _all("dek_blob", "blob"))], check_blob),
        ("key record", records, check_record),
        ("signed record", signed, check_signed_record),
        ("approval", [SignedApproval.decode(approvals[0]).approval], check_approval),
        ("signed approval", approvals, check_signed_approval),
        ("event line", lines, check_line),
        ("event lines", [line + b"\n" for line in lines], check_lines),
        ("sealed batch", _batches(), check_batch),
        ("registry", [text.encode() for text in _all("registry", "text")], check_registry),
        ("purposes", [_PURPOSES], check_purposes),
    ]
    assert len(_BLOB) == BLOB_SIZE
    return [Target(name, tuple(raws), check) for name, raws, check in seeds]


_WORDS: Final = (
    *(b"null", b"true", b"-0", b"1e400", b"{}", b"[]", b'""', b"\\ud800", b"\\u0000", b"9" * 20, b"\xff\xfe", b"\n"),
    *(b'"v":1,', b'"type":"key",', b"[" * 200, b"\x00" * 8, b"\xff" * 8),
)


def change(raw: bytes, seeds: tuple[bytes, ...], chance: random.Random) -> bytes:
    """Change bytes in one to four places."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        way = chance.randrange(8)
        if way <= 1 and data:  # one bit
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif way == 2:
            data[at:at] = bytes([chance.randrange(256)])
        elif way == 3:
            del data[at : at + chance.randint(1, 16)]
        elif way == 4:
            data[at : at + chance.randint(0, 8)] = chance.choice(_WORDS)
        elif way == 5:
            data[at:at] = data[at : at + chance.randint(1, 64)]
        elif way == 6:
            data[at:] = chance.choice(seeds)[at:]
        elif data:
            data[at % len(data)] = chance.choice(b'\x00\x01\x7f\x80\xff"\\{}[],:0')
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Rate:
    """What came of one target."""

    name: str
    inputs: int
    read: int
    seconds: float


def run(target: Target, inputs: int, *, seed: int) -> Rate:
    """Try so many changed inputs.

    Raises:
        AssertionError: names the input that another error came of.
    """
    chance, started, read = random.Random(f"{target.name}{seed}"), time.monotonic(), 0
    for _ in range(inputs):
        raw = change(chance.choice(target.seeds), target.seeds, chance)
        read += try_one(target, raw)
    return Rate(target.name, inputs, read, time.monotonic() - started)


def try_one(target: Target, raw: bytes) -> bool:
    """Say whether it was read."""
    try:
        target.check(raw)
    except FormatError:
        return False
    except Exception as err:
        raise AssertionError(f"{target.name}: {type(err).__name__} of {raw.hex()}") from err
    return True


def guided(target: Target, inputs: int) -> None:
    """Let atheris choose the inputs; it ends the process."""
    import atheris  # noqa: PLC0415 - only here

    corpus = Path(os.environ["KEYTRAIL_FUZZ_CORPUS"])
    for place, raw in enumerate(target.seeds):
        (corpus / str(place)).write_bytes(raw)
    atheris.instrument_all()
    arguments = [sys.argv[0], str(corpus), f"-runs={inputs}", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup(arguments, lambda raw: try_one(target, raw))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    known = targets()
    each = -(-chosen.inputs // len(known))
    if chosen.target:
        guided(next(target for target in known if target.name == chosen.target), each)
    total = 0
    for target in known:
        rate = in_process(target, each) if chosen.atheris else run(target, each, seed=chosen.seed)
        total += rate.inputs
        read = "" if chosen.atheris else f"   {rate.read:8,} read"
        sys.stdout.write(f"{rate.name:16} {rate.inputs:9,} inputs   {rate.inputs / rate.seconds:9,.0f}/s{read}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{'all':16} {total:9,} inputs, no fault\n")
    return 0


def in_process(target: Target, inputs: int) -> Rate:
    """Fuzz one target in a process of its own, since atheris ends it."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - only here

    started = time.monotonic()
    command = [sys.executable, "-m", "tests.cryptocore.fuzz", "--atheris", "--target", target.name]
    with TemporaryDirectory(prefix="keytrail-fuzz-") as corpus:
        done = subprocess.run(
            [*command, "--inputs", str(inputs * len(targets()))],
            env=os.environ | {"KEYTRAIL_FUZZ_CORPUS": corpus},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{target.name}: {done.stdout}{done.stderr}")
    return Rate(target.name, inputs, 0, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
