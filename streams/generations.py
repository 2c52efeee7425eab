"""Which generation of the topics is in use: one mark, in the state of the one partition of `sources`.

A new generation has topics of its own and a state that was made from the old one (streams.migrate). The mark is
written when that state is whole, and no worker of another generation starts from then on.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from streams.messages import KEY_EVENTS, SOURCES
from streams.settings import Settings
from streams.state import Kind, State
from streams.statelog_kafka import read

_ID: Final = b"generation"
MARK_KEY: Final = bytes((Kind.POSITION,)) + _ID
_FIRST: Final = 1
_encode = msgspec.json.Encoder().encode


class Mark(Struct, frozen=True, kw_only=True):
    """The generation that workers are on since `at_ms`, and its partitions."""

    v: Literal[1] = 1
    generation: int
    partitions: int
    at_ms: int


def encode(mark: Mark) -> bytes:
    """Return the mark as a state record's value."""
    return b"\x01" + _encode(mark)


def mark_in(sources: State) -> Mark | None:
    """The mark, where there was a migration ever."""
    return sources.get(Kind.POSITION, _ID, Mark)


async def problem(settings: Settings, existing: set[str]) -> str:
    """Why no worker may run with these settings, or nothing.

    Args:
        settings: of the worker.
        existing: full names of the topics that there are.

    Raises:
        KafkaError: the log did not answer.
    """
    place = settings.state_topic(SOURCES)
    sources = State()
    if place in existing:
        await read(place, 0, sources, connection=settings.kafka_connection())
    mark = mark_in(sources)
    if mark is None:
        before = settings.model_copy(update={"generation": settings.generation - 1})
        if settings.generation == _FIRST or before.topic(KEY_EVENTS) not in existing:
            return ""
        return f"generation {settings.generation} has no state yet: keytrail topics migrate"
    if (mark.generation, mark.partitions) == (settings.generation, settings.partitions):
        return ""
    return (
        f"the state is of generation {mark.generation} with {mark.partitions} partitions: "
        "set KEYTRAIL_GENERATION and KEYTRAIL_PARTITIONS to that, or migrate"
    )
