"""The sources agent: who is silent, what is missing, what ended in order; no word about a deployment that went well."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.joining.correlate import Progress
from streams.joining.correlate import decode as decode_correlated
from streams.messages import CORRELATE, SOURCES, Effects, Message
from streams.presence.instances import MAX_PENDING, Instance, Seen
from streams.presence.sources import Received, decode, encode
from streams.state import Kind
from tests.streams.builders import NOW_MS, Monitor, Sender, event, registered

SECOND = 1_000
MINUTE = 60_000
HOUR = 60 * MINUTE


def billing(partitions: int = 2) -> tuple[Sender, Monitor]:
    sender = Sender("billing")
    return sender, Monitor(registered("billing", sender.signer), partitions=partitions)


def progress(monitor: Monitor) -> list[Progress]:
    messages = [decode_correlated(out.value) for out in monitor.outs if out.topic == CORRELATE and out.to_all]
    return [message for message in messages if isinstance(message, Progress)]


def beating(monitor: Monitor, *senders: Sender, until_ms: int, every_ms: int = 30 * SECOND) -> None:
    """Let time pass while these senders beat."""
    for at_ms in range(monitor.now_ms + every_ms, until_ms + 1, every_ms):
        monitor.tick(at_ms)
        for sender in senders:
            monitor.take(sender.beat(at_ms=at_ms))


# Progress


def test_progress_waits_until_every_head_that_was_named_has_come() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    held_back = sender.seal(event(), partition=1)
    monitor.take(sender.beat(at_ms=NOW_MS + 500))
    assert progress(monitor) == []

    monitor.take(held_back)

    assert progress(monitor) == [
        Progress(v=1, source="billing", instance=sender.instance.hex(), passed_ms=NOW_MS + 500, state="live")
    ]


def test_progress_goes_no_further_than_what_the_sender_has_not_sent() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.beat(at_ms=NOW_MS + 500, unsent_ms=NOW_MS + 100))

    assert [one.passed_ms for one in progress(monitor)] == [NOW_MS + 100]


def test_progress_never_goes_back_and_ends_with_the_close() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.beat(at_ms=NOW_MS + 500))
    monitor.take(sender.beat(at_ms=NOW_MS + 600, unsent_ms=NOW_MS + 100), sender.close(at_ms=NOW_MS + 700))

    assert [(one.passed_ms, one.state) for one in progress(monitor)] == [
        (NOW_MS + 500, "live"),
        (NOW_MS + 700, "closed"),
    ]


def test_a_compromised_signer_makes_no_progress() -> None:
    sender = Sender("billing")
    monitor = Monitor(registered("billing", sender.signer, compromised_from_ms=NOW_MS))
    monitor.take(sender.open(), sender.beat())
    beating(monitor, sender, until_ms=NOW_MS + 5 * MINUTE)

    assert progress(monitor) == []
    assert "silent_source" not in monitor.found()


# Silence


def test_an_instance_that_stops_reporting_is_silent_after_three_intervals() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    beating(monitor, sender, until_ms=NOW_MS + 3 * MINUTE)
    monitor.tick(NOW_MS + 3 * MINUTE + 85 * SECOND)
    assert monitor.found() == {}

    monitor.tick(NOW_MS + 3 * MINUTE + 120 * SECOND)

    assert monitor.found() == {"silent_source": 1}
    (message,) = monitor.findings()
    assert message.opened_ms == NOW_MS + 3 * MINUTE + 90 * SECOND
    assert [one.state for one in progress(monitor)][-1] == "silent"


def test_a_service_whose_pods_all_fall_silent_is_one_finding() -> None:
    senders = [Sender("billing", instance=bytes([n]) * 16) for n in range(1, 6)]
    monitor = Monitor(*(registered("billing", sender.signer) for sender in senders))
    for sender in senders:
        monitor.take(sender.open())
    monitor.tick(NOW_MS + 5 * MINUTE)

    assert monitor.found() == {"silent_source": 5}
    assert len({message.fingerprint for message in monitor.findings()}) == 1


def test_an_instance_that_is_heard_again_takes_its_finding_back() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    monitor.tick(NOW_MS + 2 * MINUTE)
    assert monitor.found() == {"silent_source": 1}

    monitor.take(sender.beat(at_ms=monitor.now_ms))

    assert [(done.count, done.retracted) for done in monitor.resolved()] == [(1, 1)]
    monitor.tick(monitor.now_ms + 80 * SECOND)
    assert len(monitor.findings()) == 1


def test_a_chain_that_was_adopted_and_closed_is_no_silent_source() -> None:
    dead, adopter = Sender("billing"), Sender("billing", instance=b"\xbb" * 16)
    monitor = Monitor(registered("billing", dead.signer), registered("billing", adopter.signer))
    monitor.take(dead.open(), adopter.open(), dead.seal(event(), partition=1))
    beating(monitor, adopter, until_ms=NOW_MS + MINUTE)
    heir = Sender("billing", adopter.signer, instance=dead.instance, heads=dead.heads)
    monitor.take(heir.open(at_ms=monitor.now_ms, continues=adopter.instance), heir.seal(event(), partition=1))
    beating(monitor, adopter, until_ms=NOW_MS + 10 * MINUTE)
    monitor.take(heir.close(at_ms=monitor.now_ms))
    beating(monitor, adopter, until_ms=NOW_MS + 90 * MINUTE)

    assert monitor.found() == {}
    assert ("closed", dead.instance.hex()) in [(one.state, one.instance) for one in progress(monitor)]


def test_a_chain_that_was_adopted_and_never_closed_is_unclosed_after_an_hour() -> None:
    dead, adopter = Sender("billing"), Sender("billing", instance=b"\xbb" * 16)
    monitor = Monitor(registered("billing", dead.signer), registered("billing", adopter.signer))
    monitor.take(dead.open(), adopter.open())
    heir = Sender("billing", adopter.signer, instance=dead.instance, heads=dead.heads)
    monitor.take(heir.open(continues=adopter.instance))
    beating(monitor, adopter, until_ms=NOW_MS + 59 * MINUTE)
    assert monitor.found() == {}
    beating(monitor, adopter, until_ms=NOW_MS + 62 * MINUTE)

    assert monitor.found() == {"chain_unclosed": 1}


def test_an_adopter_that_comes_late_takes_the_silence_back() -> None:
    dead, adopter = Sender("billing"), Sender("billing", instance=b"\xbb" * 16)
    monitor = Monitor(registered("billing", dead.signer), registered("billing", adopter.signer))
    monitor.take(dead.open(), adopter.open())
    beating(monitor, adopter, until_ms=NOW_MS + 70 * MINUTE)
    assert monitor.found() == {"silent_source": 1, "chain_unclosed": 1}
    heir = Sender("billing", adopter.signer, instance=dead.instance, heads=dead.heads)

    monitor.take(heir.open(at_ms=monitor.now_ms, continues=adopter.instance), heir.close(at_ms=monitor.now_ms))

    assert sorted(done.retracted for done in monitor.resolved()) == [1, 1]


def test_a_worker_that_catches_up_after_an_outage_of_its_own_calls_nobody_silent() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    beating(monitor, sender, until_ms=NOW_MS + 2 * MINUTE)
    at = [monitor.now_ms + n * 30 * SECOND for n in range(1, 60)]
    backlog = [(sender.beat(at_ms=at_ms), at_ms) for at_ms in at]
    back_ms = at[-1] + SECOND
    monitor.restore()
    effects = Effects()
    monitor.sources.tick(back_ms, monitor.sources_state, effects)
    for sent, at_ms in backlog:
        monitor.take(sent, append_ms=at_ms)
        monitor.now_ms = back_ms
        monitor.sources.tick(back_ms, monitor.sources_state, effects)

    assert effects.out == []
    monitor.tick(back_ms + 60 * SECOND)
    assert monitor.found() == {}
    monitor.tick(back_ms + 3 * MINUTE)
    assert monitor.found() == {"silent_source": 1}


def test_a_source_that_was_taken_out_of_the_registry_is_not_missed() -> None:
    sender, monitor = billing()
    other = Monitor(registered("crm", Sender("crm").signer))
    monitor.take(sender.open())
    other.sources_state = monitor.sources_state
    other.restore()
    other.tick(NOW_MS + 10 * MINUTE)

    assert other.found() == {}
    assert other.sources_state.count(Kind.SOURCE) == 0


# Order


def test_an_orderly_deployment_of_two_hundred_pods_is_not_worth_a_word() -> None:
    signer = Sender("billing").signer
    monitor = Monitor(registered("billing", signer), partitions=2)
    old = [Sender("billing", signer, instance=b"o" * 14 + n.to_bytes(2, "big")) for n in range(200)]
    new = [Sender("billing", signer, instance=b"n" * 14 + n.to_bytes(2, "big")) for n in range(200)]
    for sender in old:
        monitor.take(sender.open(), sender.seal(event(), partition=1))
    for number, (leaving, coming) in enumerate(zip(old, new, strict=True)):
        at_ms = monitor.now_ms
        monitor.take(coming.open(at_ms=at_ms), coming.seal(event(at_ms=at_ms), partition=1, sealed_ms=at_ms))
        last = leaving.seal(event(at_ms=at_ms), partition=1, sealed_ms=at_ms)
        monitor.take(leaving.close(at_ms=at_ms), last)  # partition 0 is ahead of partition 1
        if number % 10 == 9:
            for sender in (*old[number + 1 :], *new[: number + 1]):
                monitor.take(sender.beat(at_ms=at_ms))
            monitor.tick(at_ms + 20 * SECOND)
    for sender in new:
        monitor.take(sender.close(at_ms=monitor.now_ms))
    monitor.tick(monitor.now_ms + 3 * HOUR, step_ms=MINUTE)

    assert monitor.found() == {}
    assert monitor.sources_state.count(Kind.SOURCE) == 0


def test_an_instance_that_closed_is_forgotten_and_a_later_batch_of_it_is_no_gap() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.seal(event(), partition=1), sender.close())
    monitor.tick(NOW_MS + 3 * HOUR, step_ms=MINUTE)
    assert monitor.sources_state.count(Kind.SOURCE) == 0

    later = sender.seal(event(), partition=1)
    monitor.take(later)
    assert monitor.found() == {}
    monitor.tick(monitor.now_ms + 10 * MINUTE)

    assert monitor.found() == {"silent_source": 1}


def test_what_was_written_before_the_close_and_comes_after_it_does_not_bring_the_instance_back() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    late = sender.beat()
    monitor.take(sender.close())
    monitor.take(late)
    monitor.tick(NOW_MS + 90 * MINUTE)

    assert monitor.found() == {}
    assert [one.state for one in progress(monitor)] == ["closed"]


def test_a_second_gap_after_the_first_has_healed_is_told_again() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    for _ in range(2):
        late = sender.seal(event(), partition=1)
        beating(monitor, sender, until_ms=monitor.now_ms + 6 * MINUTE)
        monitor.take(late)

    assert [message.finding.rule_id for message in monitor.findings()] == ["audit_gap"] * 2
    assert len({message.finding_id for message in monitor.findings()}) == 2
    assert [done.retracted for done in monitor.resolved()] == [1, 1]


def test_a_takeover_changes_nothing() -> None:
    sender, monitor = billing()
    calm_sender = Sender("billing", sender.signer)
    calm = Monitor(registered("billing", sender.signer))
    for one, who, upset in ((monitor, sender, True), (calm, calm_sender, False)):
        one.take(who.open())
        late = who.seal(event(id="00000000-0000-0000-0000-000000000001"), partition=1)
        for at_ms in range(NOW_MS + 30 * SECOND, NOW_MS + 10 * MINUTE, 30 * SECOND):
            one.tick(at_ms)
            one.take(who.beat(at_ms=at_ms))
            if upset:
                one.restore()
        one.take(late)
        one.tick(NOW_MS + 15 * MINUTE)

    assert [m.finding.rule_id for m in monitor.findings()] == ["audit_gap", "silent_source"]
    assert [(m.finding_id, m.count) for m in monitor.findings()] == [(m.finding_id, m.count) for m in calm.findings()]
    assert monitor.resolved() == calm.resolved()


def test_what_nobody_of_ours_wrote_is_rejected() -> None:
    _, monitor = billing()
    effects = Effects()
    message = Message(SOURCES, 0, 0, NOW_MS, None, b'{"type":"received"}')
    monitor.sources.apply(message, NOW_MS, monitor.sources_state, effects)

    assert [out.topic for out in effects.out] == ["rejected"]
    again = Effects()
    monitor.sources.reindex(message, again)
    assert again.documents == effects.documents


def test_messages_of_the_topic_read_back_as_written() -> None:
    told = Received(
        source="billing",
        instance="aa" * 16,
        generation=1,
        partition=3,
        sequence=7,
        digest="d" * 64,
        count=500,
        append_ms=NOW_MS,
        verdict="next",
    )

    assert decode(encode(told)) == told
    assert msgspec.json.decode(encode(told))["type"] == "received"


# What is known of an instance


@settings(max_examples=150, deadline=None)
@given(numbers=st.lists(st.integers(0, 40), max_size=60))
def test_ranges_hold_exactly_the_numbers_that_came(numbers: list[int]) -> None:
    seen = Seen(1, 0)
    for number in numbers:
        seen.add(number, NOW_MS)

    held = set(range(seen.upto + 1)) | {n for first, last in seen.beyond for n in range(first, last + 1)}
    assert held == set(numbers)
    assert seen.missing() == len(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    edges = [seen.upto, *(edge for pair in seen.beyond for edge in pair)]
    assert all(first + 1 < following for first, following in zip(edges[0::2], edges[1::2], strict=False))


def test_heads_that_pile_up_are_bounded_and_the_oldest_keeps_the_clock() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    sender.seal(event(), partition=1)
    beating(monitor, sender, until_ms=NOW_MS + 20 * MINUTE)

    instance = monitor.sources_state.get(Kind.SOURCE, sender.instance, Instance)
    assert instance is not None
    assert len(instance.pending) == MAX_PENDING
    assert instance.pending[0].at_ms == NOW_MS + 30 * SECOND
    assert instance.pending[-1].at_ms == NOW_MS + 20 * MINUTE
