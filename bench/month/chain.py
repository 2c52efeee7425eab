"""One process of a service as the log sees it: lines sealed into its chains, heartbeats, an end in order or a crash."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from bench.month.acts import draw_uuid
from bench.month.plan import START_S
from cryptocore.batch import NO_PREVIOUS, Seal, SealedBatch, seal_batch
from cryptocore.clock import rfc3339
from cryptocore.events import (
    AuditEvent,
    ChainClose,
    ChainOpen,
    Durability,
    Head,
    Heartbeat,
    Line,
    Operation,
    Outcome,
    Phase,
    Reason,
    Tally,
    encode_line,
)
from cryptocore.partitions import partition_key, partition_of
from cryptocore.signing import Signer
from streams.simulated import DEPLOYMENT

PARTITIONS: Final = 2
GENERATION: Final = 1
LINGER_US: Final = 250_000
BEAT_US: Final = 30_000_000
_ZERO_US: Final = START_S * 1_000_000


class Sent(NamedTuple):
    """A batch and when the broker appended it."""

    append_ms: int
    order: int
    partition: int
    batch: SealedBatch


class Log:
    """The topic key-events, as a list in the order of append times."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def append(self, at_us: int, partition: int, batch: SealedBatch) -> None:
        self.sent.append(Sent((_ZERO_US + at_us) // 1000, len(self.sent), partition, batch))


class Process:
    """One instance. Times are microseconds from the start of the month; calls come in the order of time.

    Args:
        way_us: how long its batches are on the way to the broker.
        outage_us: from when to when it does not reach the broker.
    """

    def __init__(
        self,
        service: str,
        signer: Signer,
        draw: random.Random,
        log: Log,
        *,
        way_us: int,
        outage_us: tuple[int, int] = (0, 0),
    ) -> None:
        self.service = service
        self.instance = draw.randbytes(16)
        self._signer = signer
        self._draw = draw
        self._log = log
        self._way_us = way_us
        self._outage_us = outage_us
        self._heads: dict[int, Head] = {}
        self._tallies: Counter[tuple[Operation, Outcome]] = Counter()
        self._held: dict[int, list[bytes]] = {}
        self._due_us: dict[int, int] = {}
        self._beat_us = 0
        self._intents: dict[str, AuditEvent] = {}

    def open(self, at_us: int, *, adopts: "Process | None" = None) -> None:
        """Write the first line; an adopter finishes the other's chains first."""
        if adopts is not None:
            adopts.finish(at_us, self.instance)
        self._control(at_us, self._opened(at_us, None))
        self._beat_us = at_us + BEAT_US

    def say(self, at_us: int, lines: Iterable[AuditEvent]) -> None:
        """Commit events, after the heartbeats that were due before."""
        self.live(at_us)
        for line in lines:
            self._hold(at_us, line)
            if line.outcome is None:
                self._intents[line.id] = line
            else:
                self._tallies[line.operation, line.outcome] += 1
                self._intents.pop(line.intent_id or "", None)

    def live(self, until_us: int) -> None:
        """Let time pass: seal what waited long enough, and report every half minute."""
        while self._beat_us <= until_us:
            beat_us = self._beat_us
            self._flush(beat_us)
            self._control(beat_us, self._named(Heartbeat, beat_us))
            self._beat_us += BEAT_US
        self._flush(until_us)

    def close(self, at_us: int) -> None:
        """End in order."""
        self.live(at_us)
        self._flush(at_us + LINGER_US)
        self._control(at_us + LINGER_US, self._named(ChainClose, at_us + LINGER_US))

    def finish(self, at_us: int, adopter: bytes) -> None:
        """Seal what a dead process left in its spool, in the name of its adopter, and close its chains."""
        self._flush(at_us)
        self._control(at_us, self._opened(at_us, adopter))
        for intent in list(self._intents.values()):
            self._hold(at_us, self._unknown(at_us, intent))
        self._flush(at_us + LINGER_US)
        self._control(at_us + LINGER_US, self._named(ChainClose, at_us + LINGER_US))

    def _unknown(self, at_us: int, intent: AuditEvent) -> AuditEvent:
        """Nobody knows how the call of a dead process ended."""
        return replace(
            intent,
            id=draw_uuid(self._draw),
            phase=Phase.OUTCOME,
            outcome=Outcome.UNKNOWN,
            reason=Reason.CRASHED,
            occurred_at=rfc3339(_ZERO_US + at_us),
            intent_id=intent.id,
            call_ids=(),
        )

    def _opened(self, at_us: int, adopter: bytes | None) -> ChainOpen:
        return ChainOpen(
            id=draw_uuid(self._draw),
            at=rfc3339(_ZERO_US + at_us),
            service=self.service,
            durability=Durability.VOLUME,
            continues=None if adopter is None else adopter.hex(),
        )

    def _named(self, kind: type[Heartbeat] | type[ChainClose], at_us: int) -> Heartbeat | ChainClose:
        tallies = sorted(self._tallies.items())
        return kind(
            id=draw_uuid(self._draw),
            at=rfc3339(_ZERO_US + at_us),
            service=self.service,
            heads=tuple(self._heads.values()),
            tallies=tuple(Tally(operation=what, outcome=ended, count=count) for (what, ended), count in tallies),
            oldest_unsent_at=rfc3339(_ZERO_US + min(self._due_us.values()) - LINGER_US) if self._due_us else None,
        )

    def _hold(self, at_us: int, line: Line) -> None:
        partition = partition_of(partition_key(line, self.instance), PARTITIONS)
        self._held.setdefault(partition, []).append(encode_line(line))
        self._due_us.setdefault(partition, at_us + LINGER_US)

    def _control(self, at_us: int, line: Line) -> None:
        """Seal a control line at once, with what waits on its partition."""
        self._hold(at_us, line)
        self._seal(partition_of(self.instance, PARTITIONS), at_us)

    def _flush(self, until_us: int) -> None:
        for due_us, partition in sorted((due_us, partition) for partition, due_us in self._due_us.items()):
            if due_us <= until_us:
                self._seal(partition, due_us)

    def _seal(self, partition: int, at_us: int) -> None:
        del self._due_us[partition]
        raw, head = self._held.pop(partition), self._heads.get(partition)
        batch = seal_batch(
            b"".join(line + b"\n" for line in raw),
            count=len(raw),
            deployment=DEPLOYMENT,
            instance=self.instance,
            generation=GENERATION,
            partition=partition,
            sequence=0 if head is None else head.sequence + 1,
            previous=NO_PREVIOUS if head is None else bytes.fromhex(head.digest),
            sealed_at_ms=(_ZERO_US + at_us) // 1000,
            signer=self._signer,
        )
        seal = Seal.decode(batch.seal)
        self._heads[partition] = Head(
            generation=GENERATION, partition=partition, sequence=seal.sequence, digest=seal.digest.hex()
        )
        begin_us, end_us = self._outage_us
        arrives_us = (end_us if begin_us <= at_us < end_us else at_us) + self._way_us
        self._log.append(arrives_us, partition, batch)
