"""The agent of `key-events`: opens sealed batches, judges their chains, and takes their lines.

What a single event means is key_trail's; what becomes of a batch that is not applied is refusals'. Whether an instance
is silent or its trail has holes is judged by the sources agent, which gets every control line and every batch's place.
"""

from heapq import heappop, heappush
from itertools import starmap
from typing import Final

from alerts.model import Evidence
from alerts.system import system_finding
from alerts.thresholds import SECOND_MS, Limits
from cryptocore.batch import SEAL_HEADER, OpenedBatch, SealedBatch, open_batch
from cryptocore.errors import BatchRejected
from cryptocore.events import AuditEvent, Line, decode_line
from cryptocore.lines.plain_uses import PlainUse
from cryptocore.registry import Registry, Role
from streams import rejected
from streams.findings import FindingBook
from streams.index import documents
from streams.index.documents import BatchFragment
from streams.index.port import Document
from streams.messages import KEY_EVENTS, SOURCES, Effects, Message
from streams.presence import sources
from streams.state import Kind, State
from streams.trail.chains import FORGET_MS, Chain, Sealed, Taken, Verdict, expire, next_due_ms, shrink, take
from streams.trail.key_case import Batch
from streams.trail.key_trail import KeyTrail
from streams.trail.plain_trail import take_plain
from streams.trail.refusals import Meter, Reason, Refusals, Turn

REACHED_MS: Final = 10 * SECOND_MS
"""How often the sources agent is told how far this partition has been read."""
QUIET_MS: Final = 15 * SECOND_MS
"""Without a message for this long, the end of the log has been reached."""

METER: Final = b"keys"
_NEVER: Final = -1


class KeysStep:
    """One partition of `key-events`."""

    topic = KEY_EVENTS

    def __init__(self, *, registry: Registry, limits: Limits, generation: int, partition: int) -> None:
        self._registry = registry
        self._limits = limits
        self._generation = generation
        self._partition = partition
        self._book = FindingBook()
        self._trail = KeyTrail(limits, self._book)
        self._refusals = Refusals(registry, limits, self._book)
        self._key_signers = {
            source: tuple(
                signer for signer in registry.signers if signer.source == source and Role.KEYS in signer.roles
            )
            for source in registry.sources()
        }
        self._due: list[tuple[int, bytes]] = []
        self._due_of: dict[bytes, int] = {}
        self._refused: dict[int, Reason] = {}
        self._quiet_since_ms = _NEVER

    def restore(self, state: State) -> None:
        self._book.restore(state)
        self._trail.restore(state)
        self._due, self._due_of = [], {}
        for ident in state.idents(Kind.CHAIN):
            chain = state.get(Kind.CHAIN, ident, Chain)
            if chain is not None:
                self._schedule(ident, chain)
        self._refused = _meter(state).refused
        self._quiet_since_ms = _NEVER

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        """Take one message.

        1. Open the batch: seal, signer, signature, value, lines. What fails is rejected under its finding's name.
        2. Find its place: a repeat is counted and changes nothing, a fork or another source's chain is rejected.
        3. Say how far its sender's clock is believed.
        4. Take the lines: documents, control lines to the sources agent, events to the trail.
        5. Tell the sources agent of the batch, and how far this partition has been read.
        """
        self._quiet_since_ms = now_ms
        turn = Turn(message, now_ms, state, effects, _meter(state))
        state.put(Kind.METER, METER, turn.meter)
        try:
            # 1
            opened = self._open(message)
            # 2
            taken = self._place(turn, opened)
        except BatchRejected as err:
            self._refusals.reject(turn, err)
            taken = None
        if taken is not None:
            # 3
            batch = self._batch(turn, opened, taken)
            # 4
            self._take_lines(turn, opened, batch)
            # 5
            self._tell(turn, opened, batch, taken)
        self._refused = turn.meter.refused
        self._tell_reached(message.append_ms, turn.meter, effects)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        self._book.tick(now_ms, state, effects)
        self._trail.tick(now_ms, state, effects)
        while self._due and self._due[0][0] <= now_ms:
            due_ms, ident = heappop(self._due)
            if self._due_of.get(ident) == due_ms:
                del self._due_of[ident]
                self._settle(ident, now_ms, state)
        if self._quiet_since_ms == _NEVER:
            self._quiet_since_ms = now_ms
        if now_ms - self._quiet_since_ms >= QUIET_MS:
            meter = _meter(state)
            if self._tell_reached(now_ms, meter, effects):
                state.put(Kind.METER, METER, meter)

    def reindex(self, message: Message, effects: Effects) -> None:
        try:
            opened = self._open(message)
        except BatchRejected as err:
            rejected.document(message, err.finding, err.field, err.problem, effects)
            return
        refused = self._refused.get(message.offset)
        if refused is None:
            fragment = documents.batch_fragment(opened.seal, opened.digest, message.append_ms, opened.suspect)
            for line, raw in zip(opened.lines, opened.raw_lines, strict=True):
                build = documents.event_document if isinstance(line, AuditEvent) else documents.control_document
                effects.document(build(line, raw, batch=fragment))  # type: ignore[arg-type]
        elif refused[0]:
            rejected.document(message, *refused, effects)

    def redocument(self, state: State, effects: Effects) -> None:
        """Nothing here has a versioned document."""

    def indexed(self, document: Document, state: State) -> None:
        """Nothing here has a versioned document."""

    # 1, 2

    def _open(self, message: Message) -> OpenedBatch:
        """Open the batch; a seal of the right size that is none is an invalid one, as when its signature fails."""
        sealed = SealedBatch.from_headers(message.value, message.headers)
        try:
            return open_batch(
                sealed,
                self._registry,
                generation=self._generation,
                partition=self._partition,
                append_ms=message.append_ms,
            )
        except BatchRejected as err:
            if err.finding == "rejected" and err.field.startswith((SEAL_HEADER, "seal.")):
                raise BatchRejected("seal_invalid", err.field, err.problem) from err
            raise

    def _place(self, turn: Turn, opened: OpenedBatch) -> Taken | None:
        """Note the batch in its chain; None when it does not apply, and then it has been counted or rejected."""
        seal, source, meter = opened.seal, opened.signer.source, turn.meter
        ident = seal.instance + seal.generation.to_bytes(2, "big") + seal.partition.to_bytes(2, "big")
        chain = turn.state.get(Kind.CHAIN, ident, Chain) or Chain(source)
        if chain.source != source:
            problem = f"{source} continues a chain of {chain.source}"
            self._refusals.reject_opened(turn, BatchRejected("source_mismatch", "seal.instance", problem))
            return None
        append_ms = turn.message.append_ms
        taken = take(chain, Sealed(seal.sequence, opened.digest, seal.previous, seal.sealed_at_ms, append_ms))
        verdict = taken.verdict
        if verdict.applies:
            turn.state.put(Kind.CHAIN, ident, chain)
            self._schedule(ident, chain)
            meter.batches += 1
            meter.lost += taken.lost
            meter.late += verdict is Verdict.FILLS_GAP
            return taken
        if verdict is Verdict.FORK:
            problem = f"number {seal.sequence} of the chain is taken by another batch, or follows another one"
            self._refusals.reject_opened(turn, BatchRejected("chain_fork", "seal.previous", problem))
        else:
            meter.duplicates += verdict is Verdict.DUPLICATE
            meter.stale += verdict is Verdict.STALE
            self._refusals.repeat(turn)
        return None

    # 3

    def _batch(self, turn: Turn, opened: OpenedBatch, taken: Taken) -> Batch:
        """What the events share. A sender's clock counts only as far as the broker's and the chain allow."""
        limits, append_ms, sealed_ms = self._limits, turn.message.append_ms, opened.seal.sealed_at_ms
        batch = Batch(
            source=opened.signer.source,
            instance=opened.seal.instance.hex(),
            append_ms=append_ms,
            now_ms=turn.now_ms,
            earliest_ms=sealed_ms - limits.occurred_before_sealed_ms,
            latest_ms=sealed_ms + limits.occurred_after_sealed_ms,
            suspect=opened.suspect,
            changes_keys=any(signer.usable(Role.KEYS, append_ms) for signer in self._key_signers[opened.signer.source]),
            state=turn.state,
            effects=turn.effects,
        )
        if not taken.in_order:
            batch.clock_untrusted = "a batch is dated before the one it follows"
        elif sealed_ms > append_ms + limits.sealed_after_append_ms:
            batch.clock_untrusted = f"a batch is dated {sealed_ms - append_ms} ms after the broker took it"
        if batch.clock_untrusted:
            batch.earliest_ms, batch.latest_ms = append_ms + 1, append_ms
        return batch

    # 4

    def _take_lines(self, turn: Turn, opened: OpenedBatch, batch: Batch) -> None:
        """Take the lines in their order; runs of plain uses go the short way."""
        fragment = documents.batch_fragment(opened.seal, opened.digest, batch.append_ms, opened.suspect)
        meter, taken, out_of_range = turn.meter, turn.effects.documents, ""
        lines = zip(opened.read, opened.raw_lines, strict=True)
        while True:
            before = len(taken)
            left = take_plain(lines, batch, fragment, self._limits)
            meter.events += len(taken) - before
            if left is None:
                break
            read, raw = left
            line = decode_line(raw) if isinstance(read, PlainUse) else read
            document = self._take_line(turn, opened, batch, fragment, line, raw)
            if document is not None:
                taken.append(document)
                if document.day_ms == documents.OUT_OF_RANGE:
                    out_of_range = out_of_range or line.id
        if out_of_range:
            self._report(turn, batch, "out_of_range", "an event is dated outside the days that are kept", out_of_range)
        if batch.clock_untrusted:
            self._report(turn, batch, "clock_untrusted", batch.clock_untrusted)
        if batch.suspect:
            self._report(turn, batch, "signer_compromised", "a batch is signed with a key marked as compromised")

    def _take_line(  # noqa: PLR0917 - what belongs to the line is said by the batch
        self, turn: Turn, opened: OpenedBatch, batch: Batch, fragment: BatchFragment, line: Line, raw: bytes
    ) -> Document | None:
        """Take one line; returns its document unless it is a repeat."""
        meter = turn.meter
        if not isinstance(line, AuditEvent):
            meter.control += 1
            self._forward(turn, opened, batch, raw)
            return documents.control_document(line, raw, batch=fragment)
        if not self._trail.take(line, raw, batch):
            meter.repeats += 1
            return None
        meter.events += 1
        return documents.event_document(line, raw, batch=fragment)

    def _report(self, turn: Turn, batch: Batch, finding: str, summary: str, event_id: str = "") -> None:
        """Report something about a source; one fingerprint for all its instances."""
        evidence = (Evidence("event", event_id, batch.append_ms),) if event_id else ()
        found = system_finding(
            finding,
            summary=f"{batch.source}: {summary}",
            effective_ms=batch.append_ms,
            principal=batch.source,
            who=f"{batch.source}, instance {batch.instance}",
            evidence=evidence,
        )
        self._book.report(found, turn.now_ms, turn.state, turn.effects)

    # 5

    def _forward(self, turn: Turn, opened: OpenedBatch, batch: Batch, raw: bytes) -> None:
        seal = opened.seal
        control = sources.Control(
            source=batch.source,
            instance=batch.instance,
            generation=seal.generation,
            partition=seal.partition,
            sequence=seal.sequence,
            sealed_ms=seal.sealed_at_ms,
            append_ms=batch.append_ms,
            suspect=batch.suspect,
            line=raw.decode(),
        )
        turn.effects.send(SOURCES, seal.instance, sources.encode(control))

    def _tell(self, turn: Turn, opened: OpenedBatch, batch: Batch, taken: Taken) -> None:
        seal = opened.seal
        received = sources.Received(
            source=batch.source,
            instance=batch.instance,
            generation=seal.generation,
            partition=seal.partition,
            sequence=seal.sequence,
            digest=opened.digest.hex(),
            count=seal.count,
            append_ms=batch.append_ms,
            verdict=taken.verdict.value,
        )
        turn.effects.send(SOURCES, seal.instance, sources.encode(received))

    def _tell_reached(self, append_ms: int, meter: Meter, effects: Effects) -> bool:
        """Say that all that was appended before this time has been applied."""
        if append_ms - meter.reached_ms < REACHED_MS:
            return False
        meter.reached_ms = append_ms
        reached = sources.Reached(generation=self._generation, partition=self._partition, append_ms=append_ms)
        effects.send(SOURCES, None, sources.encode(reached))
        return True

    # Chains and the clock

    def _schedule(self, ident: bytes, chain: Chain) -> None:
        due_ms = next_due_ms(chain)
        known_ms = self._due_of.get(ident)
        if known_ms is None or due_ms < known_ms:
            self._due_of[ident] = due_ms
            heappush(self._due, (due_ms, ident))

    def _settle(self, ident: bytes, now_ms: int, state: State) -> None:
        """Give up missing batches of a chain, shrink it when idle, forget it at last."""
        chain = state.get(Kind.CHAIN, ident, Chain)
        if chain is None:
            return
        if now_ms - chain.seen_ms >= FORGET_MS:
            state.forget(Kind.CHAIN, ident)
            return
        lost = expire(chain, now_ms)
        shrunk = shrink(chain, now_ms)
        if lost:
            meter = _meter(state)
            meter.lost += sum(starmap(_length, lost))
            state.put(Kind.METER, METER, meter)
        if lost or shrunk:
            state.put(Kind.CHAIN, ident, chain)
        self._schedule(ident, chain)


def _meter(state: State) -> Meter:
    return state.get(Kind.METER, METER, Meter) or Meter()


def _length(first: int, last: int) -> int:
    return last - first + 1
