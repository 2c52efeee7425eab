import asyncio
from pathlib import Path

import pytest

from streams.log.statelog import MAX_RECORD, Fenced, Position, StateRecordTooLarge
from streams.log.statelog_kafka import KafkaStateLog
from streams.messages import FINDINGS, KEY_EVENTS, Out
from streams.settings import Settings
from streams.state import Kind, State
from tests.streams.counting import Count
from tests.streams.working import committed, fresh

POSITION = Position(applied=7, indexed=5, skip=(6,), now_ms=123)


def log_of(settings: Settings) -> KafkaStateLog:
    return KafkaStateLog(
        transactional_id=f"{settings.topic_prefix}.{KEY_EVENTS}.0",
        topic=settings.state_topic(KEY_EVENTS),
        partition=0,
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )


def changed(number: int, total: int = 1) -> State:
    state = State()
    for ident in range(number):
        state.put(Kind.KEY, b"%d" % ident, Count(total=total))
    return state


async def test_what_was_committed_is_read_back_with_its_position(kafka: str, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path)
    log = log_of(settings)
    assert await log.open(State()) is None
    state = changed(10_000)
    before = state.dump()
    await log.commit(state.cut(), POSITION, [Out(FINDINGS, b"k", b"one")])
    state.forget(Kind.KEY, b"3")
    await log.commit(state.cut(), POSITION, [])
    await log.close()

    successor, restored = log_of(settings), State()
    position = await successor.open(restored)
    await successor.close()

    assert position == POSITION
    assert restored.dump() == {key: value for key, value in before.items() if key[1:] != b"3"}
    assert await committed(settings, FINDINGS) == [b"one"]


async def test_a_paused_owners_late_cut_is_refused_and_leaves_no_trace(kafka: str, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path)
    paused = log_of(settings)
    await paused.open(State())
    await paused.commit(changed(3).cut(), POSITION, [])
    successor = log_of(settings)
    state = State()
    await successor.open(state)

    with pytest.raises(Fenced):
        await paused.commit(changed(3, total=99).cut(), POSITION, [Out(FINDINGS, b"k", b"late")])

    await successor.commit([], POSITION, [Out(FINDINGS, b"k", b"mine")])
    again = State()
    await successor.close()
    last = log_of(settings)
    await last.open(again)
    await last.close()
    assert again.dump() == state.dump()
    assert await committed(settings, FINDINGS) == [b"mine"]
    await asyncio.wait_for(paused.close(), 10)


async def test_an_open_transaction_of_the_predecessor_is_aborted_and_its_outputs_are_never_seen(
    kafka: str, tmp_path: Path
) -> None:
    settings = await fresh(kafka, tmp_path)
    dying = log_of(settings)
    await dying.open(State())
    assert dying._producer is not None
    await dying._producer.begin_transaction()
    await dying._producer.send_and_wait(settings.topic(FINDINGS), b"half", partition=0)
    await dying._producer.send_and_wait(settings.state_topic(KEY_EVENTS), b"\x01half", key=b"\x01x", partition=0)

    successor, state = log_of(settings), State()
    position = await successor.open(state)
    await successor.commit([], POSITION, [Out(FINDINGS, b"k", b"whole")])
    await successor.close()

    assert position is None
    assert state.dump() == {}
    assert await committed(settings, FINDINGS) == [b"whole"]
    await asyncio.wait_for(dying.close(), 10)


async def test_a_record_that_is_too_large_is_refused_before_anything_is_sent(kafka: str, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path)
    log = log_of(settings)
    await log.open(State())

    with pytest.raises(StateRecordTooLarge, match="0161"):
        await log.commit([(b"\x01a", b"\x01" + b"x" * MAX_RECORD)], POSITION, [Out(FINDINGS, None, b"x")])

    await log.commit([(b"\x01a", b"\x01" + b"x" * (MAX_RECORD - 2))], POSITION, [Out(FINDINGS, None, b"y" * 1_500_000)])
    await log.close()
    assert [len(value) for value in await committed(settings, FINDINGS)] == [1_500_000]


async def test_a_commit_under_way_ends_with_its_log_wherever_it_stands(kafka: str, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path)
    for pause_ms in range(0, 30, 2):
        log = log_of(settings)
        await log.open(State())
        committing = asyncio.create_task(log.commit(changed(2_000).cut(), POSITION, [Out(FINDINGS, b"k", b"one")]))
        await asyncio.sleep(pause_ms / 1000)
        async with asyncio.timeout(10):
            await log.close()
        await asyncio.wait({committing}, timeout=1)

        assert committing.done(), f"closed after {pause_ms} ms"
        assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}
