"""What the sources agent knows of one process of a service: its chains, the heads it named, and how it stands."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from alerts.thresholds import Limits
from streams.trail.chains import Verdict

MAX_PENDING: Final = 16
"""Heartbeats with heads still to come; beyond them the oldest, which the clock goes by, and the newest are kept."""
MAX_DIGESTS: Final = 4
"""Digests remembered of each chain, to be compared with the heads that are named."""

Head = tuple[int, int, int, str]
"""Generation, partition, sequence, digest."""


class Status(StrEnum):
    """How an instance stands. A closing one has written its last line, and something of it is still to come."""

    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"
    SILENT = "silent"
    UNCLOSED = "unclosed"


class Seen(Struct, array_like=True):
    """One chain: all numbers up to `upto` have come or are given up, and beyond it the ranges in `beyond`."""

    generation: int
    partition: int
    upto: int = -1
    beyond: list[tuple[int, int]] = []
    gap_ms: int = 0
    digests: list[tuple[int, str]] = []

    def add(self, sequence: int, append_ms: int) -> None:
        """Take a number into account, and join ranges that now touch."""
        if sequence <= self.upto:
            return
        ranges = sorted([*self.beyond, (sequence, sequence)])
        upto = self.upto
        beyond: list[tuple[int, int]] = []
        for first, last in ranges:
            if first <= upto + 1:
                upto = max(upto, last)
            elif beyond and first <= beyond[-1][1] + 1:
                beyond[-1] = (beyond[-1][0], max(beyond[-1][1], last))
            else:
                beyond.append((first, last))
        if beyond and not self.beyond:
            self.gap_ms = append_ms
        self.upto, self.beyond = upto, beyond

    def missing(self) -> int:
        """How many numbers lie between those that came."""
        if not self.beyond:
            return 0
        came = sum(last - first + 1 for first, last in self.beyond)
        return self.beyond[-1][1] - self.upto - came


class Named(Struct, array_like=True):
    """The heads that one control line named, when the broker took it, and what has passed once they are here."""

    id: str
    at_ms: int
    passed_ms: int
    heads: list[Head]
    closing: bool = False
    forked: bool = False


class Instance(Struct, array_like=True):
    """One process. All `_ms` are append times, but `passed_ms`, which is the sender's.

    `told` names the findings that are open because of it, `gap_told` counts hits of `audit_gap` that are.
    """

    source: str
    status: Status = Status.LIVE
    heard_ms: int = 0
    ended_ms: int = 0
    passed_ms: int = 0
    adopter: str = ""
    adopted_ms: int = 0
    chains: list[Seen] = []
    pending: list[Named] = []
    gap_told: int = 0
    told: list[str] = []

    @property
    def ended(self) -> bool:
        """Nothing more is expected of it."""
        return self.status in (Status.CLOSED, Status.UNCLOSED)

    def receive(  # noqa: PLR0917 - one message, field by field
        self, generation: int, partition: int, sequence: int, digest: str, verdict: str, append_ms: int
    ) -> bool:
        """Note a batch; True when its chain, new here, does not begin at 0 although nobody saw the beginning."""
        seen = self._chain(generation, partition)
        headless = False
        if seen is None:
            seen = Seen(generation, partition)
            headless = verdict == Verdict.FIRST_ABOVE_ZERO
            if sequence and not headless:
                seen.upto = sequence  # it was known, ended, and was forgotten here
            self.chains = sorted([*self.chains, seen], key=lambda chain: (chain.generation, chain.partition))
        seen.add(sequence, append_ms)
        seen.digests = [*seen.digests, (sequence, digest)][-MAX_DIGESTS:]
        return headless

    def digest(self, generation: int, partition: int, sequence: int) -> str | None:
        """The digest of a batch that came lately."""
        seen = self._chain(generation, partition)
        return None if seen is None else dict(seen.digests).get(sequence)

    def wait_for(self, named: Named) -> None:
        self.pending = [*self.pending, named]
        if len(self.pending) > MAX_PENDING:
            self.pending = [self.pending[0], *self.pending[-MAX_PENDING + 1 :]]

    def settle(self) -> Named | None:
        """Drop the heads that have come, and all named before; return the newest of them."""
        for place in range(len(self.pending) - 1, -1, -1):
            named = self.pending[place]
            if not self._behind(named):
                self.pending = self.pending[place + 1 :]
                return named
        return None

    def missing(self) -> int:
        """How many batches are missing inside the chains."""
        return sum(seen.missing() for seen in self.chains)

    def behind(self) -> int:
        """How many batches beyond the chains were named."""
        return max((self._behind(named) for named in self.pending), default=0)

    def waiting_since_ms(self) -> int | None:
        """Since when something has been missing."""
        since = [seen.gap_ms for seen in self.chains if seen.beyond] + [named.at_ms for named in self.pending[:1]]
        return min(since, default=None)

    def give_up(self) -> None:
        """Stop waiting for what is missing: the heads named count as come."""
        for named in self.pending:
            for generation, partition, sequence, _ in named.heads:
                seen = self._chain(generation, partition)
                if seen is None:
                    seen = Seen(generation, partition)
                    self.chains = sorted([*self.chains, seen], key=lambda chain: (chain.generation, chain.partition))
                seen.upto = max(seen.upto, sequence)
        for seen in self.chains:
            if seen.beyond:
                seen.upto, seen.beyond = max(seen.upto, seen.beyond[-1][1]), []
        self.gap_told = 0

    def due_ms(self, limits: Limits) -> int:
        """When the clock will next have something to say."""
        due = []
        since_ms = self.waiting_since_ms()
        if since_ms is not None:
            due.append(since_ms + (limits.gap_lost_ms if self.gap_told else limits.head_received_ms))
        if self.status is Status.LIVE and not self.adopter:
            due.append(self.heard_ms + limits.heartbeat_ms * limits.silent_heartbeats)
        elif self.status in (Status.LIVE, Status.SILENT):
            due.append(max(self.heard_ms, self.adopted_ms) + limits.gap_lost_ms)
        return min(due, default=self.ended_ms + limits.gap_lost_ms)

    def _chain(self, generation: int, partition: int) -> Seen | None:
        for seen in self.chains:
            if seen.partition == partition and seen.generation == generation:
                return seen
        return None

    def _behind(self, named: Named) -> int:
        """How many batches are still to come up to the heads that were named."""
        count = 0
        for generation, partition, sequence, _ in named.heads:
            seen = self._chain(generation, partition)
            upto = -1 if seen is None else seen.upto
            inside = (
                0
                if seen is None
                else sum(min(last, sequence) - first + 1 for first, last in seen.beyond if first <= sequence)
            )
            count += max(0, sequence - upto - inside)
        return count
