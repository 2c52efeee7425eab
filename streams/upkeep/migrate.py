"""`keytrail topics migrate`: the state of one generation of the topics becomes that of the next, with more partitions.

The old topics are read and never written. Everything goes into the new state topics, under the transactional ids of
their owners, so that a worker that still runs is fenced. The mark is last, in one transaction with the word to the
sources agent that nothing of the new generation has been read; what was interrupted before it is done again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition

from cryptocore.partitions import MAX_PARTITIONS
from streams.log import generations, topics
from streams.log.consumers import reading
from streams.log.generations import Mark
from streams.log.statelog import Change, Fenced, Position
from streams.log.statelog_kafka import KafkaStateLog, read
from streams.messages import SOURCES, Out
from streams.presence import sources
from streams.settings import GROWING, Settings
from streams.state import Kind, State, encode
from streams.upkeep.migrate_checks import inputs, members, open_chains, unread
from streams.upkeep.migrate_records import repartition

COMMIT: Final = 2_000
"""Records of one transaction."""
AT_ONCE: Final = 8
"""Partitions that are read or written together."""
R = TypeVar("R")


class Refused(Exception):
    """Nothing was done, or nothing that counts; `missing` says why, one sentence a thing."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__("; ".join(missing))
        self.missing = tuple(missing)


class Done(StrEnum):
    """How it ended."""

    MIGRATED = "migrated"
    BEFORE = "before"


def next_generation(settings: Settings, partitions: int) -> Settings:
    """The settings of workers on the next generation."""
    return settings.model_copy(update={"generation": settings.generation + 1, "partitions": partitions})


async def migrate(
    settings: Settings,
    partitions: int,
    *,
    now_ms: int,
    give_up: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Done:
    """Make the state of the next generation.

    Args:
        settings: of the old generation.
        partitions: of the new one.
        now_ms: for the mark.
        give_up: chains that are open, and documents that may not be in the index, do not keep it.
        progress: told what is done.

    Raises:
        Refused: and what is missing.
        KafkaError: the broker refused, or did not answer.
    """
    try:
        return await _migrate(settings, partitions, now_ms, progress, give_up=give_up)
    except Fenced as fenced:
        raise Refused([f"{fenced}: a worker started meanwhile"]) from fenced


async def _migrate(
    settings: Settings, partitions: int, now_ms: int, progress: Callable[[str], None], *, give_up: bool
) -> Done:
    """Do it.

    1. It is done already, or cannot be.
    2. The new topics are there.
    3. No worker runs, and nothing is left of the old generation.
    4. Part each topic's records anew.
    5. Again no worker runs: mark it.
    """
    new = next_generation(settings, partitions)
    # 1
    if not settings.partitions < partitions <= MAX_PARTITIONS:
        raise Refused(
            [f"a new generation has more than {settings.partitions} partitions, and at most {MAX_PARTITIONS}"]
        )
    sources_state = State()
    await _read(settings, SOURCES, 0, sources_state)
    mark = generations.mark_in(sources_state)
    if mark is not None and (mark.generation, mark.partitions) == (new.generation, new.partitions):
        return Done.BEFORE
    wrong = [str(one) for one in await topics.differences(settings) if one.fatal]
    # 2
    wrong = wrong or [str(one) for one in await topics.ensure(new) if one.fatal]
    if wrong:
        raise Refused(wrong)
    # 3
    positions = await _refuse_unless_drained(settings, sources_state, give_up=give_up)
    async with AsyncExitStack() as stack:
        marking = _log(settings, SOURCES, 0)
        stack.push_async_callback(marking.close)
        sources_state = State()
        at = await marking.open(sources_state)
        if at is None:
            start = await _log_start(settings, SOURCES)
            at = Position(applied=start, indexed=start, now_ms=0)
        # 4
        for topic in GROWING:
            await _part(settings, new, topic, positions, progress)
        # 5
        await _refuse_members(settings)
        value = encode(Mark(generation=new.generation, partitions=partitions, at_ms=now_ms))
        unread_yet = [
            sources.Reached(generation=new.generation, partition=one, append_ms=0) for one in range(partitions)
        ]
        outs = [Out(SOURCES, None, sources.encode(one)) for one in unread_yet]
        await marking.commit([(generations.MARK_KEY, value)], at, outs)
    return Done.MIGRATED


async def _refuse_members(settings: Settings) -> None:
    running = await members(settings)
    if running:
        raise Refused([f"worker {one} runs: stop all workers of {settings.app_id}" for one in running])


async def _refuse_unless_drained(
    settings: Settings, sources_state: State, *, give_up: bool
) -> dict[tuple[str, int], Position | None]:
    """Say everything that is missing at once."""
    await _refuse_members(settings)
    places = inputs(settings)
    found = await _together(_read(settings, topic, number, State()) for topic, number in places)
    positions = dict(zip(places, found, strict=True))
    left = await unread(settings, positions)
    missing = list(left.unapplied)
    if not give_up:
        missing += [*left.unindexed, *open_chains(sources_state, settings.generation)]
    if missing:
        raise Refused(missing)
    return positions


async def _part(
    settings: Settings,
    new: Settings,
    topic: str,
    positions: dict[tuple[str, int], Position | None],
    progress: Callable[[str], None],
) -> None:
    """Part one topic's records.

    1. Fence whoever owns one of its partitions, and see what an interrupted run left.
    2. Read the old state; it must be the one that was found drained.
    3. Write: what is too much is forgotten, positions are at the beginning.
    """
    async with AsyncExitStack() as stack:
        # 1
        logs = [_log(new, topic, number) for number in range(new.partitions)]
        left = [State() for _ in logs]
        for log in logs:
            stack.push_async_callback(log.close)
        await _together(log.open(state) for log, state in zip(logs, left, strict=True))
        # 2
        old = [State() for _ in range(settings.partitions)]
        ats = await _together(_read(settings, topic, number, state) for number, state in enumerate(old))
        moved = [number for number, at in enumerate(ats) if at != positions[topic, number]]
        if moved:
            raise Refused([f"{settings.topic(topic)}/{number}: a worker ran meanwhile" for number in moved])
        # 3
        start = Position(applied=0, indexed=0, now_ms=max(0 if at is None else at.now_ms for at in ats))
        fresh = repartition(topic, old, new.partitions)
        await _together(_write(*one, start) for one in zip(logs, left, fresh, strict=True))
        count = sum(state.count(kind) for state in fresh for kind in Kind)
    progress(f"{new.state_topic(topic)}: {count} records on {new.partitions} partitions")


async def _write(log: KafkaStateLog, left: State, fresh: State, position: Position) -> None:
    records = fresh.dump()
    too_much = left.dump().keys() - records.keys()
    changes: list[Change] = [*((key, None) for key in too_much), *records.items()]
    for start in range(0, max(1, len(changes)), COMMIT):
        await log.commit(changes[start : start + COMMIT], position, [])


async def _together(jobs: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Do some at a time: most of it is waiting for the broker."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(job: Coroutine[Any, Any, R]) -> R:
        async with room:
            return await job

    done = await asyncio.gather(*map(one, jobs), return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]


async def _read(settings: Settings, topic: str, number: int, state: State) -> Position | None:
    return await read(settings.state_topic(topic), number, state, connection=settings.kafka_connection())


def _log(settings: Settings, topic: str, number: int) -> KafkaStateLog:
    return KafkaStateLog(
        transactional_id=f"{settings.topic_prefix}{settings.app_id}.{topic}.{number}",
        topic=settings.state_topic(topic),
        partition=number,
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )


async def _log_start(settings: Settings, topic: str) -> int:
    place = TopicPartition(settings.topic(topic), 0)
    async with reading(**settings.kafka_connection()) as consumer:
        return int((await consumer.beginning_offsets([place]))[place])
