"""batches.ndjson: sealed batches as a file, one a line, exactly as the log held them.

A line is `{"partition","append_ms","seal","sig","value"}`, the last three base64.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cryptocore.batch import SealedBatch
from streams.vaultlogs.hints import first_line, seems

_HEAD: Final = 4_096


class _Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    partition: int
    append_ms: int
    seal: str
    sig: str
    value: str


class KeptBatch(Struct, frozen=True):
    """One batch of a file; `line` counts from 1."""

    line: int
    partition: int
    append_ms: int
    batch: SealedBatch


class Unreadable(Struct, frozen=True):
    """A line that is no batch, or (`line` None) a file that holds none, and why."""

    line: int | None
    reason: str


_decode = msgspec.json.Decoder(_Line).decode


def write_batches(path: Path, batches: Iterable[tuple[int, int, SealedBatch]]) -> None:
    """Write (partition, append_ms, batch) in log order."""
    with path.open("wb") as file:
        for partition, append_ms, batch in batches:
            line = _Line(
                partition=partition,
                append_ms=append_ms,
                seal=_text(batch.seal),
                sig=_text(batch.signature),
                value=_text(batch.value),
            )
            file.write(msgspec.json.encode(line) + b"\n")


def read_batches(path: Path) -> Iterator[KeptBatch | Unreadable]:
    """Read a file line by line; what the batches themselves say is judged later, by the keys step.

    A file in which no line is a batch is refused as a whole, not line by line.
    """
    refused: list[Unreadable] = []
    with path.open("rb") as file:
        lines = ((number, raw) for number, raw in enumerate(file, start=1) if raw.strip())
        for number, raw in lines:
            found = _read(number, raw)
            if isinstance(found, KeptBatch):
                yield from refused
                yield found
                break
            refused.append(found)
        else:
            if refused:
                yield Unreadable(None, f"none of its lines ({len(refused):,}) is a sealed batch: {_kind(path)}")
            return
        for number, raw in lines:
            yield _read(number, raw)


def _read(number: int, raw: bytes) -> KeptBatch | Unreadable:
    try:
        line = _decode(raw)
        parts = [base64.b64decode(text, validate=True) for text in (line.value, line.seal, line.sig)]
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        return Unreadable(number, "not a line of batches.ndjson: cut short, edited, or of another kind of file")
    if not 0 <= line.partition < 2**16 or line.append_ms < 0:
        return Unreadable(number, "partition or append_ms out of range")
    return KeptBatch(number, line.partition, line.append_ms, SealedBatch(*parts))


def _kind(path: Path) -> str:
    """Say what the file is instead, and what to do with it."""
    seeming = seems(first_line(path))
    if seeming is not None:
        return f"seems to be {seeming}"
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b'"signers"' in head:
        return "seems to be a registry of signers, which --sources takes"
    if b'"operationName"' in head or b'"OperationName"' in head:
        return "seems to be a vault's log, which --vault-logs takes"
    return "give batches.ndjson, one batch a line (docs/formats.md)"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
