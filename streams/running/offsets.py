"""Two small judgements about offsets: is this message the next one, and how far are its documents in the index."""

from collections.abc import Iterable
from enum import Enum, auto


class Place(Enum):
    """What to do with a message, by its offset."""

    NEXT = auto()  # apply it
    BEHIND = auto()  # already in the state: skip and count
    SEEK = auto()  # something is missing before it: ask the consumer for the next offset, once
    DROPPED = auto()  # waiting for that seek: the log will bring this message again


class Expected:
    """The offset that must come next.

    A hole is asked for once; when the same message is again the first to come, or an earlier one but not the one
    asked for, the log has nothing before it: it was deleted, or holds a transaction's marker. Topics written in
    transactions have a marker after every one, so there (`markers`) only the first message is doubted: an owner lives
    from one assignment to the next, and that is where a consumer can start at a wrong place.
    """

    __slots__ = ("_asked_for", "_came_first", "_doubt", "_markers", "behind", "gaps", "next")

    def __init__(self, next_offset: int, *, markers: bool = False) -> None:
        self.next = next_offset
        self.behind = 0
        self.gaps = 0
        self._markers = markers
        self._doubt = True
        self._asked_for: int | None = None
        self._came_first = -1

    def judge(self, offset: int) -> Place:
        """Place a message; NEXT moves the expectation behind it."""
        if offset < self.next:
            self.behind += 1
            return Place.BEHIND
        if offset > self.next and self._doubt:
            if self._asked_for != self.next:
                self._asked_for, self._came_first = self.next, offset
                return Place.SEEK
            if offset > self._came_first:
                return Place.DROPPED
            self.gaps += 1
        self._doubt = not self._markers
        self.next = offset + 1
        return Place.NEXT


class IndexProgress:
    """Which messages' documents are in the index, and which messages must be read again for theirs."""

    __slots__ = ("_again_end", "_again_start", "indexed", "skip")

    def __init__(self, indexed: int, applied: int, skip: Iterable[int] = ()) -> None:
        self.indexed = indexed
        self.skip = set(skip)
        self._again_start, self._again_end = indexed, applied

    @property
    def again(self) -> tuple[int, int] | None:
        """Offsets [start, end) whose documents are not with the writer, or None."""
        return (self._again_start, self._again_end) if self._again_start < self._again_end else None

    def lost(self, offset: int) -> None:
        """The writer let go of this message's documents."""
        if self.again is None:
            self._again_start, self._again_end = offset, offset + 1
        else:
            self._again_start = min(self._again_start, offset)
            self._again_end = max(self._again_end, offset + 1)

    def read_again(self, until: int) -> None:
        """Everything below `until` has been given to the writer once more."""
        self._again_start = max(self._again_start, until)

    def advance(self, applied: int, unconfirmed: int | None) -> None:
        """Take the writer's word: documents of messages below `unconfirmed` (None: of all it was given) are written."""
        reached = applied if unconfirmed is None else min(unconfirmed, applied)
        if self.again is not None:
            reached = min(reached, self._again_start)
        if reached > self.indexed:
            self.indexed = reached
            if self.skip:
                self.skip = {offset for offset in self.skip if offset >= reached}
