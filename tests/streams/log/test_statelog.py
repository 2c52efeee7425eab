import msgspec
import pytest

from streams.log.statelog import (
    MAX_RECORD,
    Fenced,
    MemoryLog,
    MemoryStateLog,
    Position,
    StateRecordTooLarge,
    decode_position,
    encode_position,
    partition_of,
)
from streams.messages import FINDINGS, KEY_EVENTS, Out
from streams.state import Kind, State


class Note(msgspec.Struct):
    text: str


def record(kind: Kind, ident: bytes, text: str) -> tuple[bytes, bytes]:
    return bytes((kind,)) + ident, b"\x01" + msgspec.json.encode(Note(text))


POSITION = Position(applied=7, indexed=5, skip=(6,), now_ms=123)


def memory() -> MemoryLog:
    return MemoryLog({KEY_EVENTS: 2, FINDINGS: 1, "wide": 3})


async def test_what_was_committed_is_read_back_with_its_position() -> None:
    memory_log = memory()
    log = MemoryStateLog(memory_log, KEY_EVENTS, 0)
    assert await log.open(State()) is None
    await log.commit([record(Kind.KEY, b"a", "one"), record(Kind.KEY, b"b", "two")], POSITION, [])
    await log.commit([(bytes((Kind.KEY,)) + b"a", None)], POSITION, [])

    state = State()
    position = await MemoryStateLog(memory_log, KEY_EVENTS, 0).open(state)

    assert position == POSITION
    assert state.idents(Kind.KEY) == [b"b"]
    note = state.get(Kind.KEY, b"b", Note)
    assert note is not None
    assert note.text == "two"


async def test_a_partition_is_not_its_neighbour() -> None:
    memory_log = memory()
    log = MemoryStateLog(memory_log, KEY_EVENTS, 0)
    await log.open(State())
    await log.commit([], POSITION, [])

    assert await MemoryStateLog(memory_log, KEY_EVENTS, 1).open(State()) is None


async def test_a_predecessor_commits_nothing_any_more() -> None:
    memory_log = memory()
    paused = MemoryStateLog(memory_log, KEY_EVENTS, 0)
    await paused.open(State())
    successor = MemoryStateLog(memory_log, KEY_EVENTS, 0)
    await successor.open(State())

    with pytest.raises(Fenced):
        await paused.commit([record(Kind.KEY, b"a", "late")], POSITION, [Out(FINDINGS, None, b"late")])

    assert memory_log.partition(FINDINGS, 0).end == 0
    assert await MemoryStateLog(memory_log, KEY_EVENTS, 0).open(State()) is None


async def test_messages_go_by_key_or_to_every_partition() -> None:
    memory_log = memory()
    memory_log.now_ms = 99
    log = MemoryStateLog(memory_log, KEY_EVENTS, 0)
    await log.open(State())

    await log.commit([], POSITION, [Out("wide", b"k", b"one"), Out("wide", None, b"all", to_all=True)])

    held = [memory_log.partition("wide", number).read(0, 9) for number in range(3)]
    assert [[message.value for message in messages].count(b"all") for messages in held] == [1, 1, 1]
    assert held[partition_of(b"k", 3)][0][3:6] == (99, b"k", b"one")


async def test_a_record_that_is_too_large_is_refused_by_name_and_with_it_the_whole_cut() -> None:
    memory_log = memory()
    log = MemoryStateLog(memory_log, KEY_EVENTS, 0)
    await log.open(State())

    with pytest.raises(StateRecordTooLarge, match="0161"):
        await log.commit([(b"\x01a", b"\x01" + b"x" * MAX_RECORD)], POSITION, [Out(FINDINGS, None, b"x")])

    assert memory_log.partition(FINDINGS, 0).end == 0


def test_the_position_record_is_the_documented_one() -> None:
    raw = encode_position(POSITION)

    assert raw == b'{"v":1,"applied":7,"indexed":5,"skip":[6],"now_ms":123}'
    assert decode_position(raw) == POSITION


def test_trimmed_messages_keep_the_offsets_of_the_rest() -> None:
    memory_log = memory()
    held = memory_log.partition(FINDINGS, 0)
    for value in (b"0", b"1", b"2", b"3"):
        memory_log.append(FINDINGS, 0, None, value)

    held.trim(2)

    assert [message.offset for message in held.read(0, 4)] == [2, 3]
    assert [message.value for message in held.read(3, 9)] == [b"3"]
    assert memory_log.append(FINDINGS, 0, None, b"4") == 4
