"""How much is usual: counts of past active windows in few buckets, and their 99th percentile. Pure.

Up to 15 a bucket holds one count; beyond, eight buckets share each doubling, so a level is at most 1/8 too high. Old
windows fade: at 4,096 of them all buckets are halved.
"""

from typing import Final

from msgspec import Struct

_EXACT: Final = 16
_PER_DOUBLING_BITS: Final = 3
_FADES_AT: Final = 4_096


class Level(Struct, array_like=True):
    """One series. `accepted` is what a person called usual; `peak` the highest count beyond the limit since then."""

    buckets: dict[int, int] = {}
    accepted: int = 0
    peak: int = 0

    @property
    def active(self) -> int:
        """Windows that stand behind the level."""
        return sum(self.buckets.values())

    @property
    def usual(self) -> int:
        """The 99th percentile, rounded up to its bucket's end; 0 where nothing was learned."""
        wanted = self.active - self.active // 100
        reached = 0
        for bucket in sorted(self.buckets):
            reached += self.buckets[bucket]
            if reached >= wanted:
                return upper(bucket)
        return 0

    def learn(self, count: int, *, beyond: bool) -> None:
        """Add an active window; one beyond the limit counts as a usual one, so that it trains nothing."""
        if beyond:
            self.peak = max(self.peak, count)
            count = self.usual
        bucket = bucket_of(count)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        if self.active >= _FADES_AT:
            self.buckets = {at: held // 2 for at, held in self.buckets.items() if held > 1}

    def accept(self) -> bool:
        """Take the highest count that was told for usual; False where none was."""
        if self.peak <= self.accepted:
            return False
        self.accepted, self.peak = self.peak, 0
        return True


def bucket_of(count: int) -> int:
    """Return the bucket of a count."""
    if count < _EXACT:
        return count
    shift = count.bit_length() - 1 - _PER_DOUBLING_BITS
    return _EXACT + (shift - 1 << _PER_DOUBLING_BITS) + (count >> shift) - (1 << _PER_DOUBLING_BITS)


def upper(bucket: int) -> int:
    """Return the highest count of a bucket."""
    if bucket < _EXACT:
        return bucket
    shift = (bucket - _EXACT >> _PER_DOUBLING_BITS) + 1
    first = (bucket - _EXACT) % (1 << _PER_DOUBLING_BITS) + (1 << _PER_DOUBLING_BITS)
    return (first + 1 << shift) - 1
