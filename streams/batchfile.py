"""batches.ndjson: sealed batches as a file, one a line, exactly as the log held them.

A line is `{"partition","append_ms","seal","sig","value"}`, the last three base64.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from cryptocore.batch import SealedBatch


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
    """A line that is no batch, and why."""

    line: int
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
    """Read a file line by line; what the batches themselves say is judged later, by the keys step."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                line = _decode(raw)
                parts = [base64.b64decode(text, validate=True) for text in (line.value, line.seal, line.sig)]
            except (msgspec.MsgspecError, binascii.Error, ValueError):
                yield Unreadable(number, "not a line of batches.ndjson")
                continue
            if not 0 <= line.partition < 2**16 or line.append_ms < 0:
                yield Unreadable(number, "partition or append_ms out of range")
                continue
            yield KeptBatch(number, line.partition, line.append_ms, SealedBatch(*parts))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
