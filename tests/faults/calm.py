"""The same messages in a calm run, and what of its state can be compared with that of a storm."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from alerts.thresholds import MINUTE_MS
from cryptocore.registry import Registry
from streams.findings import OpenFinding
from streams.index.port import EventIndex
from streams.messages import REJECTED, Message
from streams.pipeline import steps
from streams.running.memory import MemoryShell
from streams.state import Kind, decode
from tests.faults.worker import LIMITS

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
    "instances",  # processes that were live when a use was judged: one begins or ends about then
}
"""Fields that tell of the pace of a run, not of its input."""


class Calm:
    """Everything in the order in which the log took it, a tick each second, no fault."""

    def __init__(self, registry: Registry, index: EventIndex, partitions: Mapping[str, int]) -> None:
        self._shell = MemoryShell(steps=steps(registry, LIMITS), partitions=partitions, index=index)
        self._now_ms = 0

    async def live(self, messages: Sequence[Message], end_ms: int) -> dict[tuple[str, int], dict[bytes, bytes]]:
        """Take messages of the inputs from outside until a moment; returns the states."""
        shell = self._shell
        ordered = sorted(messages, key=lambda one: (one.append_ms, one.topic, one.partition, one.offset))
        self._now_ms = ordered[0].append_ms
        for message in ordered:
            await self._tick_until(message.append_ms, 1_000)
            shell.append(
                message.topic,
                key=message.key,
                value=message.value,
                headers=message.headers,
                partition=message.partition,
                append_ms=message.append_ms,
            )
            await shell.run()
        await self._tick_until(end_ms, 1_000)
        return {owner.key: owner.state.dump() for owner in shell.owners}

    async def wait(self, time_ms: int) -> None:
        """Let time pass, a tick each minute."""
        await self._tick_until(self._now_ms + time_ms, MINUTE_MS)

    def rejected(self) -> list[bytes]:
        """The messages of the topic `rejected`."""
        return [message.value for message in self._shell.messages(REJECTED)]

    async def close(self) -> None:
        await self._shell.close()

    async def _tick_until(self, time_ms: int, every_ms: int) -> None:
        while time_ms >= self._now_ms + every_ms:
            self._now_ms += every_ms
            await self._shell.tick(self._now_ms)


def miscounted(states: Iterable[Mapping[bytes, bytes]], since_ms: int) -> list[str]:
    """Alerts that count otherwise than the agents that told them, of findings that were sent before that time."""
    records = [(Kind(key[0]), value) for state in states for key, value in state.items()]
    books = [decode(value, OpenFinding) for kind, value in records if kind is Kind.FINGERPRINT]
    sent = {known.finding_id: known.sent_count for known in books if known.sent_ms < since_ms}
    alerts = [decode(value) for kind, value in records if kind is Kind.ALERT]
    return [
        f"{alert['alert_id']}: {told[0]} of {ident}, and {sent[ident]} were sent"
        for alert in alerts
        for ident, told in alert.get("told", {}).items()
        if told[0] != sent.get(ident, told[0])
    ]


def comparable(state: Mapping[bytes, bytes]) -> dict[str, Any]:
    """A dumped state without positions, times and pace.

    How many hits an alert was told of goes with the pace: there is one message a minute, with the count that the agent
    keeps in its own state (`miscounted`). An alert is named by the finding that opened it, which is of the partition
    that was heard first where several tell of one cause: here it is named by its fingerprint.
    """
    records = {key: decode(value) for key, value in state.items() if key[0] not in {Kind.METER, Kind.POSITION}}
    alerts = [value for key, value in records.items() if key[0] == Kind.ALERT and "alert_id" in value]
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for alert in sorted(alerts, key=itemgetter("opened_ms")):
        seen[alert["fingerprint"]] += 1
        names[alert["alert_id"]] = f"alert {seen[alert['fingerprint']]} of {alert['fingerprint']}"
        alert["told"] = {ident: retracted for ident, (_, retracted) in alert["told"].items()}
    return {
        f"{Kind(key[0]).name}/{names.get(key[1:].hex(), key[1:].hex())}": _timeless(value, names)
        for key, value in records.items()
    }


def _timeless(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in PACE and not str(key).endswith("_ms")}
        return {key: _timeless(item, names) for key, item in kept.items()}
    if isinstance(value, list):
        return [_timeless(item, names) for item in value]
    if isinstance(value, int) and EARLIEST_MS < value < LATEST_MS:
        return "a time"
    return names.get(value, value) if isinstance(value, str) else value
