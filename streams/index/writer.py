"""From the steps of many partitions to bulks: gathered, retried, and each owner told how far its documents are written.

An owner is a partition of an input topic. Nobody waits here for the index: `add` takes documents as long as there is
memory, and says when there is none; then the owner reads the messages again later. Documents with a version are not
part of `confirmed`: their state records say what was indexed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog
from msgspec import Struct

from cryptocore.clock import Clock, SystemClock
from streams.index.port import Document, EventIndex, IndexUnavailable, Refused

OwnerKey = tuple[str, int]
"""Input topic and partition."""

MAX_DOCUMENTS: Final = 2_000
MAX_BYTES: Final = 4 * 1024 * 1024
LINGER_S: Final = 0.05
"""A bulk goes at 2,000 documents, 4 MiB or 50 ms after its first document (design: index)."""
IN_FLIGHT: Final = 2
HELD_BYTES: Final = 64 * 1024 * 1024
"""Bytes of documents that are kept while the index does not answer."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0

_log = structlog.get_logger(__name__)


class RefusedDocument(NamedTuple):
    """A document that the index will never take, and the offset of the message it came from."""

    offset: int
    document: Document
    reason: str


class _Owner:
    """What is known of one partition: added, not yet written, not taken for lack of memory."""

    __slots__ = ("gone", "key", "missed_from", "missed_to", "next", "pending", "refused")

    def __init__(self, key: OwnerKey) -> None:
        self.key = key
        self.next = 0
        self.pending: dict[int, int] = {}
        self.missed_from: int | None = None
        self.missed_to = 0
        self.refused: list[RefusedDocument] = []
        self.gone = False

    def confirmed(self) -> int:
        low = min(self.pending, default=self.next)
        return low if self.missed_from is None else min(low, self.missed_from)


class _Group(Struct, gc=False):
    """Documents of one message, at most one bulk of them."""

    owner: _Owner
    offset: int
    documents: Sequence[Document]
    size: int
    counted: bool  # holds documents that `confirmed` waits for
    versioned: bool


class IndexWriter:
    """Gathers documents of many owners into bulks, two of them under way at a time.

    `written` is called for each versioned document that the index holds (or holds a newer version of).
    All methods belong to one event loop; after a fault other than IndexUnavailable, `add` and `flush` raise it.
    """

    def __init__(
        self,
        index: EventIndex,
        *,
        written: Callable[[OwnerKey, Document], None] | None = None,
        max_documents: int = MAX_DOCUMENTS,
        max_bytes: int = MAX_BYTES,
        linger_s: float = LINGER_S,
        in_flight: int = IN_FLIGHT,
        held_bytes: int = HELD_BYTES,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        clock: Clock | None = None,
    ) -> None:
        self.written = written
        self.unavailable_since: float | None = None
        """Monotonic seconds at the first bulk that failed since one was written; None while the index answers."""
        self.held = 0
        self.bulks = 0
        self.documents = 0
        self.retries = 0
        self.refusals = 0
        self._index = index
        self._max_documents = max_documents
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._held_bytes = held_bytes
        self._pauses_s = (first_pause_s, longest_pause_s)
        self._clock = SystemClock() if clock is None else clock
        self._owners: dict[OwnerKey, _Owner] = {}
        self._queue: deque[_Group] = deque()
        self._queued_documents = 0
        self._queued_bytes = 0
        self._slots = asyncio.Semaphore(in_flight)
        self._full = asyncio.Event()
        self._hurried = 0
        self._pump: asyncio.Task[None] | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    def add(self, owner_key: OwnerKey, offset: int, documents: Sequence[Document]) -> bool:
        """Take the documents of one message; to be called in the order of the offsets, without documents too.

        Args:
            owner_key: the partition.
            offset: the message's; for documents of a tick that of the last message applied.
            documents: what the step made of it.

        Returns:
            False when there is no memory for them. Then `confirmed` stays at the first such offset, and later offsets
            are refused, until the messages missed have been added again in their order; missed documents with a
            version are to be made again from the state.
        """
        self._check()
        owner = self._owners.get(owner_key)
        if owner is None:
            owner = self._owners[owner_key] = _Owner(owner_key)
        owner.next = max(owner.next, offset + 1)
        size, versioned = _weigh(documents)
        counted = versioned < len(documents)
        missed_later = counted and owner.missed_from is not None and offset > owner.missed_to
        if missed_later or (self.held and self.held + size > self._held_bytes):
            if counted and owner.missed_from is None:
                owner.missed_from = offset
            if counted:
                owner.missed_to = max(owner.missed_to, offset)
            return False
        if counted and owner.missed_from is not None:
            owner.missed_from = None if offset >= owner.missed_to else offset + 1
        if not documents:
            return True
        if size <= self._max_bytes and len(documents) <= self._max_documents:
            self._enqueue(_Group(owner, offset, documents, size, counted, versioned > 0))
        else:
            for part in self._parts(documents):
                size, versioned = _weigh(part)
                self._enqueue(_Group(owner, offset, part, size, versioned < len(part), versioned > 0))
        return True

    def confirmed(self, owner_key: OwnerKey) -> int | None:
        """Return the offset below which everything that was added is written or refused; None: nothing was added."""
        owner = self._owners.get(owner_key)
        return None if owner is None else owner.confirmed()

    def behind(self, owner_key: OwnerKey) -> bool:
        """Say whether messages of this owner were missed for lack of memory and must be added again."""
        owner = self._owners.get(owner_key)
        return owner is not None and owner.missed_from is not None

    def room(self) -> int:
        """Bytes of documents that can be taken now."""
        return max(0, self._held_bytes - self.held)

    def refused(self, owner_key: OwnerKey) -> list[RefusedDocument]:
        """Hand out, once, the documents of this owner that the index will never take."""
        owner = self._owners.get(owner_key)
        if owner is None:
            return []
        refused, owner.refused = owner.refused, []
        return refused

    def forget(self, owner_key: OwnerKey) -> None:
        """Drop what this owner has waiting; what is under way may still be written, and nobody is told."""
        owner = self._owners.pop(owner_key, None)
        if owner is None:
            return
        owner.gone = True
        kept = deque(group for group in self._queue if group.owner is not owner)
        for group in self._queue:
            if group.owner is owner:
                self.held -= group.size
                self._queued_bytes -= group.size
                self._queued_documents -= len(group.documents)
        self._queue = kept

    async def flush(self) -> None:
        """Send what waits at once and return when all is written, however long the index takes to answer."""
        self._hurried += 1
        self._full.set()
        try:
            while tasks := {task for task in (self._pump, *self._writing) if task is not None and not task.done()}:
                await asyncio.wait(tasks)
                self._check()
        finally:
            self._hurried -= 1
        self._check()

    async def close(self) -> None:
        """Stop; what is not written stays unwritten."""
        tasks = {task for task in (self._pump, *self._writing) if task is not None and not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._queue.clear()
        self.held = self._queued_bytes = self._queued_documents = 0

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _enqueue(self, group: _Group) -> None:
        self._queue.append(group)
        if group.counted:
            pending = group.owner.pending
            pending[group.offset] = pending.get(group.offset, 0) + 1
        self.held += group.size
        self._queued_bytes += group.size
        self._queued_documents += len(group.documents)
        if self._queued_documents >= self._max_documents or self._queued_bytes >= self._max_bytes:
            self._full.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._send_all())
            self._pump.add_done_callback(self._note_fault)

    def _parts(self, documents: Sequence[Document]) -> list[Sequence[Document]]:
        """Cut a message's documents so that each part fits a bulk."""
        parts: list[Sequence[Document]] = []
        start = size = 0
        for place, document in enumerate(documents):
            grown = size + len(document.body)
            if place > start and (grown > self._max_bytes or place - start >= self._max_documents):
                parts.append(documents[start:place])
                start, grown = place, len(document.body)
            size = grown
        parts.append(documents[start:] if start else documents)
        return parts

    async def _send_all(self) -> None:
        while self._queue:
            if not self._hurried and not self._full.is_set():
                await self._linger()
            await self._slots.acquire()
            task = asyncio.get_running_loop().create_task(self._write(self._take()))
            self._writing.add(task)
            task.add_done_callback(self._written)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._linger_s):
                await self._full.wait()
        except TimeoutError:
            return

    def _take(self) -> list[_Group]:
        groups: list[_Group] = []
        documents = size = 0
        while self._queue:
            group = self._queue[0]
            documents += len(group.documents)
            size += group.size
            if groups and (documents > self._max_documents or size > self._max_bytes):
                break
            groups.append(self._queue.popleft())
            self._queued_documents -= len(group.documents)
            self._queued_bytes -= group.size
        if self._queued_documents < self._max_documents and self._queued_bytes < self._max_bytes:
            self._full.clear()
        return groups

    async def _write(self, groups: list[_Group]) -> None:
        pause_s, longest_s = self._pauses_s
        try:
            while wanted := [group for group in groups if not group.owner.gone]:
                documents = [document for group in wanted for document in group.documents]
                try:
                    refused = await self._index.write(documents)
                except IndexUnavailable as err:
                    self._note_unavailable(err)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, longest_s)
                else:
                    self.unavailable_since = None
                    self.bulks += 1
                    self.documents += len(documents)
                    self._confirm(wanted, refused)
                    return
        finally:
            self.held -= sum(group.size for group in groups)
            self._slots.release()

    def _note_unavailable(self, err: IndexUnavailable) -> None:
        self.retries += 1
        if self.unavailable_since is None:
            self.unavailable_since = self._clock.monotonic()
            _log.warning("index unavailable", problem=str(err))

    def _confirm(self, groups: list[_Group], refused: list[Refused]) -> None:
        reasons = {id(item.document): item.reason for item in refused}
        self.refusals += len(reasons)
        for group in groups:
            owner = group.owner
            if owner.gone:
                continue
            if group.counted:
                owner.pending[group.offset] -= 1
                if not owner.pending[group.offset]:
                    del owner.pending[group.offset]
            for document in group.documents if reasons else ():
                reason = reasons.get(id(document))
                if reason is not None:
                    owner.refused.append(RefusedDocument(group.offset, document, reason))
            if group.versioned and self.written is not None:
                for document in group.documents:
                    if document.version and id(document) not in reasons:
                        self.written(owner.key, document)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        self._note_fault(task)

    def _note_fault(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and self._fault is None:
            self._fault = task.exception()


def _weigh(documents: Sequence[Document]) -> tuple[int, int]:
    """Bytes of the bodies, and how many documents have a version."""
    return (
        sum([len(document.body) for document in documents]),
        len([document for document in documents if document.version]),
    )
