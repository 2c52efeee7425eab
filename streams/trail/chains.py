"""One chain of sealed batches: what is next, what is missing, what was seen before, and what cannot be.

Pure. Whoever opened the batch has verified its seal; here only its place in the chain is judged (docs/formats.md,
section "Sealed batch"). Every sequence number is applied at most once, whatever order the batches come in.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

WINDOW: Final = 64
"""Digests a chain remembers; what is older and not missing is dropped unseen."""
MAX_OPEN: Final = 1024
"""Missing numbers a chain keeps open; beyond them the lowest are lost."""
LOST_MS: Final = 60 * 60_000
"""A missing batch is waited for this long, by append time."""
IDLE_MS: Final = 24 * 3_600_000
"""After a day without a batch only the head's digest is kept: anything else is then below the window."""
FORGET_MS: Final = 90 * 24 * 3_600_000
"""After 90 days a chain is forgotten. A batch replayed later than that is new to us: a stated limit."""

_DIGEST: Final = 32
_UNKNOWN: Final = b""
_NOT_HELD: Final = bytes(_DIGEST)
_START: Final = bytes(_DIGEST)  # what `previous` holds at sequence 0


class Verdict(StrEnum):
    """What a batch is to its chain."""

    NEXT = "next"
    GAP = "gap"
    FIRST_ABOVE_ZERO = "first_above_zero"
    FILLS_GAP = "fills_gap"
    DUPLICATE = "duplicate"
    STALE = "stale"
    FORK = "fork"

    @property
    def applies(self) -> bool:
        """The batch is new and belongs to the chain."""
        return self in _APPLIED


_APPLIED = frozenset({Verdict.NEXT, Verdict.GAP, Verdict.FIRST_ABOVE_ZERO, Verdict.FILLS_GAP})


class Gap(Struct, array_like=True):
    """Missing numbers `first` to `last`, and what their neighbours say of them.

    `left` is the digest of the batch before `first`, `right` the `previous` that the batch after `last` names, `left`
    empty where no such batch is known. `after_ms` is when the batch before was sealed, `opened_ms` an append time.
    """

    first: int
    last: int
    left: bytes
    right: bytes
    after_ms: int
    opened_ms: int

    def __len__(self) -> int:
        return self.last - self.first + 1


class Chain(Struct, array_like=True):
    """One (instance, generation, partition). `recent` holds the digests up to `head`, 32 bytes each, oldest first;
    zeros stand for a number that was never received.
    """  # noqa: D205 - the two sentences belong together

    source: str
    head: int = -1
    recent: bytes = b""
    gaps: list[Gap] = []
    sealed_ms: int = 0
    seen_ms: int = 0


class Taken(NamedTuple):
    """The verdict; whether the batch was sealed no earlier than the one before it; numbers that are now lost."""

    verdict: Verdict
    in_order: bool = True
    lost: int = 0


class Sealed(NamedTuple):
    """What of a verified seal matters here; `append_ms` is the broker's time."""

    sequence: int
    digest: bytes
    previous: bytes
    sealed_ms: int
    append_ms: int


def take(chain: Chain, batch: Sealed) -> Taken:
    """Judge one batch and, where it applies, note it in the chain.

    1. above the head: next, or it opens a gap; what it calls the previous batch must be the one we hold;
    2. in an open gap: verified against both neighbours, then it fills the gap or splits it;
    3. remembered: the same digest again, or a fork;
    4. anything else is below the window.
    """
    # 1
    if batch.sequence > chain.head:
        return _take_above(chain, batch)
    # 2
    for place, gap in enumerate(chain.gaps):
        if gap.first <= batch.sequence <= gap.last:
            return _take_missing(chain, place, gap, batch)
    # 3
    held = _held(chain, batch.sequence)
    if held == batch.digest:
        return Taken(Verdict.DUPLICATE)
    if held not in (_UNKNOWN, _NOT_HELD):
        return Taken(Verdict.FORK)
    # 4
    return Taken(Verdict.STALE)


def expire(chain: Chain, now_ms: int) -> list[tuple[int, int]]:
    """Give up the gaps that were open for an hour.

    Returns:
        The first and last number of each that is now lost.
    """
    lost = [gap for gap in chain.gaps if now_ms - gap.opened_ms >= LOST_MS]
    if lost:
        chain.gaps = [gap for gap in chain.gaps if now_ms - gap.opened_ms < LOST_MS]
    return [(gap.first, gap.last) for gap in lost]


def shrink(chain: Chain, now_ms: int) -> bool:
    """Keep only the head's digest of a chain that was quiet for a day; say whether that changed it."""
    if now_ms - chain.seen_ms < IDLE_MS or len(chain.recent) <= _DIGEST:
        return False
    chain.recent = chain.recent[-_DIGEST:]
    return True


def next_due_ms(chain: Chain) -> int:
    """When `expire`, `shrink` or forgetting will next have something to do."""
    quiet = chain.seen_ms + (IDLE_MS if len(chain.recent) > _DIGEST else FORGET_MS)
    return min([gap.opened_ms + LOST_MS for gap in chain.gaps] + [quiet])


def missing(chain: Chain) -> Iterator[int]:
    """Every number that is still waited for, ascending."""
    for gap in chain.gaps:
        yield from range(gap.first, gap.last + 1)


def _held(chain: Chain, sequence: int) -> bytes:
    """The digest that is remembered for a number; empty when it lies below the window."""
    start = len(chain.recent) - (chain.head - sequence + 1) * _DIGEST
    return chain.recent[start : start + _DIGEST] if start >= 0 else _UNKNOWN


def _take_above(chain: Chain, batch: Sealed) -> Taken:
    is_first = chain.head < 0
    skipped = batch.sequence - chain.head - 1
    before = _START if is_first else chain.recent[-_DIGEST:]
    if skipped == 0 and batch.previous != before:
        return Taken(Verdict.FORK)
    in_order = batch.sealed_ms >= chain.sealed_ms
    lost = 0
    if skipped:
        gap = Gap(chain.head + 1, batch.sequence - 1, before, batch.previous, chain.sealed_ms, batch.append_ms)
        chain.gaps.append(gap)
        lost = _bound(chain)
    kept = min(skipped, WINDOW) * _NOT_HELD
    chain.recent = (chain.recent + kept + batch.digest)[-WINDOW * _DIGEST :]
    chain.head, chain.sealed_ms = batch.sequence, batch.sealed_ms
    chain.seen_ms = max(chain.seen_ms, batch.append_ms)
    if not skipped:
        return Taken(Verdict.NEXT, in_order)
    return Taken(Verdict.FIRST_ABOVE_ZERO if is_first else Verdict.GAP, in_order, lost)


def _bound(chain: Chain) -> int:
    """Lose the lowest open numbers beyond the bound."""
    excess = surplus = sum(map(len, chain.gaps)) - MAX_OPEN
    while surplus > 0:
        lowest = chain.gaps[0]
        if len(lowest) <= surplus:
            surplus -= len(lowest)
            del chain.gaps[0]
        else:
            lowest.first += surplus
            lowest.left = _UNKNOWN
            surplus = 0
    return max(excess, 0)


def _take_missing(chain: Chain, place: int, gap: Gap, batch: Sealed) -> Taken:
    if batch.sequence == gap.first and gap.left not in (_UNKNOWN, batch.previous):
        return Taken(Verdict.FORK)
    if batch.sequence == gap.last and gap.right != batch.digest:
        return Taken(Verdict.FORK)
    in_order = batch.sealed_ms >= gap.after_ms
    below = Gap(gap.first, batch.sequence - 1, gap.left, batch.previous, gap.after_ms, gap.opened_ms)
    above = Gap(batch.sequence + 1, gap.last, batch.digest, gap.right, batch.sealed_ms, gap.opened_ms)
    chain.gaps[place : place + 1] = [rest for rest in (below, above) if len(rest)]
    start = len(chain.recent) - (chain.head - batch.sequence + 1) * _DIGEST
    if start >= 0:
        chain.recent = chain.recent[:start] + batch.digest + chain.recent[start + _DIGEST :]
    chain.seen_ms = max(chain.seen_ms, batch.append_ms)
    return Taken(Verdict.FILLS_GAP, in_order)
