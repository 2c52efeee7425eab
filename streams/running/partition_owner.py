"""One input partition on one worker: its state, its positions, and the cut that commits both.

The owner is made afresh for every assignment, calls the step, and decides what may leave when: messages for other
topics go with the cut, versioned documents and deliveries after it, append-only documents at once, because they are a
function of the message alone. Which messages arrive, and when a cut or a tick is due on the machine's clock, is the
shell's (`app` on Kafka, `memory` in one process).
"""

from collections.abc import Callable, Sequence
from typing import Final

from alerts.model import Finding, Notification
from alerts.system import system_finding
from streams import rejected
from streams.findings import FindingBook
from streams.index.port import Document
from streams.index.writer import IndexWriter, OwnerKey
from streams.log.statelog import Position, StateLog
from streams.messages import FINDINGS, REJECTED, Effects, Message, Out, Step
from streams.running.documents_out import DocumentsOut
from streams.running.offsets import Expected, Place
from streams.running.owed import Deliver, DeliveringStep, Owed
from streams.state import State

REFUSED: Final = "document_refused"
CUT_AFTER_S: Final = 1.0
"""A cut is due this long after the first change (design: cut)."""
URGENT_CUT_AFTER_S: Final = 0.1
"""With a finding or a delivery waiting, a cut is due this long after the last one."""


class PartitionOwner:
    """State, positions and pending output of one input partition, from one assignment to the next."""

    def __init__(
        self,
        step: Step,
        partition: int,
        *,
        log: StateLog,
        index: IndexWriter,
        monotonic: Callable[[], float],
        deliver: Deliver | None = None,
        markers: bool = False,
    ) -> None:
        self.key: OwnerKey = (step.topic, partition)
        self.step = step
        self._delivering = step if isinstance(step, DeliveringStep) else None
        self.now_ms = 0
        self.cuts = 0
        self.rejections = self.revocations = 0
        """Messages that this owner has put into the topic `rejected`, and revocations that its step has taken."""
        self.committed_s = monotonic()
        self.state = State()
        self._log = log
        self._documents = DocumentsOut(self.key, index)
        self._monotonic = monotonic
        self._markers = markers
        self._expected = Expected(0, markers=markers)
        self._committed = Position(applied=0, indexed=0, now_ms=0)
        self._book = FindingBook(self.key[1])
        self._effects = Effects()
        self._outs: list[Out] = []
        self._after_cut: list[Document] = []
        self._owed = Owed(deliver, monotonic)
        self._owing = 0
        self._dirty_s: float | None = None
        self._urgent = False
        self._cutting_s: float | None = None
        self.closed = False

    # Positions

    @property
    def waiting_s(self) -> float:
        """Seconds since the oldest change that is not committed."""
        oldest = self._dirty_s if self._cutting_s is None else self._cutting_s
        return 0.0 if oldest is None else self._monotonic() - oldest

    @property
    def applied(self) -> int:
        """The offset that must come next."""
        return self._expected.next

    @property
    def indexed(self) -> int:
        """Below this offset every document is in the index."""
        return self._documents.progress.indexed

    @property
    def skipped(self) -> int:
        """Messages that came although they were applied already."""
        return self._expected.behind

    @property
    def gaps(self) -> int:
        """Holes in the log that were asked for and are not there."""
        return self._expected.gaps

    @property
    def again(self) -> tuple[int, int] | None:
        """Offsets [start, end) that the shell shall read once more for `reread`."""
        return self._documents.progress.again

    @property
    def dirty(self) -> bool:
        return self._dirty_s is not None

    @property
    def cutting(self) -> bool:
        return self._cutting_s is not None

    @property
    def owes(self) -> bool:
        """Whether a committed delivery is due."""
        return self._owed.next() is not None

    # Taking over and letting go

    async def open(self, log_start: int = 0) -> None:
        """Take the partition over from whoever had it, and read its state back.

        `log_start`, the first offset that the log still has, is where a partition begins that has no position yet.
        """
        position = await self._log.open(self.state)
        if position is None:
            position = Position(applied=log_start, indexed=log_start, now_ms=0)
        self._committed = position
        self._expected = Expected(position.applied, markers=self._markers)
        self._documents.open(position)
        self.now_ms = position.now_ms
        self.step.restore(self.state)
        self.redocument()
        self._owed.replace(self._owed_now())
        self._note_owing()
        self.committed_s = self._monotonic()

    def release(self) -> None:
        """Stop being the owner, at once: what is not cut will be applied again by the next one."""
        if not self.closed:
            self.closed = True
            self._documents.close()

    async def close(self) -> None:
        """Let go without a commit."""
        self.release()
        await self._log.close()

    # What changes the state

    def apply(self, message: Message) -> Place:
        """Give the message to the step when it is the next one."""
        place = self._expected.judge(message.offset)
        if place is Place.NEXT:
            self.now_ms = max(self.now_ms, message.append_ms)
            self._documents.generation = message.generation
            self.step.apply(message, self.now_ms, self.state, self._effects)
            self._take(message)
        return place

    def tick(self, now_ms: int) -> None:
        """Let time pass; costs next to nothing when the step has nothing due."""
        if now_ms < self.now_ms:
            return
        self.now_ms = now_ms
        state, effects = self.state, self._effects
        before = state.pending
        self.step.tick(now_ms, state, effects)
        if effects.out or effects.documents or state.pending != before:
            self._take()

    def report(self, finding: Finding) -> None:
        """Report what the shell itself found, in the state of this partition."""
        self._book.report(finding, self.now_ms, self.state, self._effects)
        self._take()

    def tick_reports(self) -> None:
        """Repeat the shell's findings when they are due; after a takeover those that the shell still sees."""
        self._book.tick(self.now_ms, self.state, self._effects)
        if self._effects.out:
            self._take()

    def _take(self, message: Message | None = None) -> None:
        """Sort what the step asked for: what leaves at once, what waits for the cut."""
        effects = self._effects
        if effects.out:
            topics = [out.topic for out in effects.out]
            self._urgent = self._urgent or FINDINGS in topics
            self.rejections += topics.count(REJECTED)
            self._outs += effects.out
            effects.out = []
        self.revocations = effects.revocations
        documents = effects.documents
        if documents:
            effects.documents = []
        if message is None:
            self._after_cut += documents
        else:
            versioned = [document for document in documents if document.version]
            if versioned:
                self._after_cut += versioned
                documents = [document for document in documents if not document.version]
            self._give(documents)
        self._note_owing()
        if self._dirty_s is None:
            self._dirty_s = self._monotonic()

    def _note_owing(self) -> None:
        """A delivery that nobody owed before makes the cut that allows it urgent."""
        if self._delivering is not None:
            owing = self._delivering.owing()
            self._urgent = self._urgent or owing > self._owing
            self._owing = owing

    def _give(self, documents: list[Document]) -> None:
        self._documents.give(self.applied - 1, documents)

    # Documents on their way to the index

    def written(self, document: Document) -> None:
        """Note that the index holds this versioned document."""
        self.step.indexed(document, self.state)

    def settle(self) -> None:
        """Take the writer's word on what became of documents."""
        for message, kind, reason in self._documents.refused(self.now_ms):
            rejected.reject(message, REFUSED, kind, reason, self.now_ms, self._effects)
            topic, _ = self.key
            summary = f"the index refused a document of kind {kind} for good: {reason}"
            self.report(system_finding(REFUSED, summary=summary, effective_ms=self.now_ms, key=topic))
        self._documents.advance(self.applied)
        if self._dirty_s is None and (self.state.changed or self.indexed != self._committed.indexed):
            self._dirty_s = self._monotonic()

    def reread(self, messages: Sequence[Message], until: int) -> bool:
        """Give the writer the documents of messages once more; all below `until` have been read.

        Returns False when the writer has no room; what it did not take is still in `again`.
        """
        return self.closed or self._documents.reread(self.step, messages, until)

    def redocument(self) -> None:
        """Write documents of state records again that the index has not confirmed (after an outage)."""
        effects = Effects()
        self.step.redocument(self.state, effects)
        self._give(effects.documents)

    # The cut

    def cut_due(self) -> bool:
        """Whether it is time to cut: a second after the first change, sooner when a finding or a delivery waits."""
        if self._dirty_s is None or self._cutting_s is not None or self.closed:
            return False
        now_s = self._monotonic()
        if self._urgent and now_s - self.committed_s >= URGENT_CUT_AFTER_S:
            return True
        return now_s - self._dirty_s >= CUT_AFTER_S

    async def cut(self) -> bool:
        """Commit changed records, waiting messages and the position in one transaction; False if nothing to do.

        Messages may be applied while the commit is under way; they belong to the next cut. An error leaves this owner
        without a right to go on: its memory is ahead of the log, so the shell must drop it or end the process.

        Raises:
            Fenced: somebody else owns the partition.
        """
        if self._dirty_s is None or self._cutting_s is not None:
            return False
        self._cutting_s = self._dirty_s  # stays so after an error
        self._documents.advance(self.applied)
        skip = tuple(sorted(self._documents.progress.skip))
        position = Position(applied=self.applied, indexed=self.indexed, skip=skip, now_ms=self.now_ms)
        changes = self.state.cut()
        outs, self._outs = self._outs, []
        documents, self._after_cut = self._after_cut, []
        owed = self._owed_now()
        self._owed.begin()
        self._dirty_s, self._urgent = None, False
        await self._log.commit(changes, position, outs)
        self._cutting_s = None
        self._committed = position
        self.committed_s = self._monotonic()
        self.cuts += 1
        self._give(documents)
        self._owed.replace(owed)
        return True

    # Deliveries

    def _owed_now(self) -> list[Notification]:
        return [] if self._delivering is None else self._delivering.owed(self.state)

    async def send_owed(self) -> None:
        """Send what the last cut owes and is not on its way already; a failure is tried again later."""
        while (due := self._owed.next()) is not None:
            channels = await self._owed.send(due)
            if channels and not self.closed and self._delivering is not None:
                self._delivering.delivered(due.id, self.now_ms, self.state, self._effects, channels)
                self._take()
