"""What a service's own tests use: a clock that is set by hand, a log in memory, and a whole core on both.

async with testing.core() as core:
token = await core.encrypt(b"...", owner=OWNER, record="tokens/1", create_missing=True)
assert core.events.only(Operation.ENCRYPT)
"""

from hashlib import sha256
from typing import Final

from cryptocore.batch import SealedBatch
from cryptocore.clock import parse_rfc3339

START: Final = "2026-11-16T08:00:00.000000Z"
"""A Monday morning: when a `ManualClock` starts unless told otherwise."""


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, start: str = START) -> None:
        self._us = parse_rfc3339(start)

    def now_us(self) -> int:
        return self._us

    def monotonic(self) -> float:
        return self._us / 1_000_000

    def advance(self, seconds: float) -> None:
        """Move on; time does not go back."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._us += round(seconds * 1_000_000)


class CountedIds:
    """Ids that are the same in each run; for ids only, never for keys or nonces."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed.encode()
        self._drawn = 0

    def __call__(self, size: int) -> bytes:
        self._drawn += 1
        return sha256(self._seed + self._drawn.to_bytes(8, "big")).digest()[:size]


class MemoryTransport:
    """A log in memory: keeps the batches it took, in order; `down` makes it refuse."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, SealedBatch]] = []
        self.down = False
        self.closed = False

    async def send(self, partition: int, batch: SealedBatch) -> None:
        if self.down:
            raise ConnectionError("the log in memory is down")
        self.batches.append((partition, batch))

    async def close(self) -> None:
        self.closed = True
