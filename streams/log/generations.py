"""Which generation of the topics is in use: one mark, in the state of the one partition of `sources`.

A new generation has topics of its own and a state that was made from the old one (streams.upkeep.migrate). The mark is
written when that state is whole, and no worker of another generation starts from then on.
"""

from typing import Final, Literal

from aiokafka import TopicPartition
from msgspec import Struct

from streams.log.consumers import reading
from streams.log.statelog_kafka import read
from streams.messages import KEY_EVENTS, SOURCES, VAULT_ACCESS
from streams.settings import Settings
from streams.state import Kind, State

_ID: Final = b"generation"
MARK_KEY: Final = bytes((Kind.POSITION,)) + _ID
_FIRST: Final = 1
LATE_MS: Final = 2 * 60_000
"""The mark has the time of the machine that wrote it, messages have the broker's."""


class Mark(Struct, frozen=True, kw_only=True):
    """The generation that workers are on since `at_ms`, and its partitions."""

    v: Literal[1] = 1
    generation: int
    partitions: int
    at_ms: int


def mark_in(sources: State) -> Mark | None:
    """The mark, where there was a migration ever."""
    return sources.get(Kind.POSITION, _ID, Mark)


async def mark_of(settings: Settings) -> Mark | None:
    """Read the mark.

    Raises:
        KafkaError: the log did not answer.
    """
    sources = State()
    await read(settings.state_topic(SOURCES), 0, sources, connection=settings.kafka_connection())
    return mark_in(sources)


def problem(settings: Settings, mark: Mark | None, existing: set[str]) -> str:
    """Why no worker may run with these settings, or nothing.

    Args:
        settings: of the worker.
        mark: what is in use.
        existing: full names of the topics that there are.
    """
    if mark is None:
        if settings.generation == _FIRST or _before(settings).topic(KEY_EVENTS) not in existing:
            return ""
        return f"generation {settings.generation} has no state yet: keytrail topics migrate"
    if (mark.generation, mark.partitions) == (settings.generation, settings.partitions):
        return ""
    return (
        f"the state is of generation {mark.generation} with {mark.partitions} partitions: "
        "set KEYTRAIL_GENERATION and KEYTRAIL_PARTITIONS to that, or migrate"
    )


async def sent_late(settings: Settings, mark: Mark, existing: set[str]) -> list[str]:
    """Full names of the topics of the generation before into which somebody still sends.

    Raises:
        KafkaError: the log did not answer.
    """
    names = {_before(settings).topic(name) for name in (KEY_EVENTS, VAULT_ACCESS)} & existing
    found = []
    async with reading(*names, **settings.kafka_connection()) as consumer:
        for name in sorted(names):
            places = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name) or ()]
            later = await consumer.offsets_for_times(dict.fromkeys(places, mark.at_ms + LATE_MS))
            if any(offset is not None for offset in later.values()):
                found.append(name)
    return found


def _before(settings: Settings) -> Settings:
    return settings.model_copy(update={"generation": settings.generation - 1})
