"""The short way of plain uses comes to what the trail and `event_document` come to, over any batches."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptocore.batch import OpenedBatch
from cryptocore.events import AuditEvent, Operation, Outcome, OwnerRef, Reason
from cryptocore.keys import KeyState
from cryptocore.lines.plain_uses import PlainUse
from streams.index.documents import DAY_MS
from streams.messages import Message
from streams.state import Kind
from streams.trail.key_history import KeyHistory
from streams.trail.keys import KeysStep
from tests.streams.builders import KEY_ID, NOW_MS, Monitor, Sender, event, fresh_id, registered, revoked

KEYS = ("5f2a" + "0" * 28, "77" * 16)
OWNERS = (OwnerRef(tenant_id="t-88", integration_id="crm"), OwnerRef(secret_name='api"\\key'))


class Slow(KeysStep):
    """A step that is given every line decoded."""

    def _open(self, message: Message) -> OpenedBatch:
        opened = super()._open(message)
        return replace(opened, read=[*opened.lines])


class Fast(KeysStep):
    """A step that counts the plain uses it is given."""

    plain = 0

    def _open(self, message: Message) -> OpenedBatch:
        opened = super()._open(message)
        self.plain += sum(isinstance(line, PlainUse) for line in opened.read)
        return opened


def monitors(sender: Sender, **registration: Any) -> tuple[Monitor, Monitor]:
    made = []
    for kind in (Fast, Slow):
        monitor = Monitor(registered(sender.service, sender.signer, **registration), partitions=1)
        monitor.steps = [kind(registry=monitor.registry, limits=monitor.limits, generation=1, partition=0)]
        made.append(monitor)
    return made[0], made[1]


def assert_alike(fast: Monitor, slow: Monitor) -> None:
    assert fast.documents == slow.documents
    assert fast.outs == slow.outs
    assert fast.states[0].dump() == slow.states[0].dump()
    assert fast.meter() == slow.meter()


def plain_uses(monitor: Monitor) -> int:
    [step] = monitor.steps
    assert isinstance(step, Fast)
    return step.plain


uses = st.builds(
    event,
    st.sampled_from([Operation.ENCRYPT, Operation.DECRYPT]),
    at_ms=st.integers(-400, 5).map(lambda seconds: NOW_MS + seconds * 1_000) | st.just(NOW_MS - 40 * 86_400_000),
    key_id=st.sampled_from(KEYS),
    version=st.integers(1, 2),
    revision=st.integers(1, 4),
    owner=st.sampled_from(OWNERS),
    actor=st.sampled_from(["user:1", 'user:"quoted"', "job:nightly"]),
    host=st.sampled_from([None, "node-7"]),
    address=st.sampled_from([None, "10.1.2.3"]),
    trace_id=st.sampled_from([None, "a" * 32, "b"]),
)
others = st.one_of(
    st.builds(event, outcome=st.just(Outcome.FAILED), reason=st.just(Reason.BAD_TAG), key_id=st.sampled_from(KEYS)),
    st.builds(event, st.just(Operation.CREATE), key_id=st.sampled_from(KEYS), revision=st.just(1)),
    st.builds(event, st.just(Operation.ACTIVATE), key_id=st.sampled_from(KEYS), revision=st.just(2)),
    st.builds(
        event,
        st.just(Operation.SUSPEND),
        key_id=st.sampled_from(KEYS),
        revision=st.just(3),
        state=st.just(KeyState.SUSPENDED),
    ),
    st.builds(revoked, key_id=st.sampled_from(KEYS), revision=st.integers(3, 4), at_ms=st.just(NOW_MS - 60_000)),
)
batches = st.lists(
    st.tuples(st.lists(uses | others, min_size=1, max_size=8), st.sampled_from([0, 0, 0, -200_000, 600_000])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(batches, st.booleans())
def test_documents_state_and_findings_are_the_same_either_way(
    sent: list[tuple[list[AuditEvent], int]], compromised: bool
) -> None:
    sender = Sender("billing")
    fast, slow = monitors(sender, compromised_from_ms=NOW_MS if compromised else None)
    for lines, offset_ms in sent:
        batch = sender.seal(*lines, sealed_ms=NOW_MS + offset_ms)
        fast.take(batch)
        slow.take(batch)

    assert_alike(fast, slow)


@pytest.mark.parametrize("revision_told", [0, 2])
def test_most_uses_of_a_fleet_go_the_short_way(revision_told: int) -> None:
    sender = Sender("billing")
    fast, slow = monitors(sender)
    begun = [event(Operation.ACTIVATE, revision=revision_told)] if revision_told else []
    met = [event(at_ms=NOW_MS + n, actor=f"user:{n}") for n in range(3)]
    again = [event(at_ms=NOW_MS + 10 + n % 7, actor=f"user:{n % 3}", id=fresh_id()) for n in range(40)]
    for lines in ([*begun, *met], again):
        batch = sender.seal(*lines)
        fast.take(batch)
        slow.take(batch)

    assert plain_uses(fast) >= len(again)
    assert_alike(fast, slow)


@pytest.mark.parametrize(
    ("before", "use", "found"),
    [
        ([revoked()], {"revision": 3, "at_ms": NOW_MS + 500}, "revoked_key_decrypt"),
        ([revoked()], {"revision": 2, "at_ms": NOW_MS + 500}, "revoked_key_decrypt"),
        (
            [event(Operation.SUSPEND, revision=3, state=KeyState.SUSPENDED, at_ms=NOW_MS - 290_000)],
            {},
            "key_state_regression",
        ),
    ],
    ids=["at the revoking revision", "at the one before", "at a revision that is long gone"],
)
def test_a_use_that_a_rule_or_the_trail_objects_to_does_not_go_the_short_way(
    before: list[AuditEvent], use: dict[str, Any], found: str
) -> None:
    sender = Sender("billing")
    fast, slow = monitors(sender)
    for lines in ([event(Operation.ACTIVATE, revision=2), event()], [event()], before, [event(**use)]):
        batch = sender.seal(*lines)
        fast.take(batch)
        slow.take(batch)

    assert plain_uses(fast) >= 2
    assert fast.found() == {found: 1}
    assert_alike(fast, slow)


def test_a_use_at_a_revision_that_was_not_told_yet_is_waited_for() -> None:
    sender = Sender("billing")
    fast, slow = monitors(sender)
    for lines in ([event(Operation.ACTIVATE, revision=2), event()], [event(revision=5)], [event(revision=5)]):
        batch = sender.seal(*lines)
        fast.take(batch)
        slow.take(batch)

    history = fast.states[0].get(Kind.KEY, bytes.fromhex(KEY_ID), KeyHistory)
    assert history is not None
    assert (history.versions[0].used, history.versions[0].ahead_ms) == (5, NOW_MS)
    assert_alike(fast, slow)


def test_a_use_told_by_a_compromised_signer_is_not_remembered() -> None:
    sender = Sender("billing")
    fast, slow = monitors(sender, compromised_from_ms=NOW_MS + 1)
    for append_ms in (NOW_MS, NOW_MS, NOW_MS + 1):
        batch = sender.seal(event())
        fast.take(batch, append_ms=append_ms)
        slow.take(batch, append_ms=append_ms)

    history = fast.states[0].get(Kind.KEY, bytes.fromhex(KEY_ID), KeyHistory)
    assert history is not None
    assert history.counts == {"decrypt/succeeded": 2}
    assert_alike(fast, slow)


def test_uses_around_midnight_go_to_their_own_days() -> None:
    sender = Sender("billing")
    fast, slow = monitors(sender)
    midnight_ms = NOW_MS - NOW_MS % DAY_MS
    for _ in range(2):
        batch = sender.seal(*(event(at_ms=midnight_ms + n) for n in (-1, 0, 1)), sealed_ms=midnight_ms + 2)
        fast.take(batch, append_ms=midnight_ms + 3)
        slow.take(batch, append_ms=midnight_ms + 3)

    assert [document.day_ms for document in fast.documents] == 2 * [midnight_ms - DAY_MS, midnight_ms, midnight_ms]
    assert_alike(fast, slow)
