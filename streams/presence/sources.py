"""The sources agent: is every instance heard, did everything arrive that it says it sent, and did it end in order?

It alone judges silence, gaps and truncation, from what the keys agents forward: control lines, the place of every
applied batch, and how far each partition has been read. Its clock is the broker's, and no later than the slowest
partition: what has not been read yet is not missing.
"""

from heapq import heappop, heappush
from typing import Final, Literal

import msgspec
from msgspec import Struct

from alerts.model import Evidence, Finding
from alerts.system import system_finding
from alerts.thresholds import HOUR_MS, Limits
from cryptocore.clock import parse_rfc3339
from cryptocore.errors import EventInvalid
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Heartbeat, decode_line
from cryptocore.registry import Registry
from streams import rejected
from streams.feeds.vaults import VaultDeclarations
from streams.findings import FindingBook
from streams.index.port import Document
from streams.joining import correlate
from streams.joining.matchrate import MatchWatch, Tallied
from streams.messages import CORRELATE, SOURCES, Effects, Message
from streams.presence.instances import Instance, Named, Status
from streams.presence.sightings import VaultSeen, VaultWatch
from streams.state import Kind, State

KEEP_MS: Final = 2 * HOUR_MS
"""How long an instance that ended is remembered."""

_REACH: Final = b"reach"


class Received(Struct, frozen=True, kw_only=True, tag_field="type", tag="received"):
    """A batch that was applied, and its place in the chain; `verdict` is the keys agent's (chains.Verdict)."""

    v: Literal[1] = 1
    source: str
    instance: str
    generation: int
    partition: int
    sequence: int
    digest: str
    count: int
    append_ms: int
    verdict: str


class Control(Struct, frozen=True, kw_only=True, tag_field="type", tag="control"):
    """A control line of a verified batch, as its sender wrote it."""

    v: Literal[1] = 1
    source: str
    instance: str
    generation: int
    partition: int
    sequence: int
    sealed_ms: int
    append_ms: int
    suspect: bool = False
    line: str


class Reached(Struct, frozen=True, kw_only=True, tag_field="type", tag="reached"):
    """All that a partition of `key-events` took before this append time has been applied."""

    v: Literal[1] = 1
    generation: int
    partition: int
    append_ms: int


Told = Received | Control | Reached | VaultSeen | Tallied

encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Told] = msgspec.json.Decoder(Told)


def decode(value: bytes) -> Told:
    """Read one message of the topic.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it was not written by a worker of ours.
    """
    return _decoder.decode(value)


class Reach(Struct):
    """How far each partition of the newest generation has been read, by append time."""

    generation: int = 0
    reached: dict[int, int] = {}


class SourcesStep:
    """The one partition of `sources`."""

    topic = SOURCES

    def __init__(self, *, registry: Registry, limits: Limits, declared: VaultDeclarations | None = None) -> None:
        self._registry = registry
        self._limits = limits
        self._book = FindingBook()
        self._vaults = None if declared is None else VaultWatch(declared, self._book)
        self._matches = MatchWatch(limits, self._book)
        self._due: list[tuple[int, bytes]] = []
        self._due_of: dict[bytes, int] = {}
        self._reach = Reach()

    def restore(self, state: State) -> None:
        self._book.restore(state)
        if self._vaults is not None:
            self._vaults.restore(state)
        self._matches.restore(state)
        self._due, self._due_of = [], {}
        for ident in state.idents(Kind.SOURCE):
            instance = state.get(Kind.SOURCE, ident, Instance)
            if instance is not None:
                self._schedule(ident, instance)
        self._reach = state.get(Kind.METER, _REACH, Reach) or Reach()

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        try:
            told = decode(message.value)
            line = decode_line(told.line.encode()) if isinstance(told, Control) else None
        except (msgspec.MsgspecError, UnicodeError, EventInvalid) as err:
            rejected.reject(message, "rejected", "value", type(err).__name__, now_ms, effects)
            return
        if isinstance(told, Reached):
            self._take_reached(told, state)
            return
        if isinstance(told, Tallied):
            self._matches.take(told, now_ms, state, effects)
            return
        if isinstance(told, VaultSeen):
            if self._vaults is not None:
                self._vaults.take(told, now_ms, state, effects)
            return
        ident = bytes.fromhex(told.instance)
        instance = state.get(Kind.SOURCE, ident, Instance) or Instance(told.source, heard_ms=told.append_ms)
        if instance.source != told.source:
            self._report_stranger(told, instance, now_ms, state, effects)
            return
        turn = _Turn(self._book, told.instance, instance, now_ms, state, effects)
        if isinstance(told, Received):
            _take_received(turn, told)
        elif line is not None and not isinstance(line, AuditEvent):
            _take_control(turn, told, line)
        _progress(turn)
        state.put(Kind.SOURCE, ident, instance)
        self._schedule(ident, instance)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        if self._vaults is not None:
            self._vaults.tick(now_ms, state, effects)
        self._matches.tick(now_ms, state, effects)
        self._book.tick(now_ms, state, effects)
        judged_ms = min([now_ms, *self._reach.reached.values()])
        while self._due and self._due[0][0] <= judged_ms:
            due_ms, ident = heappop(self._due)
            if self._due_of.get(ident) != due_ms:
                continue
            del self._due_of[ident]
            instance = state.get(Kind.SOURCE, ident, Instance)
            if instance is None:
                continue
            is_over = instance.ended and judged_ms - instance.ended_ms >= KEEP_MS
            if is_over or instance.source not in self._registry.sources():  # nobody misses whom nobody registered
                state.forget(Kind.SOURCE, ident)
                continue
            turn = _Turn(self._book, ident.hex(), instance, now_ms, state, effects)
            if instance.due_ms(self._limits) <= judged_ms:
                _judge_gaps(turn, judged_ms, self._limits)
                _judge_silence(turn, judged_ms, self._limits)
                state.put(Kind.SOURCE, ident, instance)
            self._schedule(ident, instance)

    def reindex(self, message: Message, effects: Effects) -> None:
        try:
            decode(message.value)
        except (msgspec.MsgspecError, UnicodeError) as err:
            rejected.document(message, "rejected", "value", type(err).__name__, effects)

    def redocument(self, state: State, effects: Effects) -> None:
        """Nothing here has a versioned document."""

    def indexed(self, document: Document, state: State) -> None:
        """Nothing here has a versioned document."""

    def _take_reached(self, told: Reached, state: State) -> None:
        """A new generation of the topic takes the place of the old one."""
        reach = self._reach
        if told.generation > reach.generation:
            reach = self._reach = Reach(told.generation)
        if told.generation == reach.generation:
            known_ms = reach.reached.get(told.partition, 0)
            reach.reached = dict(sorted({**reach.reached, told.partition: max(known_ms, told.append_ms)}.items()))
            state.put(Kind.METER, _REACH, reach)

    def _report_stranger(
        self, told: Received | Control, instance: Instance, now_ms: int, state: State, effects: Effects
    ) -> None:
        finding = system_finding(
            "source_mismatch",
            summary=f"{told.source} sends in the name of an instance of {instance.source}",
            effective_ms=told.append_ms,
            principal=told.source,
            who=f"{told.source}, instance {told.instance} of {instance.source}",
        )
        self._book.report(finding, now_ms, state, effects)

    def _schedule(self, ident: bytes, instance: Instance) -> None:
        due_ms = instance.ended_ms + KEEP_MS if instance.ended else instance.due_ms(self._limits)
        known_ms = self._due_of.get(ident)
        if known_ms is None or due_ms < known_ms:
            self._due_of[ident] = due_ms
            heappush(self._due, (due_ms, ident))


class _Turn:
    """One instance at hand, and where what is said of it goes."""

    __slots__ = ("_book", "_effects", "_now_ms", "_state", "ident", "instance")

    def __init__(  # noqa: PLR0917 - made in two places, a few lines above
        self, book: FindingBook, ident: str, instance: Instance, now_ms: int, state: State, effects: Effects
    ) -> None:
        self._book = book
        self.ident = ident
        self.instance = instance
        self._now_ms = now_ms
        self._state = state
        self._effects = effects

    def report(self, finding: Finding) -> None:
        self._book.report(finding, self._now_ms, self._state, self._effects)

    def retract(self, finding: Finding, explanation: str, hits: int | None = None) -> None:
        self._book.retract(finding, explanation, self._now_ms, self._state, self._effects, hits=hits)

    def send_progress(self, passed_ms: int, state: Literal["live", "closed", "silent"]) -> None:
        """Tell the join how far this instance is."""
        progress = correlate.Progress(
            v=1, source=self.instance.source, instance=self.ident, passed_ms=passed_ms, state=state
        )
        self._effects.broadcast(CORRELATE, correlate.encode(progress))

    def gap(self, summary: str, at_ms: int, evidence: tuple[Evidence, ...] = ()) -> Finding:
        return self._of_instance("audit_gap", summary, at_ms, evidence)

    def fork(self, summary: str, at_ms: int, evidence: tuple[Evidence, ...] = ()) -> Finding:
        return self._of_instance("chain_fork", summary, at_ms, evidence)

    def of_source(self, finding: str, summary: str, at_ms: int) -> Finding:
        """One fingerprint for all instances of a source: a service that fails as a whole is one cause."""
        source = self.instance.source
        who = f"{source}, instance {self.ident}"
        return system_finding(
            finding,
            summary=f"{source}: {summary}",
            effective_ms=at_ms,
            principal=source,
            who=who,
            facts={"instance": self.ident},
        )

    def _of_instance(self, finding: str, summary: str, at_ms: int, evidence: tuple[Evidence, ...]) -> Finding:
        source = self.instance.source
        return system_finding(
            finding,
            summary=f"{source}, instance {self.ident}: {summary}",
            effective_ms=at_ms,
            key=self.ident,
            principal=source,
            who=f"{source}, instance {self.ident}",
            evidence=evidence,
        )


def _take_received(turn: _Turn, told: Received) -> None:
    """Note a batch; a chain that does not begin at 0 is told at once, and a head of another digest is a fork."""
    instance = turn.instance
    if instance.receive(told.generation, told.partition, told.sequence, told.digest, told.verdict, told.append_ms):
        instance.gap_told += 1
        turn.report(turn.gap(f"its chain begins at number {told.sequence}", told.append_ms))
    for named in instance.pending:
        _compare(turn, named)


def _take_control(turn: _Turn, told: Control, line: ChainOpen | Heartbeat | ChainClose) -> None:
    """Take a control line.

    1. The word of a compromised signer counts for nothing but that somebody is there.
    2. What an instance wrote before its end and arrives after it changes nothing.
    3. An adopter answers for the chain from now on.
    4. Heads are waited for; those of a close are the last.
    """
    instance = turn.instance
    # 2
    if instance.status in (Status.CLOSING, Status.CLOSED):
        return
    if instance.status in (Status.SILENT, Status.UNCLOSED):
        _return(turn, told.append_ms)
    instance.heard_ms = max(instance.heard_ms, told.append_ms)
    # 1
    if told.suspect:
        return
    # 3
    if isinstance(line, ChainOpen):
        if line.continues is not None:
            instance.adopter, instance.adopted_ms = line.continues, told.append_ms
        return
    # 4
    unsent = line.oldest_unsent_at
    named = Named(
        line.id,
        told.append_ms,
        told.sealed_ms if unsent is None else min(parse_rfc3339(unsent) // 1000, told.sealed_ms),
        [(head.generation, head.partition, head.sequence, head.digest) for head in line.heads],
        isinstance(line, ChainClose),
    )
    if named.closing:
        instance.status, instance.ended_ms = Status.CLOSING, told.append_ms
    instance.wait_for(named)
    _compare(turn, named)


def _return(turn: _Turn, at_ms: int) -> None:
    """An instance that was given up is heard again, or its chain by its adopter."""
    instance = turn.instance
    for finding in instance.told:
        turn.retract(turn.of_source(finding, "", at_ms), f"instance {turn.ident} is heard again", hits=1)
    instance.told = []
    instance.status, instance.ended_ms = Status.LIVE, 0


def _compare(turn: _Turn, named: Named) -> None:
    """Hold the digests that are remembered against those named."""
    for generation, partition, sequence, digest in named.heads:
        held = turn.instance.digest(generation, partition, sequence)
        if held is not None and held != digest and not named.forked:
            named.forked = True
            summary = f"names another batch as number {sequence} of partition {partition} than the one received"
            turn.report(turn.fork(summary, named.at_ms, (Evidence("control", named.id, named.at_ms),)))


def _progress(turn: _Turn) -> None:
    """Say how far the instance is once all heads that it named have come; heal the gap that was told."""
    instance = turn.instance
    named = instance.settle()
    if named is not None:
        if named.closing:
            instance.status = Status.CLOSED
        if named.closing or named.passed_ms > instance.passed_ms:
            instance.passed_ms = max(named.passed_ms, instance.passed_ms)
            turn.send_progress(instance.passed_ms, "closed" if named.closing else "live")
    if instance.gap_told and not instance.pending and not instance.missing():
        turn.retract(turn.gap("", instance.heard_ms), "every batch that was missing has come")
        instance.gap_told = 0


def _judge_gaps(turn: _Turn, now_ms: int, limits: Limits) -> None:
    """Tell of batches that are missing too long, and give them up in the end."""
    instance = turn.instance
    since_ms, count = instance.waiting_since_ms(), max(instance.missing(), instance.behind())
    if since_ms is None:
        return
    if now_ms - since_ms >= limits.gap_lost_ms:
        evidence = tuple(Evidence("control", named.id, named.at_ms) for named in instance.pending[:1])
        lost = turn.gap(f"{count} batches are lost: waited for an hour", since_ms + limits.gap_lost_ms, evidence)
        turn.report(lost)
        instance.give_up()
        _progress(turn)
    elif now_ms - since_ms >= limits.head_received_ms and not instance.gap_told:
        evidence = tuple(Evidence("control", named.id, named.at_ms) for named in instance.pending[:1])
        instance.gap_told += 1
        turn.report(turn.gap(f"{count} batches did not come", since_ms + limits.head_received_ms, evidence))


def _judge_silence(turn: _Turn, now_ms: int, limits: Limits) -> None:
    """Tell of an instance that stopped reporting; an adopted one is its adopter's to finish."""
    instance = turn.instance
    if instance.status is Status.LIVE and not instance.adopter:
        silent_ms = instance.heard_ms + limits.heartbeat_ms * limits.silent_heartbeats
        if now_ms >= silent_ms:
            instance.status, instance.ended_ms = Status.SILENT, silent_ms
            instance.told.append("silent_source")
            turn.report(turn.of_source("silent_source", "an instance stopped reporting and did not say so", silent_ms))
            turn.send_progress(instance.passed_ms, "silent")
    elif instance.status in (Status.LIVE, Status.SILENT):
        unclosed_ms = max(instance.heard_ms, instance.adopted_ms) + limits.gap_lost_ms
        if now_ms >= unclosed_ms:
            instance.status, instance.ended_ms = Status.UNCLOSED, unclosed_ms
            instance.told.append("chain_unclosed")
            turn.report(
                turn.of_source("chain_unclosed", "an instance ended without a close; tail unknown", unclosed_ms)
            )
            turn.send_progress(instance.passed_ms, "silent")
