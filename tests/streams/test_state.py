"""State records: what is written is what is read, and what earlier workers wrote is read, too."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from streams.state import Kind, State, decode, encode
from streams.trail.key_history import KeyHistory, VersionHistory

versions = st.builds(
    VersionHistory,
    version=st.integers(1, 2**32 - 1),
    state=st.sampled_from([None, "active", "revoked"]),
    digests=st.dictionaries(st.integers(1, 2**64 - 1), st.binary(min_size=32, max_size=32), max_size=3),
    skipped=st.dictionaries(st.integers(1, 2**64 - 1), st.integers(0, 2**53), max_size=3),
    revoked_ms=st.none() | st.integers(0, 2**53),
)
histories = st.builds(
    KeyHistory,
    tenant=st.text(max_size=20),
    last_ms=st.integers(0, 2**53),
    counts=st.dictionaries(st.text(max_size=20), st.integers(0, 2**63 - 1), max_size=4),
    versions=st.lists(versions, max_size=3),
    uses=st.lists(st.binary(max_size=120), max_size=4),
)


class Note(Struct):
    text: str
    times: int = 0


@given(histories)
def test_what_a_worker_writes_the_next_one_reads(history: KeyHistory) -> None:
    before, after = State(), State()
    before.put(Kind.KEY, b"k", history)
    for key, value in before.cut():
        after.load(key, value)

    assert after.get(Kind.KEY, b"k", KeyHistory) == history
    assert after.dump() == before.dump()


@given(histories)
def test_records_that_were_written_as_json_are_read_and_written_anew_when_they_change(history: KeyHistory) -> None:
    state = State()
    state.load(b"\x01k", b"\x01" + msgspec.json.encode(history))
    read = state.get(Kind.KEY, b"k", KeyHistory)
    assert read == history

    state.put(Kind.KEY, b"k", read)

    assert state.cut() == [(b"\x01k", encode(history))]


def test_a_record_is_read_without_its_type() -> None:
    assert (
        decode(encode(Note("x", 3))) == decode(b"\x01" + msgspec.json.encode(Note("x", 3))) == {"text": "x", "times": 3}
    )


@pytest.mark.parametrize("value", [b"", b"\x00{}", b"\x03{}", b"{}"])
def test_a_record_of_another_version_is_refused_and_named(value: bytes) -> None:
    with pytest.raises(ValueError, match="state record 016b: unknown version"):
        State().load(b"\x01k", value)


def test_a_record_of_another_kind_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match="state record fe6b: unknown kind"):
        State().load(b"\xfek", encode(Note("x")))
