"""How the vault's records arrive: each late on its own, some twice, some never."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bench.month.acts import Act
from bench.month.plan import START_S
from bench.month.records import record
from bench.month.told import SHUFFLE_S


class Feed(NamedTuple):
    """What happens to records on their way."""

    lost: float = 0.01
    doubled: float = 0.02
    shuffle_s: float = SHUFFLE_S


class Arrival(NamedTuple):
    """One record and when it arrives, in milliseconds since the epoch."""

    at_ms: int
    number: int
    record: dict[str, Any]


def arrivals(acts: Sequence[Act], seed: int, feed: Feed) -> Iterator[Arrival]:
    """Bring the records of acts in the order of their arrival."""
    draw = random.Random(f"feed {seed}")
    due: list[tuple[int, int]] = []
    for number, act in enumerate(acts):
        lost, copies = draw.random() < feed.lost, 2 if draw.random() < feed.doubled else 1
        for _ in range(0 if lost and not act.spared else copies):
            late_s = draw.uniform(0, feed.shuffle_s)
            due.append((START_S * 1000 + act.at_us // 1000 + int(late_s * 1000), number))
    for at_ms, number in sorted(due):
        yield Arrival(at_ms, number, record(acts[number], number))
