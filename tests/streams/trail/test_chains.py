"""A chain's batches in any order, doubled and lost: each is applied exactly once, and what is missing is known."""

import hashlib

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.trail.chains import (
    FORGET_MS,
    IDLE_MS,
    LOST_MS,
    MAX_OPEN,
    WINDOW,
    Chain,
    Sealed,
    Verdict,
    expire,
    missing,
    next_due_ms,
    shrink,
    take,
)


def chain_of(length: int, *, name: str = "a", forked_at: int | None = None) -> list[Sealed]:
    """Batches that really follow each other; from `forked_at` on they are other ones than the plain chain's."""
    batches, previous = [], bytes(32)
    for sequence in range(length):
        side = "b" if forked_at is not None and sequence >= forked_at else ""
        digest = hashlib.sha256(f"{name}{side}{sequence}".encode() + previous).digest()
        batches.append(Sealed(sequence, digest, previous, 1_000 + sequence, 2_000 + sequence))
        previous = digest
    return batches


def at(batch: Sealed, append_ms: int) -> Sealed:
    return batch._replace(append_ms=append_ms)


def test_batches_in_order_are_each_next() -> None:
    chain = Chain("billing")

    verdicts = [take(chain, batch).verdict for batch in chain_of(200)]

    assert set(verdicts) == {Verdict.NEXT}
    assert (chain.head, len(chain.recent)) == (199, WINDOW * 32)
    assert list(missing(chain)) == []


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_order_doubling_and_loss_applies_each_batch_once_and_names_what_is_missing(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 60), label="length")
    lost = data.draw(st.sets(st.integers(0, length - 1), max_size=length - 1), label="lost")
    batches = [batch for batch in chain_of(length) if batch.sequence not in lost]
    doubled = data.draw(st.lists(st.sampled_from(batches), max_size=30), label="doubled")
    arrivals = data.draw(st.permutations(batches + doubled), label="arrivals")
    chain = Chain("billing")
    applied: list[int] = []
    duplicates = 0

    for batch in arrivals:
        verdict = take(chain, batch).verdict
        if verdict.applies:
            applied.append(batch.sequence)
        duplicates += verdict is Verdict.DUPLICATE
        chain = msgspec.json.decode(msgspec.json.encode(chain), type=Chain)

    assert sorted(applied) == [batch.sequence for batch in batches]
    assert duplicates == len(doubled)
    head = max(batch.sequence for batch in batches)
    assert chain.head == head
    assert list(missing(chain)) == sorted(number for number in lost if number < head)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_batch_of_another_history_is_never_taken_for_the_one_it_replaces(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 40), label="length")
    at_sequence = data.draw(st.integers(0, length - 1), label="forked at")
    chain = Chain("billing")
    for batch in chain_of(length):
        take(chain, batch)

    verdict = take(chain, chain_of(length, forked_at=at_sequence)[at_sequence]).verdict

    assert verdict is Verdict.FORK
    assert chain.head == length - 1


def test_the_next_batch_must_name_the_one_before_it() -> None:
    chain = Chain("billing")
    take(chain, chain_of(2)[0])
    other = chain_of(2, name="z")[1]

    verdict = take(chain, other).verdict

    assert verdict is Verdict.FORK
    assert chain.head == 0


def test_the_first_batch_must_name_no_other() -> None:
    first = chain_of(1)[0]._replace(previous=b"\x01" * 32)

    assert take(Chain("billing"), first).verdict is Verdict.FORK


def test_a_chain_first_seen_above_zero_is_told_from_a_gap_and_its_start_is_still_taken() -> None:
    chain = Chain("billing")
    batches = chain_of(4)

    first = take(chain, batches[3])

    assert first.verdict is Verdict.FIRST_ABOVE_ZERO
    assert list(missing(chain)) == [0, 1, 2]
    assert take(chain, batches[0]).verdict is Verdict.FILLS_GAP
    assert take(chain, chain_of(3, name="z")[2]).verdict is Verdict.FORK
    assert take(chain, batches[2]).verdict is Verdict.FILLS_GAP
    assert list(missing(chain)) == [1]


def test_a_late_batch_is_verified_against_both_neighbours() -> None:
    chain = Chain("billing")
    batches = chain_of(5)
    for sequence in (0, 4):
        take(chain, batches[sequence])
    wrong_left = batches[1]._replace(previous=b"\x01" * 32)
    wrong_right = batches[3]._replace(digest=b"\x02" * 32)

    assert take(chain, wrong_left).verdict is Verdict.FORK
    assert take(chain, wrong_right).verdict is Verdict.FORK
    assert list(missing(chain)) == [1, 2, 3]
    assert [take(chain, batches[n]).verdict for n in (2, 1, 3)] == [Verdict.FILLS_GAP] * 3
    assert list(missing(chain)) == []


def test_no_more_numbers_stay_open_than_the_format_allows() -> None:
    chain = Chain("billing")
    batches = chain_of(MAX_OPEN + 50)
    take(chain, batches[0])
    take(chain, batches[20])

    taken = take(chain, batches[MAX_OPEN + 25])

    assert taken.lost == 19 + (MAX_OPEN + 25 - 21) - MAX_OPEN
    assert len(list(missing(chain))) == MAX_OPEN
    assert next(missing(chain)) == 21 + 4
    assert take(chain, batches[1]).verdict is Verdict.STALE
    assert take(chain, batches[30]).verdict is Verdict.FILLS_GAP
    assert take(chain, batches[25]).verdict is Verdict.FILLS_GAP


def test_a_batch_below_the_window_is_dropped_without_a_look() -> None:
    chain = Chain("billing")
    batches = chain_of(WINDOW + 2)
    for batch in batches:
        take(chain, batch)

    assert take(chain, batches[1]).verdict is Verdict.STALE
    assert take(chain, batches[2]).verdict is Verdict.DUPLICATE


def test_a_missing_batch_is_lost_after_an_hour_and_then_not_taken_any_more() -> None:
    chain = Chain("billing")
    batches = chain_of(4)
    take(chain, at(batches[0], 0))
    take(chain, at(batches[3], 1_000))

    assert expire(chain, 1_000 + LOST_MS - 1) == []
    assert next_due_ms(chain) == 1_000 + LOST_MS
    assert expire(chain, 1_000 + LOST_MS) == [(1, 2)]
    assert take(chain, batches[1]).verdict is Verdict.STALE
    assert list(missing(chain)) == []


def test_a_batch_sealed_before_its_predecessor_is_said_to_be_out_of_order() -> None:
    chain = Chain("billing")
    batches = chain_of(5)
    take(chain, batches[0])

    assert not take(chain, batches[1]._replace(sealed_ms=999)).in_order
    take(chain, batches[4])
    assert not take(chain, batches[2]._replace(sealed_ms=1)).in_order
    assert take(chain, batches[3]).in_order


def test_an_idle_chain_keeps_its_head_alone_and_still_refuses_what_it_has_seen() -> None:
    chain = Chain("billing")
    batches = chain_of(10)
    for batch in batches[:9]:
        take(chain, at(batch, 5_000))

    assert not shrink(chain, 5_000 + IDLE_MS - 1)
    assert shrink(chain, 5_000 + IDLE_MS)
    assert next_due_ms(chain) == 5_000 + FORGET_MS
    assert take(chain, batches[8]).verdict is Verdict.DUPLICATE
    assert take(chain, batches[3]).verdict is Verdict.STALE
    assert take(chain, batches[9]).verdict is Verdict.NEXT
