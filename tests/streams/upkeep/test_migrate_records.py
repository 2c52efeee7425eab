"""Parting the state anew: every record is kept, and lies where its step looks for it from now on."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.model import FindingMessage, FindingResolved
from alerts.system import system_finding
from alerts.thresholds import HOUR_MS, MINUTE_MS, Limits
from cryptocore.partitions import partition_of as key_partition
from cryptocore.registry import Registry
from streams.conduct.addresses import Lonely
from streams.conduct.baselines import Profile
from streams.conduct.bins import Bin
from streams.conduct.observations import tell
from streams.conduct.who import WhoMeter
from streams.findings import OpenFinding
from streams.joining import correlate
from streams.joining.correlate import Claim, Progress, Use, partition_key
from streams.joining.join import JoinStep
from streams.joining.joinstate import InstanceState, UseState
from streams.log.statelog import partition_of
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, VAULT_ACCESS, WHO, Effects, Message, Step
from streams.pipeline import steps
from streams.state import Kind, State
from streams.trail.chains import Chain
from streams.trail.keys import KeysStep
from streams.trail.refusals import Meter
from streams.upkeep.migrate_records import MOVED, NoRule, repartition
from streams.vaultlogs.messages import file_key, wrap
from streams.vaultlogs.vault import VaultStep
from tests.streams.builders import DEPLOYMENT, NOW_MS, Sender, event, registered, revoked
from tests.streams.joining.join_bench import T0, intent, outcome, progress, registry, use
from tests.streams.vaultlogs.records import record
from tests.streams.watching import OTHER, SERVICE, access, challenge

LIMITS = Limits()
COUNTS = st.tuples(st.integers(1, 5), st.integers(1, 7)).map(lambda both: (both[0], both[0] + both[1]))
_told = msgspec.json.Decoder(FindingMessage | FindingResolved)


class Parted:
    """One topic's partitions with a step each."""

    def __init__(self, topic: str, make: Callable[[int], Step], partitions: int) -> None:
        self.topic, self.now_ms, self.documents = topic, 0, 0
        self.told: dict[str, tuple[str, int]] = {}
        self._make = make
        self._take(make, [State() for _ in range(partitions)])

    def _take(self, make: Callable[[int], Step], states: Sequence[State]) -> None:
        self.states = states
        self.steps = [make(number) for number in range(len(states))]
        self.offsets = [0] * len(states)
        for step, state in zip(self.steps, states, strict=True):
            step.restore(state)

    def migrate(self, partitions: int, make: Callable[[int], Step] | None = None) -> None:
        """Through bytes, as on Kafka; the old states must stay what they were."""
        before = [state.dump() for state in self.states]
        parted = [
            reloaded(state) for state in repartition(self.topic, [reloaded(one) for one in self.states], partitions)
        ]
        assert [state.dump() for state in self.states] == before
        self._take(make or self._make, parted)

    def send(self, place: int, value: bytes, at_ms: int, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        message = Message(self.topic, place, self.offsets[place], at_ms, None, value, headers)
        self.offsets[place] += 1
        self.now_ms = max(self.now_ms, at_ms)
        effects = Effects()
        self.steps[place].apply(message, self.now_ms, self.states[place], effects)
        self._note(effects)

    def tick(self, now_ms: int) -> None:
        self.now_ms = now_ms
        for step, state in zip(self.steps, self.states, strict=True):
            effects = Effects()
            step.tick(now_ms, state, effects)
            self._note(effects)

    def _note(self, effects: Effects) -> None:
        self.documents += len([one for one in effects.documents if not one.version])
        for out in effects.out:
            if out.topic == FINDINGS:
                told = _told.decode(out.value)
                left = told.count - (told.retracted if isinstance(told, FindingResolved) else 0)
                self.told[told.finding_id] = (told.fingerprint, left)
            elif out.topic == self.topic:
                count = len(self.states)
                for place in range(count) if out.to_all else [partition_of(out.key, count)]:
                    self.send(place, out.value, self.now_ms)

    def hits(self) -> dict[str, int]:
        """Hits that stand, by fingerprint, over all runs of hits."""
        found: dict[str, int] = {}
        for fingerprint, left in self.told.values():
            found[fingerprint] = found.get(fingerprint, 0) + left
        return {fingerprint: count for fingerprint, count in found.items() if count}

    def all(self, kind: Kind) -> dict[bytes, list[int]]:
        """Which partitions hold each record of a kind."""
        places: dict[bytes, list[int]] = {}
        for number, state in enumerate(self.states):
            for ident in state.idents(kind):
                places.setdefault(ident, []).append(number)
        return places


def reloaded(state: State) -> State:
    fresh = State()
    for key, value in state.dump().items():
        fresh.load(key, value)
    return fresh


# key-events

KEY_IDS = [f"{number:02x}" * 16 for number in range(1, 9)]


class Keys(Parted):
    def __init__(self, partitions: int) -> None:
        self.sender = Sender()
        self.registry = Registry(DEPLOYMENT, (registered("billing", self.sender.signer),))
        super().__init__(KEY_EVENTS, self.of_generation(1), partitions)

    def of_generation(self, generation: int) -> Callable[[int], Step]:
        return lambda number: KeysStep(registry=self.registry, limits=LIMITS, generation=generation, partition=number)

    def grow(self, partitions: int) -> None:
        self.migrate(partitions, self.of_generation(2))
        self.sender = Sender(signer=self.sender.signer, instance=b"\xbb" * 16, generation=2)

    def does(self, key_id: str, what: str, number: int) -> None:
        at_ms = NOW_MS + number * 1000
        fields: dict[str, Any] = {"key_id": key_id, "id": f"00000000-0000-0000-0000-{number:012x}", "at_ms": at_ms}
        line = {
            "use": lambda: event(**fields),
            "late revoke": lambda: revoked(**(fields | {"at_ms": at_ms - 100_000})),
            "revoke": lambda: revoked(**fields),
            "gap": lambda: revoked(**(fields | {"revision": 5})),
        }[what]()
        place = key_partition(bytes.fromhex(key_id), len(self.states))
        sent = self.sender.seal(line, partition=place, sealed_ms=at_ms)
        self.send(place, sent.batch.value, at_ms, tuple(sent.batch.headers()))


ACTS = st.lists(
    st.tuples(st.sampled_from(KEY_IDS), st.sampled_from(["use", "use", "use", "revoke", "late revoke", "gap"])),
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(ACTS, ACTS, COUNTS)
def test_keys_are_judged_as_if_nothing_had_happened(
    before: list[tuple[str, str]], after: list[tuple[str, str]], counts: tuple[int, int]
) -> None:
    moved, never = Keys(counts[0]), Keys(counts[1])
    for number, act in enumerate(before):
        moved.does(*act, number)
        never.does(*act, number)
    moved.grow(counts[1])
    for number, act in enumerate(after, start=len(before)):
        moved.does(*act, number)
        never.does(*act, number)
    for minutes in (1, 2, 20, 60 * 26):
        moved.tick(NOW_MS + 100_000 + minutes * MINUTE_MS)
        never.tick(NOW_MS + 100_000 + minutes * MINUTE_MS)

    for kind in (Kind.KEY, Kind.ROTATION, Kind.FINGERPRINT):
        assert moved.all(kind) == never.all(kind)
        for number, state in enumerate(moved.states):
            held, expected = state.dump(), never.states[number].dump()
            assert {key: held[key] for key in held if key[0] == kind} == {
                key: expected[key] for key in expected if key[0] == kind
            }
    assert moved.told == never.told


def test_a_gap_of_the_old_generation_is_still_given_up_and_a_late_batch_of_it_no_longer_read() -> None:
    keys = Keys(2)
    for number in (0, 2):
        sent = keys.sender.seal(event(), partition=1, sequence=number)
        keys.send(1, sent.batch.value, NOW_MS, tuple(sent.batch.headers()))

    late = keys.sender.seal(event(), partition=1, sequence=1)
    keys.grow(4)
    keys.send(1, late.batch.value, NOW_MS, tuple(late.batch.headers()))
    keys.tick(NOW_MS + HOUR_MS + 1)

    assert keys.all(Kind.CHAIN) == {b"\xaa" * 16 + b"\x00\x01\x00\x01": [1]}
    (ident,) = keys.states[1].idents(Kind.CHAIN)
    chain = keys.states[1].get(Kind.CHAIN, ident, Chain)
    meter = keys.states[1].get(Kind.METER, b"keys", Meter)
    assert chain is not None
    assert meter is not None
    assert (chain.gaps, meter.lost, meter.rejected) == ([], 1, {"seal_invalid": 1})


def test_what_the_meter_says_of_offsets_is_not_said_of_the_new_topic() -> None:
    keys = Keys(1)
    sent = keys.sender.seal(event(), sequence=0)
    for _ in range(2):
        keys.send(0, sent.batch.value, NOW_MS, tuple(sent.batch.headers()))
    old = keys.states[0].get(Kind.METER, b"keys", Meter)
    assert old is not None
    assert old.refused
    assert old.reached_ms

    keys.grow(2)

    new = keys.states[0].get(Kind.METER, b"keys", Meter)
    assert new is not None
    assert (new.batches, new.duplicates, new.refused, new.reached_ms) == (1, 1, {}, 0)


# correlate

KEKS = [f"kek-{number}" for number in range(6)]


def join_step(_: int) -> Step:
    return JoinStep(registry=registry(), limits=LIMITS)


def say(parted: Parted, said: Claim | Use | Progress, at_ms: int) -> None:
    value = correlate.encode(said)
    if isinstance(said, Progress):
        for place in range(len(parted.states)):
            parted.send(place, value, at_ms)
    else:
        parted.send(partition_of(partition_key(said.vault, said.name), len(parted.states)), value, at_ms)


def call(number: int, kek: str) -> list[Claim | Use]:
    name = f"{kek}-{number}"
    return [
        replace(intent(name), name=kek),
        replace(outcome(name), name=kek),
        use(name, correlation=f"request-{name}", name=kek),
        use(f"other-{name}", principal_id="stranger", name=kek),
    ]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(st.sampled_from(KEKS), min_size=1, max_size=6), COUNTS)
def test_a_join_under_way_ends_as_if_nothing_had_happened(
    data: st.DataObject, keks: list[str], counts: tuple[int, int]
) -> None:
    said = data.draw(st.permutations([one for number, kek in enumerate(keks) for one in call(number, kek)]))
    half = data.draw(st.integers(0, len(said)))
    live = progress(T0 - MINUTE_MS)
    moved, never = (Parted(CORRELATE, join_step, count) for count in counts)
    for parted in (moved, never):
        for one in [live, *said[:half]]:
            say(parted, one, T0 + 100)
        parted.tick(T0 + 30_000)
    moved.migrate(counts[1])
    for parted in (moved, never):
        parted.tick(T0 + 3 * MINUTE_MS)
        for one in [*said[half:], progress(T0 + 3 * MINUTE_MS)]:
            say(parted, one, T0 + 3 * MINUTE_MS)
        for minutes in (4, 16, 62):
            parted.tick(T0 + minutes * MINUTE_MS)

    for kind in (Kind.USE, Kind.CLAIM, Kind.KEK, Kind.SOURCE):
        assert moved.all(kind) == never.all(kind)
    for mine, others in zip(moved.states, never.states, strict=True):
        assert _verdicts(mine) == _verdicts(others)
    assert moved.hits() == never.hits()


@pytest.mark.parametrize("kek", KEKS)
def test_hits_taken_back_before_and_after_add_up(kek: str) -> None:
    parted = Parted(CORRELATE, join_step, 2)
    for name in ("a", "b"):
        say(parted, use(name, correlation=f"request-{name}", name=kek), T0 + 100)
    for minutes in (1, 3, 4):
        parted.tick(T0 + minutes * MINUTE_MS)
    assert list(parted.hits().values()) == [2]
    say(parted, replace(outcome("a"), name=kek), T0 + 5 * MINUTE_MS)
    assert list(parted.hits().values()) == [1]

    parted.migrate(5)
    say(parted, replace(outcome("b"), name=kek), T0 + 6 * MINUTE_MS)

    assert parted.hits() == {}


def _verdicts(state: State) -> dict[bytes, tuple[object, ...]]:
    known = ((ident, state.get(Kind.USE, ident, UseState)) for ident in state.idents(Kind.USE))
    return {
        ident: (one.use.status, one.use.reason, one.use.event_id, one.use.final, len(one.counted))
        for ident, one in known
        if one is not None
    }


def test_every_new_partition_knows_the_latest_word_on_each_process() -> None:
    old = [State(), State()]
    one = InstanceState(source="billing", passed_ms=5, state="live", seen_ms=5, heard=True)
    old[0].put(Kind.SOURCE, b"billing/aa", one)
    old[1].put(Kind.SOURCE, b"billing/aa", InstanceState(source="billing", passed_ms=9, state="live", seen_ms=9))
    old[1].put(Kind.SOURCE, b"billing/bb", InstanceState(source="billing", passed_ms=9, state="closed", seen_ms=9))

    for state in repartition(CORRELATE, old, 3):
        assert state.get(Kind.SOURCE, b"billing/aa", InstanceState) == one
        assert state.count(Kind.SOURCE) == 2


# vault-access

PLACES = DefaultPartitioner()


def feed(parted: Parted, original: dict[str, Any]) -> None:
    key = file_key(original)
    numbers = list(range(len(parted.states)))
    place = PLACES(key, numbers, numbers)
    parted.send(place, wrap(original, feed="test", resource_id=None, fetched_us=T0 * 1000), T0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), COUNTS)
def test_a_copy_of_a_vault_record_that_comes_after_the_change_is_one(names: list[int], counts: tuple[int, int]) -> None:
    originals = []
    for number in names:
        original = record("KeyUnwrap", 200)
        uri = f"https://kt-prod.vault.azure.net/keys/kek-{number}/c0ffee00c0ffee00c0ffee00c0ffee00/unwrapkey"
        original["properties"] = original["properties"] | {"id": uri, "requestUri": uri}
        originals.append(original)
    vault = Parted(VAULT_ACCESS, lambda _: VaultStep(limits=LIMITS), counts[0])
    for original in originals:
        feed(vault, original)
    assert vault.documents == len(set(names))

    vault.migrate(counts[1])
    for original in originals:
        feed(vault, original)

    assert vault.documents == len(set(names))


# who

PRINCIPALS = [SERVICE, OTHER, *(f"{number:08x}-0000-4000-8000-00000000000a" for number in range(6))]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PRINCIPALS), st.integers(0, 3), st.integers(0, 90)), max_size=30), COUNTS)
def test_what_is_known_of_a_principal_and_of_an_address_goes_where_its_messages_go(
    seen: list[tuple[str, int, int]], counts: tuple[int, int]
) -> None:
    made = steps(Registry(DEPLOYMENT, ()), LIMITS)[WHO]
    moved, never = Parted(WHO, made, counts[0]), Parted(WHO, made, counts[1])
    for parted in (moved, never):
        for who, vault, minutes in seen:
            _observe(parted, access(T0 + minutes * MINUTE_MS, who=who, vault=f"kv-{vault}"))
            _observe(parted, challenge(T0 + minutes * MINUTE_MS, address=f"198.51.100.{vault}"))
        parted.tick(T0 + 2 * HOUR_MS)
    moved.migrate(counts[1])

    assert moved.told == never.told
    for kind, of in ((Kind.PRINCIPAL, Profile), (Kind.BIN, Bin), (Kind.ADDRESS, Lonely)):
        assert moved.all(kind) == never.all(kind)
        for mine, others in zip(moved.states, never.states, strict=True):
            for ident in mine.idents(kind):
                assert mine.get(kind, ident, of) == others.get(kind, ident, of)
    assert {frozenset(_vaults(state)) for state in moved.states} == {frozenset(f"kv-{vault}" for _, vault, _ in seen)}


def _observe(parted: Parted, seen: Any) -> None:
    effects = Effects()
    tell(seen, seen.time_us // 1000, [], effects)
    for out in effects.out:
        parted.send(partition_of(out.key, len(parted.states)), out.value, seen.time_us // 1000)


def _vaults(state: State) -> set[str]:
    meter = state.get(Kind.METER, b"who", WhoMeter)
    return set(meter.vaults) if meter else set()


# Findings and what nobody thought of


@pytest.mark.parametrize("topic", MOVED)
def test_a_kind_without_a_rule_is_named_and_nothing_is_done(topic: str) -> None:
    state = State()
    state.put(Kind.ALERT, b"x", Chain("billing"))

    with pytest.raises(NoRule, match=f"{topic}: records of kind ALERT"):
        repartition(topic, [state], 2)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MOVED), COUNTS, st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.text(max_size=9))))
def test_no_finding_is_lost(topic: str, counts: tuple[int, int], found: list[tuple[bytes, str]]) -> None:
    old = [State() for _ in range(counts[0])]
    for number, (fingerprint, key) in enumerate(found):
        old[number % counts[0]].put(Kind.FINGERPRINT, fingerprint, _open(key))

    new = repartition(topic, [reloaded(state) for state in old], counts[1])

    held = {ident for state in new for ident in state.idents(Kind.FINGERPRINT)}
    assert held == {fingerprint for fingerprint, _ in found}


def _open(key: str) -> OpenFinding:
    return OpenFinding(
        finding_id="f" * 64,
        opened_ms=T0,
        count=1,
        sent_count=1,
        sent_ms=T0,
        hit_ms=T0,
        first_ms=T0,
        last_ms=T0,
        finding=system_finding("seal_invalid", summary="", effective_ms=T0, key=key),
    )
