"""The same messages in a calm run, and what of its state can be compared with that of a storm."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from alerts.thresholds import Limits
from cryptocore.registry import Registry
from streams.index.port import EventIndex
from streams.memory import MemoryShell
from streams.messages import KEY_EVENTS, Message
from streams.pipeline import steps
from streams.state import Kind

EARLIEST_MS, LATEST_MS = 1_500_000_000_000, 2_500_000_000_000

PACE = {
    "sent_count",  # of a finding's message, and what it named: both go with the minute
    "evidence",
    "doc_indexed",
    "revision",  # of an alert's document
    "number",  # alerts are numbered as they come
    "notifications",
    "delivered",
    "owed",
    "notified_count",
    "duplicates",
}
"""Fields that tell of the pace of a run, not of its input."""


async def calm_run(
    messages: Sequence[Message], registry: Registry, index: EventIndex, *, partitions: Mapping[str, int], end_ms: int
) -> dict[tuple[str, int], dict[bytes, bytes]]:
    """Everything in the order in which the log took it, a tick each second, no fault; returns the states."""
    shell = MemoryShell(steps=steps(registry, Limits()), partitions=partitions, index=index)
    now_ms = messages[0].append_ms
    for message in sorted(messages, key=lambda one: (one.append_ms, one.partition, one.offset)):
        while message.append_ms >= now_ms + 1_000:
            now_ms += 1_000
            await shell.tick(now_ms)
        shell.append(
            KEY_EVENTS,
            key=message.key,
            value=message.value,
            headers=message.headers,
            partition=message.partition,
            append_ms=message.append_ms,
        )
        await shell.run()
    while now_ms < end_ms:
        now_ms += 1_000
        await shell.tick(now_ms)
    states = {owner.key: owner.state.dump() for owner in shell.owners}
    await shell.close()
    return states


def comparable(state: Mapping[bytes, bytes]) -> dict[str, Any]:
    """A dumped state without positions, times and pace."""
    return {
        f"{Kind(key[0]).name}/{key[1:].hex()}": _timeless(msgspec.json.decode(value[1:]))
        for key, value in state.items()
        if key[0] != Kind.METER
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in PACE and not key.endswith("_ms")}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    if isinstance(value, int) and EARLIEST_MS < value < LATEST_MS:
        return "a time"
    return value
