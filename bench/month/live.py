"""The month goes through all agents of the monitor over the log in memory, minute by minute."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Any, Final, NamedTuple

import msgspec

from alerts.model import Command
from alerts.thresholds import MINUTE_MS, Limits
from bench.month.acts import oid
from bench.month.chain import PARTITIONS
from bench.month.feed import Feed, arrivals
from bench.month.plan import DAY_S, START_S
from bench.month.told import TICK_S, Planted, Told
from bench.month.world import Month
from cryptocore.clock import parse_rfc3339
from streams.conduct.baseline_commands import command
from streams.index.port import DocKind, Document, Refused
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, VAULT_ACCESS, WHO
from streams.pipeline import steps
from streams.running.memory import MemoryShell
from streams.vaultlogs.messages import file_key, wrap

TAIL_MS: Final = 150 * MINUTE_MS
"""After the last act: the join's last look is an hour later, a tick of the repeats after that."""
RESOLVED_MS: Final = 90 * MINUTE_MS
"""A person closes the alert about a cut log this long after the repair: the calls of the last hour are judged then."""
_PERSON: Final = "user:on-call"


class Kept:
    """An index that keeps alerts, counts the uses of KEKs by how they were judged last, and lets the rest go."""

    def __init__(self) -> None:
        self.alerts: dict[str, Document] = {}
        self.written: Counter[str] = Counter()
        self._status: dict[str, str] = {}

    async def ensure(self) -> None:
        return

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        for document in documents:
            self.written[document.kind] += 1
            if document.kind is DocKind.ALERT:
                self.alerts[document.id] = document
            elif document.kind is DocKind.KEK_USE:
                self._status[document.id] = msgspec.json.decode(document.body)["status"]
        return []

    async def find(self, kind: DocKind, **_: Any) -> list[dict[str, Any]]:
        return [msgspec.json.decode(document.body) for document in self.alerts.values() if kind is DocKind.ALERT]

    async def count_by(self, kind: DocKind, fields: Sequence[str], **_: Any) -> dict[tuple[str, ...], int]:
        raise NotImplementedError

    async def close(self) -> None:
        return

    def uses(self) -> dict[str, int]:
        """How many uses of KEKs have which judgement."""
        return dict(sorted(Counter(self._status.values()).items()))


class Incoming(NamedTuple):
    """A message for the log; `order` settles ties."""

    at_ms: int
    order: int
    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What a month gave, how much went in, and the seconds of one core that it took."""

    month: Month
    alerts: list[dict[str, Any]]
    records: int
    batches: int
    written: Mapping[str, int]
    uses: Mapping[str, int]
    seconds: float

    def named(self, alert: dict[str, Any]) -> Told:
        """An alert as the month names it."""
        principal = alert["principal"] or ""
        return Told(alert["rule_id"], self.month.names.get(principal, principal), alert["key"] or "")


async def live(month: Month, seed: int, *, feed: Feed | None = None) -> Lived:
    """Live through a month."""
    began, index = time.process_time(), Kept()
    shell = MemoryShell(
        steps=steps(month.registry, Limits(), declared=month.declared),
        partitions={KEY_EVENTS: PARTITIONS, VAULT_ACCESS: 2, CORRELATE: 2, WHO: 2},
        index=index,
    )
    people = _People(month, shell, index)
    records = 0
    tick_ms = START_S * 1000
    for message in merge(_records(month, seed, feed or Feed()), _batches(month)):
        while tick_ms <= message.at_ms:
            await shell.run()
            await people.act(tick_ms)
            await shell.tick(tick_ms)
            tick_ms += TICK_S * 1000
        records += message.topic == VAULT_ACCESS
        shell.append(
            message.topic,
            key=message.key,
            value=message.value,
            headers=message.headers,
            partition=message.partition,
            append_ms=message.at_ms,
        )
    await shell.run()
    for later_ms in range(tick_ms, tick_ms + TAIL_MS, TICK_S * 1000):
        await shell.tick(later_ms)
    await shell.close()
    return Lived(
        month=month,
        alerts=sorted(await index.find(DocKind.ALERT), key=lambda alert: (alert["first_at"], alert["rule_id"])),
        records=records,
        batches=len(month.batches),
        written=index.written,
        uses=index.uses(),
        seconds=time.process_time() - began,
    )


def _records(month: Month, seed: int, feed: Feed) -> Iterator[Incoming]:
    for order, arrival in enumerate(arrivals(month.acts, seed, feed)):
        value = wrap(arrival.record, feed="month", resource_id=None, fetched_us=arrival.at_ms * 1000)
        yield Incoming(arrival.at_ms, order, VAULT_ACCESS, file_key(arrival.record), value)


def _batches(month: Month) -> Iterator[Incoming]:
    for sent in month.batches:
        headers, value = tuple(sent.batch.headers()), sent.batch.value
        yield Incoming(sent.append_ms, sent.order, KEY_EVENTS, None, value, headers, sent.partition)


class _People:
    """What people do: accept new levels, and close the alert about the cut log once it is put back."""

    def __init__(self, month: Month, shell: MemoryShell, index: Kept) -> None:
        self._accepts = list(month.accepted)
        self._repaired_ms = (START_S + int(month.repaired_s)) * 1000 + RESOLVED_MS
        self._shell = shell
        self._index = index

    async def act(self, now_ms: int) -> None:
        """Do what is due."""
        while self._accepts and (START_S + self._accepts[0][0]) * 1000 <= now_ms:
            _, who = self._accepts.pop(0)
            key, value = command("accept", oid(who), person=_PERSON, ident=f"c-{who}")
            self._shell.append(WHO, key=key, value=value, append_ms=now_ms)
        if self._repaired_ms <= now_ms < self._repaired_ms + TICK_S * 1000:
            for alert in await self._index.find(DocKind.ALERT):
                if alert["rule_id"] == "vault_logging_cut":
                    said = Command(id="resolved", act="resolve", alert_id=alert["alert_id"], person=_PERSON)
                    self._shell.append(FINDINGS, key=None, value=msgspec.json.encode(said), append_ms=now_ms)


def after_s(planted: Planted, alert: dict[str, Any]) -> float:
    """How long after the first act of an attack its alert was opened."""
    return parse_rfc3339(_six(alert["opened_at"])) / 1_000_000 - START_S - planted.at_s


def _six(text: str) -> str:
    """Milliseconds, as documents have them, in the form of six digits."""
    return text if len(text.partition(".")[2]) > 4 else f"{text[:-1]}000Z"


def day_of(alert: dict[str, Any]) -> float:
    """The day of the month in which an alert's first hit is."""
    return (parse_rfc3339(_six(alert["first_at"])) / 1_000_000 - START_S) / DAY_S
