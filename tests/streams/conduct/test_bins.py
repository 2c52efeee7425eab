"""Bins and levels: the same numbers in any order, within their bounds."""

from hypothesis import given
from hypothesis import strategies as st

from alerts.model import AccessClass
from alerts.thresholds import Limits
from streams.conduct.bins import Bin, add, objects, split
from streams.conduct.levels import Level, bucket_of, upper
from streams.conduct.observations import Seen, decode, tell
from streams.messages import Effects
from tests.streams.watching import T0, access

LIMITS = Limits(bin_pairs=4, bin_refusals=3)


def seen(*, name: str = "smtp", status: int = 200, at_ms: int = T0, salt: int = 0, **changes: str) -> Seen:
    effects = Effects()
    tell(access(at_ms, name, status=status, salt=salt, **changes), at_ms, (), effects)
    found = decode(effects.out[0].value)
    assert isinstance(found, Seen)
    return found


_seen = st.builds(
    seen,
    name=st.sampled_from(["", *"abcdefgh"]),
    status=st.sampled_from([200, 200, 403, 404]),
    at_ms=st.integers(T0, T0 + 299_999),
    salt=st.integers(0, 3),
    network=st.sampled_from(["20.50.1.0/24", "private"]),
    address=st.sampled_from(["20.50.1.7", "10.0.0.1"]),
)


@given(st.lists(_seen, max_size=40, unique_by=lambda each: each.access_id), st.randoms(use_true_random=False))
def test_a_bin_is_the_same_in_any_order_and_stays_within_its_bounds(accesses: list[Seen], draw: object) -> None:
    shuffled = list(accesses)
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    bins = []
    for order in (accesses, shuffled):
        one = Bin(start_s=T0 // 1000, due_ms=0)
        for each in order:
            add(one, each, LIMITS)
        bins.append(one)

    assert bins[0] == bins[1]
    assert len(bins[0].pairs) <= 4
    assert len(bins[0].refused) <= 3
    exact = dict.fromkeys(bins[0].pairs, 0)
    for each in accesses:
        pair = f"{each.vault}/{each.object_kind}/{each.object_name}/{each.access_class}"
        if each.outcome == "succeeded" and pair in exact:
            exact[pair] += 1
    assert {pair: cell.count for pair, cell in bins[0].pairs.items()} == exact


def test_objects_are_those_with_a_name_and_count_once() -> None:
    one = Bin(start_s=0, due_ms=0)
    for each in (seen(name="a"), seen(name="a", operation="SecretBackup"), seen(name="", operation="SecretList")):
        add(one, each, Limits())

    assert list(objects(one)) == ["kv-prod/secret/a"]
    assert [split(pair)[3] for pair in sorted(one.pairs)] == [AccessClass.LIST, AccessClass.ADMIN, AccessClass.USE]


@given(st.integers(0, 10**9))
def test_a_bucket_holds_its_count_and_is_at_most_an_eighth_too_high(count: int) -> None:
    assert count <= upper(bucket_of(count)) <= count + count // 8
    assert bucket_of(upper(bucket_of(count))) == bucket_of(count)
    assert bucket_of(upper(bucket_of(count)) + 1) == bucket_of(count) + 1


@given(st.lists(st.integers(1, 15), min_size=1, max_size=300))
def test_the_usual_level_is_the_99th_percentile(counts: list[int]) -> None:
    level = Level()
    for count in counts:
        level.learn(count, beyond=False)

    assert level.usual == sorted(counts)[len(counts) - len(counts) // 100 - 1]


def test_what_is_beyond_trains_nothing_and_is_remembered_for_a_person_to_accept() -> None:
    level = Level()
    for _ in range(40):
        level.learn(3, beyond=False)
    for count in (400, 300):
        level.learn(count, beyond=True)

    assert (level.active, level.usual, level.peak) == (42, 3, 400)
    assert level.accept()
    assert (level.accepted, level.peak) == (400, 0)
    assert not level.accept()


def test_old_windows_fade() -> None:
    level = Level()
    for _ in range(5_000):
        level.learn(9, beyond=False)
    for _ in range(20_000):
        level.learn(2, beyond=False)

    assert level.active < 4_096
    assert level.usual == 2
