"""The keys agent: documents, claims, key histories, rules and clocks, over real sealed batches."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.model import RecentUse
from cryptocore.clock import rfc3339_ms
from cryptocore.events import AuditEvent, KekRef, Operation, Outcome, Phase, Reason, VaultAttempt, encode_line
from cryptocore.keys import KeyState
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from streams.index.documents import OUT_OF_RANGE
from streams.index.port import DocKind
from streams.index.writer import IndexWriter
from streams.log.statelog import MemoryLog, MemoryStateLog
from streams.messages import CORRELATE, KEY_EVENTS, SOURCES, Effects, Message
from streams.presence.sources import Control, Received, decode
from streams.running.partition_owner import PartitionOwner
from streams.state import Kind
from streams.trail.key_history import (
    _OPERATIONS,
    _OUTCOMES,
    _REASONS,
    MAX_VERSIONS,
    KeyHistory,
    Recent,
    pack_use,
    unpack_use,
)
from streams.trail.keys import KeysStep
from tests.streams.builders import (
    DEPLOYMENT,
    KEY_ID,
    NOW_MS,
    Monitor,
    Sender,
    event,
    fresh_id,
    registered,
    revoked,
)
from tests.streams.counting import DictIndex

MINUTE = 60_000
HOUR = 60 * MINUTE


def billing(partitions: int = 1) -> tuple[Sender, Monitor]:
    sender = Sender("billing")
    return sender, Monitor(registered("billing", sender.signer), partitions=partitions)


def history(monitor: Monitor, key_id: str = KEY_ID, partition: int = 0) -> KeyHistory:
    found = monitor.states[partition].get(Kind.KEY, bytes.fromhex(key_id), KeyHistory)
    assert found is not None
    return found


def uses(monitor: Monitor) -> list[RecentUse]:
    return list(Recent(history(monitor).uses))


def created(*, at_ms: int = NOW_MS, revision: int = 1) -> AuditEvent:
    return event(Operation.CREATE, at_ms=at_ms, revision=revision, state=KeyState.PRE_ACTIVATION)


def activated(*, at_ms: int = NOW_MS, revision: int = 2) -> AuditEvent:
    return event(Operation.ACTIVATE, at_ms=at_ms, revision=revision)


def unwrapped(at_ms: int, *, revision: int = 2) -> AuditEvent:
    at = rfc3339_ms(at_ms)
    attempt = VaultAttempt(call_id=fresh_id(), request_id="r-1", http_status=200, started_at=at, ended_at=at)
    return event(
        Operation.UNWRAP,
        at_ms=at_ms,
        revision=revision,
        phase=Phase.OUTCOME,
        kek=KekRef(vault="kv", name="kek", version="a" * 32),
        intent_id=fresh_id(),
        vault_attempts=(attempt,),
    )


# Documents


def test_every_line_of_a_batch_becomes_one_document_with_the_line_as_it_came() -> None:
    sender, monitor = billing()
    events = [event(at_ms=NOW_MS + n) for n in range(5)]
    monitor.take(sender.open(), sender.seal(*events))

    kinds = [document.kind for document in monitor.documents]
    assert kinds == [DocKind.CONTROL] + [DocKind.EVENT] * 5
    for document, source in zip(monitor.documents[1:], events, strict=True):
        body = msgspec.json.decode(document.body)
        assert document.id == source.id
        assert encode_line(source) in document.body
        assert body["keytrail"]["batch"]["sequence"] == 1


def test_documents_written_again_are_the_same_bytes() -> None:
    sender, monitor = billing()
    messages = [
        monitor.message(sent)._replace(offset=offset)
        for offset, sent in enumerate([sender.open(), sender.seal(event(), revoked()), sender.beat()])
    ]
    garbage = messages[0]._replace(offset=3, headers=())
    monitor.take(*messages, garbage)
    again = Effects()
    for message in (*messages, garbage):
        monitor.steps[0].reindex(message, again)

    assert again.documents == monitor.documents


def test_a_batch_that_was_not_applied_gets_no_event_documents_when_written_again_even_after_a_takeover() -> None:
    sender, monitor = billing()
    twin = Sender("billing", sender.signer)
    first = monitor.message(sender.seal(event()))
    repeat, fork = first._replace(offset=1), monitor.message(twin.seal(event()))._replace(offset=2)
    monitor.take(first, repeat, fork)
    monitor.restore()
    again = Effects()
    for message in (first, repeat, fork):
        monitor.steps[0].reindex(message, again)

    assert again.documents == monitor.documents
    assert [document.kind for document in again.documents] == [DocKind.EVENT, DocKind.REJECTED]


def test_days_out_of_range_are_one_finding_a_source_and_the_event_is_kept() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(event(at_ms=NOW_MS - 40 * 24 * HOUR), event(at_ms=NOW_MS - 40 * 24 * HOUR)))

    assert monitor.found() == {"out_of_range": 1}
    assert [document.day_ms for document in monitor.documents] == [OUT_OF_RANGE, OUT_OF_RANGE]


# Messages for others


def test_control_lines_and_every_batch_are_told_to_the_sources_agent() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.seal(event()))

    told = [decode(value) for value in monitor.values(SOURCES)]
    control = next(one for one in told if isinstance(one, Control))
    received = [one for one in told if isinstance(one, Received)]
    assert (control.source, control.instance, control.sequence) == ("billing", sender.instance.hex(), 0)
    assert '"type":"chain.open"' in control.line
    assert [(one.sequence, one.count, one.verdict) for one in received] == [(0, 1, "next"), (1, 1, "next")]
    assert received[1].digest == sender.heads[0].digest


def test_a_call_of_the_vault_claims_its_record_before_and_after() -> None:
    sender, monitor = billing()
    kek, call_id = KekRef(vault="kv-prod", name="tenant-kek", version="v1"), fresh_id()
    intent = event(Operation.UNWRAP, None, phase=Phase.INTENT, kek=kek, call_ids=(call_id,))
    attempt = VaultAttempt(call_id=call_id, request_id="r-1", http_status=200, started_at=rfc3339_ms(NOW_MS))
    outcome = event(Operation.UNWRAP, phase=Phase.OUTCOME, kek=kek, intent_id=intent.id, vault_attempts=(attempt,))
    monitor.take(sender.seal(intent, outcome, event()))

    claims = [one for one in monitor.correlated() if one["type"] == "claim"]
    assert [(one["event_id"], one["phase"]) for one in claims] == [(intent.id, "intent"), (outcome.id, "outcome")]
    assert claims[0]["call_ids"] == [call_id]
    assert (claims[1]["intent_id"], claims[1]["attempts"][0]["request_id"]) == (intent.id, "r-1")
    assert claims[1]["source"] == "billing"
    assert [out.key for out in monitor.outs if out.topic == CORRELATE] == [b"kv-prod/tenant-kek"] * 2
    assert [use.operation for use in uses(monitor)] == [Operation.UNWRAP, Operation.DECRYPT]


# Time


@pytest.mark.parametrize(
    ("occurred", "sealed", "appended", "believed"),
    [
        (0, 0, 0, True),
        (-5 * MINUTE, 0, 0, True),
        (-5 * MINUTE - 1, 0, 0, False),
        (1_000, 0, 5_000, True),
        (1_001, 0, 5_000, False),
        (2 * MINUTE, 2 * MINUTE, 0, True),
        (2 * MINUTE + 1, 2 * MINUTE + 1, 0, False),
        (-HOUR, -HOUR, 0, True),
    ],
)
def test_a_senders_clock_is_believed_within_the_limits_of_the_format(
    occurred: int, sealed: int, appended: int, believed: bool
) -> None:
    sender, monitor = billing()
    at_ms = NOW_MS + HOUR
    sent = sender.seal(event(at_ms=at_ms + occurred), sealed_ms=at_ms + sealed)
    monitor.take(sent, append_ms=at_ms + appended)

    assert uses(monitor)[0].effective_ms == (at_ms + occurred if believed else at_ms + appended)


def test_a_batch_sealed_before_the_one_it_follows_is_judged_by_the_brokers_time_and_told() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(event(), sealed_ms=NOW_MS))
    monitor.take(sender.seal(event(at_ms=NOW_MS - 2_000), sealed_ms=NOW_MS - 1_000), append_ms=NOW_MS + 500)

    assert [use.effective_ms for use in uses(monitor)] == [NOW_MS, NOW_MS + 500]
    assert monitor.found() == {"clock_untrusted": 1}


# Key histories


def test_a_use_of_a_revoked_key_is_found() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), activated()))
    monitor.take(sender.seal(revoked(at_ms=NOW_MS + 1)))
    late = event(outcome=Outcome.DENIED, reason=Reason.KEY_STATE, at_ms=NOW_MS + 5, revision=3)
    monitor.take(sender.seal(late, sealed_ms=NOW_MS + 5))

    assert monitor.found() == {"revoked_key_decrypt": 1}
    version = history(monitor).version(1)
    assert (version.state, version.revision, version.revoked_ms, version.revoked_in) == (
        "revoked",
        3,
        NOW_MS + 1,
        3,
    )
    assert version.revocation_reason == "compromise_suspected"


def test_a_revoke_that_arrives_late_looks_back_over_the_uses_after_it() -> None:
    sender, monitor = billing()
    before, after, older = event(at_ms=NOW_MS - 50), event(at_ms=NOW_MS + 50), event(at_ms=NOW_MS + 60, version=2)
    monitor.take(sender.seal(before, after, older))
    assert monitor.found() == {}

    monitor.take(sender.seal(revoked(at_ms=NOW_MS)))

    monitor.tick(NOW_MS + 2 * MINUTE)
    (message,) = [one for one in monitor.findings() if one.finding.rule_id == "revoked_key_decrypt"]
    assert (message.count, message.finding.severity.value) == (1, "critical")
    assert [proof.id for proof in message.finding.evidence] == [after.id]


def test_a_use_that_was_still_allowed_and_arrives_after_the_revoke_is_silent() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(revoked(at_ms=NOW_MS)))
    monitor.take(sender.seal(event(at_ms=NOW_MS - 1)))

    assert monitor.found() == {}


def test_a_process_that_goes_on_with_an_old_record_of_a_revoked_key_is_told_once() -> None:
    """One cause, one finding: the old revision is the reason why the revocation did not hold."""
    sender, monitor = billing()
    at_ms = NOW_MS + 10 * MINUTE
    monitor.take(sender.seal(created(), activated(), revoked()))
    monitor.take(sender.seal(unwrapped(at_ms), event(at_ms=at_ms), sealed_ms=at_ms), append_ms=at_ms)
    assert set(monitor.found()) == {"revoked_key_decrypt"}

    monitor.take(sender.seal(event(Operation.ENCRYPT, at_ms=at_ms), sealed_ms=at_ms), append_ms=at_ms)
    assert set(monitor.found()) == {"revoked_key_decrypt", "key_state_regression"}


def test_an_unwrap_of_a_revoked_key_that_knows_of_it_is_a_recovery() -> None:
    sender, monitor = billing()
    at_ms = NOW_MS + 10 * MINUTE
    monitor.take(sender.seal(created(), activated(), revoked()))
    monitor.take(sender.seal(unwrapped(at_ms, revision=3), sealed_ms=at_ms), append_ms=at_ms)

    assert monitor.found() == {}


async def test_revocations_are_counted_once_each_for_the_figures_and_those_of_others_are_not() -> None:
    sender, monitor = billing()
    again = revoked(at_ms=NOW_MS + 1)
    mailer = Sender("mailer", instance=b"\xbb" * 16)
    may_not = registered("mailer", mailer.signer, Role.EVENTS)
    registry = Registry(DEPLOYMENT, (registered("billing", sender.signer), may_not))
    owner = PartitionOwner(
        KeysStep(registry=registry, limits=monitor.limits, generation=1, partition=0),
        0,
        log=MemoryStateLog(MemoryLog({KEY_EVENTS: 1}), KEY_EVENTS, 0),
        index=IndexWriter(DictIndex()),
        monotonic=lambda: 0.0,
    )
    await owner.open(0)

    batches = (
        sender.seal(again),
        sender.seal(again, event(revision=3)),
        sender.seal(revoked(key_id="bb" * 16)),
        mailer.seal(revoked(key_id="cc" * 16)),
    )
    counted = []
    for offset, sent in enumerate(batches):
        owner.apply(monitor.message(sent)._replace(offset=offset))
        counted.append(owner.revocations)

    assert counted == [1, 1, 2, 2]


def test_the_same_life_cycle_event_sent_twice_by_the_relay_is_dropped() -> None:
    sender, monitor = billing()
    other = Sender("billing", sender.signer, instance=b"\xbb" * 16)
    revoke = revoked()
    monitor.take(sender.seal(revoke))
    documents = len(monitor.documents)
    before = monitor.states[0].dump()[bytes((Kind.KEY,)) + bytes.fromhex(KEY_ID)]
    monitor.take(other.seal(revoke))

    assert (monitor.meter().repeats, len(monitor.documents), monitor.found()) == (1, documents, {})
    assert monitor.states[0].dump()[bytes((Kind.KEY,)) + bytes.fromhex(KEY_ID)] == before


def test_another_life_cycle_event_for_a_revision_that_is_held_is_a_regression() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), activated(), revoked()))
    monitor.take(sender.seal(event(Operation.RESUME, revision=3)))

    assert monitor.found() == {"key_state_regression": 1}
    assert history(monitor).version(1).state == "revoked"


def test_a_version_that_leaves_revoked_is_a_regression() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), activated(), revoked()))
    monitor.take(sender.seal(event(Operation.RESUME, revision=4)))

    assert monitor.found() == {"key_state_regression": 1}


def test_destroying_a_revoked_version_is_no_regression() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), activated(), revoked()))
    monitor.take(sender.seal(event(Operation.DESTROY, revision=4, state=KeyState.DESTROYED)))

    assert monitor.found() == {}


def test_a_skipped_revision_is_waited_for_and_then_told_once() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), revoked(revision=3)))
    monitor.tick(NOW_MS + 9 * MINUTE)
    assert "key_state_regression" not in monitor.found()
    monitor.restore()
    monitor.tick(NOW_MS + 30 * MINUTE)

    assert monitor.found()["key_state_regression"] == 1


def test_a_skipped_revision_that_comes_in_time_is_no_finding() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), revoked(revision=3)))
    monitor.take(sender.seal(activated(revision=2)))
    monitor.tick(NOW_MS + 30 * MINUTE)

    assert "key_state_regression" not in monitor.found()
    assert history(monitor).version(1).state == "revoked"


def test_an_older_revision_is_allowed_for_as_long_as_a_cache_may_live_and_is_then_a_regression() -> None:
    sender, monitor = billing()
    suspended = event(Operation.SUSPEND, at_ms=NOW_MS, revision=3, state=KeyState.SUSPENDED)
    monitor.take(sender.seal(created(at_ms=NOW_MS - 10), activated(at_ms=NOW_MS - 9), suspended))
    monitor.take(sender.seal(event(at_ms=NOW_MS + MINUTE), sealed_ms=NOW_MS + MINUTE), append_ms=NOW_MS + MINUTE)
    assert "key_state_regression" not in monitor.found()
    at_ms = NOW_MS + 4 * MINUTE
    monitor.take(sender.seal(event(at_ms=at_ms), sealed_ms=at_ms), append_ms=at_ms)

    assert monitor.found()["key_state_regression"] == 1


def test_a_revision_in_use_of_which_no_event_tells_is_found_when_it_was_waited_for() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(created(), activated(), event(revision=5)))
    monitor.tick(NOW_MS + 11 * MINUTE)

    assert monitor.found()["key_state_regression"] == 1


def test_a_use_ahead_of_the_first_life_cycle_event_is_waited_for_too() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(event(revision=5), activated(revision=2)))
    monitor.tick(NOW_MS + 11 * MINUTE)

    assert monitor.found()["key_state_regression"] == 1


def test_keys_whose_life_began_before_the_monitor_are_no_finding() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(event(revision=7), activated(revision=8), event(revision=8)))
    monitor.tick(NOW_MS + 30 * MINUTE)

    assert "key_state_regression" not in monitor.found()


@pytest.mark.parametrize(
    ("reason", "finding"),
    [(Reason.RECORD_INVALID, "key_record_invalid"), (Reason.RECORD_ROLLBACK, "key_state_regression")],
)
def test_a_service_that_meets_a_bad_key_record_is_heard(reason: Reason, finding: str) -> None:
    sender, monitor = billing()
    met = event(outcome=Outcome.DENIED, reason=reason)
    monitor.take(sender.seal(met))

    (message,) = [one for one in monitor.findings() if one.finding.rule_id == finding]
    assert (message.finding.key, message.finding.tenant) == (KEY_ID, "t-88")
    assert message.finding.evidence[0].id == met.id


def test_ten_failures_of_one_key_among_many_successes_are_found() -> None:
    sender, monitor = billing()
    events = []
    for n in range(10):
        events.append(event(outcome=Outcome.FAILED, reason=Reason.BAD_TAG, at_ms=NOW_MS - 100_000 + n * 10_000))
        events += [event(at_ms=NOW_MS - 100_000 + n * 10_000 + k) for k in range(1, 10)]
    monitor.take(sender.seal(*events))

    assert monitor.found() == {"crypto_failures": 1}


def test_ten_failures_of_one_service_that_name_no_key_are_found() -> None:
    sender, monitor = billing()
    failed = [
        event(outcome=Outcome.FAILED, reason=Reason.PARSE_ERROR, key_id=None, at_ms=NOW_MS + n) for n in range(10)
    ]
    monitor.take(sender.seal(*failed))

    assert monitor.found() == {"crypto_failures": 1}


# The state record


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_record_of_a_key_does_not_depend_on_how_the_batches_of_two_senders_interleave(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25), label="batches each")
    signer = Signer.generate()
    lines = {
        name: [
            [
                event(
                    data.draw(st.sampled_from([Operation.ENCRYPT, Operation.DECRYPT])),
                    at_ms=NOW_MS + data.draw(st.integers(0, 900)),
                    actor=f"user:{data.draw(st.integers(0, 5))}",
                )
                for _ in range(2)
            ]
            for _ in range(count)
        ]
        for name in "ab"
    }
    order = data.draw(st.permutations("a" * count + "b" * count), label="order")
    records = []
    for arrivals in ("ab" * count, order):
        monitor = Monitor(registered("billing", signer), partitions=1)
        senders = {name: Sender("billing", signer, instance=name.encode() * 16) for name in "ab"}
        waiting = {name: iter(batches) for name, batches in lines.items()}
        for name in arrivals:
            monitor.take(senders[name].seal(*next(waiting[name])))
        records.append(monitor.states[0].dump()[bytes((Kind.KEY,)) + bytes.fromhex(KEY_ID)])

    assert records[0] == records[1]


def test_the_last_uses_are_the_last_by_time() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(*(event(at_ms=NOW_MS - 60_000 + n * 1_000) for n in range(40))))
    monitor.take(sender.seal(event(at_ms=NOW_MS - 200_000)))

    assert [use.effective_ms for use in uses(monitor)] == [NOW_MS - 60_000 + n * 1_000 for n in range(8, 40)]
    assert history(monitor).counts == {"decrypt/succeeded": 41}
    assert history(monitor).last_ms == NOW_MS - 60_000 + 39_000


def test_a_packed_use_reads_back_as_it_was() -> None:
    for operation in (Operation.DECRYPT, Operation.ENCRYPT, Operation.TOKEN_USE):
        told = event(operation, Outcome.FAILED, reason=Reason.BAD_TAG)

        use = unpack_use(pack_use(told, Outcome.FAILED, NOW_MS))

        assert use == RecentUse(
            told.id, NOW_MS, operation, Outcome.FAILED, 2, 1, told.actor, told.purpose, told.service, Reason.BAD_TAG
        )


def test_the_numbers_that_stored_uses_carry_for_words_never_change() -> None:
    assert _OUTCOMES == ("succeeded", "denied", "failed", "unknown")
    assert _OPERATIONS[:6] == ("encrypt", "decrypt", "reencrypt", "wrap", "unwrap", "create")
    assert _OPERATIONS[12:] == ("archive", "destroy", "token.store", "token.use", "token.regenerate",
                                "token.expire", "token.invalidate", "summary")  # fmt: skip
    assert _REASONS[:5] == (None, "parse_error", "unknown_key", "owner_mismatch", "bad_tag")
    assert (len(_REASONS), _REASONS[-1]) == (23, "operator")


def test_invented_versions_do_not_push_out_what_is_known_of_a_real_one() -> None:
    sender, monitor = billing()
    monitor.take(sender.seal(revoked(at_ms=NOW_MS - 1_000)))
    monitor.take(sender.seal(*(event(version=100 + n) for n in range(MAX_VERSIONS + 10))))
    monitor.take(sender.seal(event(at_ms=NOW_MS + 10)))

    assert len(history(monitor).versions) == MAX_VERSIONS
    assert monitor.found() == {"revoked_key_decrypt": 1}


def test_only_the_life_cycle_makes_room_for_a_version_when_all_are_known() -> None:
    known = KeyHistory()
    for number in range(1, MAX_VERSIONS + 1):
        known.version(number, told=True).note(1, b"d" * 32, NOW_MS)

    known.version(900)
    assert known.versions[0].version == 1
    known.version(901, told=True)
    assert [version.version for version in known.versions][:1] == [2]
    assert len(known.versions) == MAX_VERSIONS


def test_a_takeover_changes_nothing() -> None:
    sender, monitor = billing()
    calm_sender = Sender("billing", sender.signer)
    calm = Monitor(registered("billing", sender.signer), partitions=1)
    batches = [[event(at_ms=NOW_MS + n * 10 + k) for k in range(3)] for n in range(10)]
    batches[4] = [revoked(at_ms=NOW_MS + 45)]
    for lines in batches:
        monitor.take(sender.seal(*lines))
        monitor.restore()
        calm.take(calm_sender.seal(*lines))

    assert monitor.states[0].dump() == calm.states[0].dump()
    assert monitor.found() == calm.found()
    assert "revoked_key_decrypt" in calm.found()


@settings(max_examples=100, deadline=None)
@given(value=st.binary(max_size=300), seal=st.binary(max_size=150), signature=st.binary(max_size=70))
def test_no_bytes_at_all_raise(value: bytes, seal: bytes, signature: bytes) -> None:
    _, monitor = billing()
    headers = (("kt-seal", seal), ("kt-sig", signature))
    monitor.take(Message("key-events", 0, 0, NOW_MS, None, value, headers))

    assert len(monitor.rejected()) == 1
