"""`keytrail replay`: the pipeline over files. Arrival is the record's own time, so verdicts depend on event time only.

Vault records arrive when they say they happened, sealed batches when the log appended them; everything is sorted, with
a tick for every minute in which something can become due.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from alerts.thresholds import Limits
from cryptocore.batch import Seal
from cryptocore.clock import EPOCH
from cryptocore.errors import FormatError
from cryptocore.registry import Registry
from streams.index.port import EventIndex
from streams.joining.allowed import Allowed
from streams.messages import CORRELATE, KEY_EVENTS, REJECTED, VAULT_ACCESS
from streams.pipeline import steps
from streams.rejected import Rejected
from streams.rejected import decode as decode_rejected
from streams.replaying.batchfile import KeptBatch, Unreadable, read_batches
from streams.replaying.outfolder import OutFolder
from streams.replaying.outputs import Results, Totals, write, write_lines
from streams.running.memory import MemoryShell
from streams.running.meters import duplicates
from streams.simulated import NOTE, in_subscription
from streams.vaultlogs.files import FileRejected, read, wrap
from streams.vaultlogs.hints import explained
from streams.vaultlogs.normalise import normalise
from streams.vaultlogs.rejection import VaultRecordRejected

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
# The join looks again for the last time 60 min after a use; after that, nothing is due before the next arrival.
_DUE_FOR_MS = 80 * _MINUTE_MS
# Batches speak for this much time before their first seal and after their last append.
_MARGIN_MS = 2 * _MINUTE_MS
_VAULT_PARTITIONS = 1
# Nobody was there to look: an alert that files raise does not close by itself when time in them runs on.
_FOREVER_MS = 100 * 365 * 24 * 60 * _MINUTE_MS
NOT_EVALUATED = (
    "KEK uses were not evaluated: without application events nobody can say whether a use was yours. "
    "Add --batches and --sources."
)
NO_BATCH_READ = "KEK uses were not evaluated: of the batches that were given, none could be read."


class Arrival(NamedTuple):
    """One message and when it arrives; ties keep the order of the input."""

    at_ms: int
    order: int
    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    partition: int | None
    file: str
    line: int | None


@dataclass
class Input:
    """What was read from files, sorted by arrival on demand, and what could not be read."""

    arrivals: list[Arrival] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    partitions: int = 1
    generation: int = 1
    sealed_ms: tuple[int, int] | None = None
    batch_files: int = 0
    simulated: bool = False

    def reject(self, file: str, line: int | None, reason: str) -> None:
        self.rejected.append({"file": file, "line": line, "reason": reason})

    def add(
        self,
        at_ms: int,
        topic: str,
        value: bytes,
        *,
        file: str,
        line: int | None,
        key: bytes | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
        partition: int | None = None,
    ) -> None:
        self.arrivals.append(Arrival(at_ms, len(self.arrivals), topic, key, value, headers, partition, file, line))


def read_vault_logs(paths: Iterable[Path], into: Input) -> None:
    """Read files and folders of vault logs; what is not understood is rejected with file and line."""
    for found in read(paths):
        if isinstance(found, FileRejected):
            into.reject(str(found.path), found.line, explained(found.path, found.line, found.reason))
            continue
        try:
            access = normalise(found.original)
        except VaultRecordRejected as problem:
            into.reject(str(found.path), found.line, _ours(found.original) or str(problem))
            continue
        into.simulated = into.simulated or in_subscription(access.resource_id)
        value = wrap(found.original, feed="files", resource_id=access.resource_id or "", fetched_us=access.time_us)
        into.add(
            access.time_us // 1000,
            VAULT_ACCESS,
            value,
            key=f"{access.vault or ''}/{access.object_name or ''}".encode(),
            file=str(found.path),
            line=found.line,
        )


def _ours(original: dict[str, Any]) -> str | None:
    """Say what a line of our own files is: whoever gives a folder of ours as logs meant one part of it."""
    if original.keys() >= {"seal", "sig", "value"}:
        return "a sealed batch: give this file with --batches"
    if original.keys() & {"alert_id", "access_id", "kek_use"}:
        return "a result of keytrail, no record of a vault: give the folder vault-logs"
    return None


def read_batch_files(paths: Iterable[Path], into: Input) -> None:
    """Read files of sealed batches; whether a batch is to be believed is the pipeline's to say."""
    for path in paths:
        into.batch_files += 1
        for found in read_batches(path):
            if isinstance(found, Unreadable):
                into.reject(str(path), found.line, found.reason)
                continue
            _add_batch(found, str(path), into)


def _add_batch(found: KeptBatch, path: str, into: Input) -> None:
    into.partitions = max(into.partitions, found.partition + 1)
    into.add(
        found.append_ms,
        KEY_EVENTS,
        found.batch.value,
        headers=tuple(found.batch.headers()),
        partition=found.partition,
        file=path,
        line=found.line,
    )
    try:
        sealed_ms = Seal.decode(found.batch.seal).sealed_at_ms
    except FormatError:
        return  # the keys step names what is wrong with it
    first, last = into.sealed_ms or (sealed_ms, found.append_ms)
    into.sealed_ms = (min(first, sealed_ms), max(last, found.append_ms))


def keep(
    out: OutFolder, vault_logs: Sequence[Path], batches: Sequence[Path], sources: Path | None, allowed: Path | None
) -> None:
    """Copy what was read into the results, so that they can be replayed by themselves."""
    if vault_logs:
        out.copy_vault_logs(vault_logs)
    if batches:
        out.concatenate(batches, "batches.ndjson")
    for file, name in ((sources, "sources.json"), (allowed, "allowed.toml")):
        if file is not None:
            out.copy(file, name)


def week_to_report(source: Input, alerts: list[dict[str, Any]]) -> str:
    """Return the ISO week of the last alert, or of the last arrival where there is none."""
    if alerts:
        last = datetime.fromisoformat(max(alert["last_at"] for alert in alerts))
    else:
        last = EPOCH + timedelta(milliseconds=max(arrival.at_ms for arrival in source.arrivals))
    return f"{last:%G-W%V}"


def other_weeks(source: Input, reported: str) -> list[str]:
    """Return the ISO weeks in which something arrived, without the one that the report is about, oldest first."""
    days = {arrival.at_ms // _DAY_MS for arrival in source.arrivals}
    return sorted({f"{EPOCH + timedelta(days=day):%G-W%V}" for day in days} - {reported})


async def replay(
    source: Input, registry: Registry, index: EventIndex, out: OutFolder, *, allowed: Allowed | None = None
) -> Results:
    """Run the pipeline over what was read and write the result into `out`.

    Returns:
        What was written; `rejected` counts what was not read and what the pipeline did not accept.
    """
    with_batches = source.sealed_ms is not None
    joined = (source.sealed_ms[0] - _MARGIN_MS, source.sealed_ms[1] + _MARGIN_MS) if source.sealed_ms else None
    shell = MemoryShell(
        steps=steps(registry, Limits(quiet_ms=_FOREVER_MS), evaluate=with_batches, joined_ms=joined, allowed=allowed),
        partitions={KEY_EVENTS: source.partitions, VAULT_ACCESS: _VAULT_PARTITIONS, CORRELATE: _VAULT_PARTITIONS},
        index=index,
    )
    origins = await _feed(shell, sorted(source.arrivals))
    for message in shell.messages(REJECTED):
        source.rejected.append(_rejection(decode_rejected(message.value), origins))
    emitted = sum(_key_lines(each.value) for each in source.arrivals if each.topic == KEY_EVENTS)
    totals = Totals(emitted=emitted, rejected=len(source.rejected), **duplicates(shell.owners))
    await shell.close()
    write_lines(out.file("rejected.ndjson"), source.rejected)
    return await write(out, index, totals, notes=_notes(source))


def _notes(source: Input) -> list[str]:
    notes = [NOTE] if source.simulated else []
    if source.sealed_ms is not None:
        return notes
    return [*notes, NO_BATCH_READ if source.batch_files else NOT_EVALUATED]


async def _feed(shell: MemoryShell, arrivals: list[Arrival]) -> dict[tuple[str, int, int], Arrival]:
    """Give the shell every message in its order, and let time pass between them; returns where each one came from."""
    origins: dict[tuple[str, int, int], Arrival] = {}
    now_ms = arrivals[0].at_ms if arrivals else 0
    for at_ms, together in groupby(arrivals, key=lambda arrival: arrival.at_ms):
        await _pass(shell, now_ms, at_ms)
        now_ms = at_ms
        for each in together:
            partition = 0 if each.partition is None else each.partition
            offset = shell.append(
                each.topic, key=each.key, value=each.value, headers=each.headers, partition=partition, append_ms=at_ms
            )
            origins[each.topic, partition, offset] = each
        await shell.run()
    if arrivals:
        await _pass(shell, now_ms, now_ms + _DUE_FOR_MS)
    return origins


async def _pass(shell: MemoryShell, start_ms: int, end_ms: int) -> None:
    """Tick each minute while something can be due; the rest of a longer silence is one step."""
    for minute in range(start_ms // _MINUTE_MS + 1, min(end_ms, start_ms + _DUE_FOR_MS) // _MINUTE_MS + 1):
        await shell.tick(minute * _MINUTE_MS)
    await shell.tick(end_ms)


class _Type(Struct, frozen=True):
    """The one field of a line that counting needs."""

    type: str = ""


_type_of = msgspec.json.Decoder(_Type).decode


def _key_lines(value: bytes) -> int:
    """Count the lines of a batch that are key events by their own word."""
    count = 0
    for line in value.splitlines():
        try:
            count += _type_of(line).type == "key"
        except msgspec.MsgspecError:
            continue  # the batch is rejected as a whole, with its place
    return count


def _rejection(record: Rejected, origins: dict[tuple[str, int, int], Arrival]) -> dict[str, Any]:
    """Name file and line of a message that the pipeline did not accept."""
    origin = origins.get((record.topic, record.partition, record.offset))
    place = {"file": None, "line": None} if origin is None else {"file": origin.file, "line": origin.line}
    said = f"{record.field}: {record.problem}"
    return place | {"reason": said if record.topic == VAULT_ACCESS else f"{record.finding}: {said}"}
