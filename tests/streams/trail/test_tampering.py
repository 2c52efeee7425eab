"""What an attacker, an accident or another deployment can do to sealed batches on their way: found and named."""

import pytest

from alerts.model import FindingMessage
from cryptocore.batch import SealedBatch
from cryptocore.clock import rfc3339_ms
from cryptocore.events import ChainOpen, Durability
from cryptocore.registry import Role
from cryptocore.signing import Signer
from streams.index.port import DocKind
from streams.state import Kind
from streams.trail.key_history import KeyHistory
from tests.streams.builders import KEY_ID, NOW_MS, Monitor, Sender, Sent, event, fresh_id, registered, revoked

MINUTE = 60_000


def billing() -> tuple[Sender, Monitor]:
    sender = Sender("billing")
    return sender, Monitor(registered("billing", sender.signer))


def the_finding(monitor: Monitor, rule: str) -> FindingMessage:
    (last,) = {m.fingerprint: m for m in monitor.findings() if m.finding.rule_id == rule}.values()
    return last


def altered(sent: Sent, **parts: bytes) -> Sent:
    whole = {"value": sent.batch.value, "seal": sent.batch.seal, "signature": sent.batch.signature, **parts}
    return Sent(sent.partition, SealedBatch(**whole), sent.head)


def nothing_was_applied(monitor: Monitor) -> bool:
    kinds = {document.kind for document in monitor.documents}
    return kinds <= {DocKind.REJECTED} and not monitor.states[0].count(Kind.KEY)


@pytest.mark.parametrize("place", [0, 60, -3])
def test_a_changed_byte_of_the_lines_breaks_the_seal(place: int) -> None:
    sender, monitor = billing()
    sent = sender.seal(event())
    value = bytearray(sent.batch.value)
    value[place] ^= 1

    monitor.take(altered(sent, value=bytes(value)))

    assert monitor.found() == {"seal_invalid": 1}
    assert nothing_was_applied(monitor)
    (kept,) = monitor.rejected()
    assert (kept["finding"], kept["partition"], kept["offset"]) == ("seal_invalid", 0, 0)
    assert the_finding(monitor, "seal_invalid").finding.evidence[0].id == "key-events/0/0"


def test_a_change_of_any_byte_of_the_seal_is_found_and_named() -> None:
    sender, monitor = billing()
    sent = sender.seal(event())
    for place in range(len(sent.batch.seal)):
        seal = bytearray(sent.batch.seal)
        seal[place] ^= 1
        monitor.take(altered(sent, seal=bytes(seal)))

    names = [kept["finding"] for kept in monitor.rejected()]
    assert (
        names == ["seal_invalid"] * 5 + ["deployment_mismatch"] * 16 + ["seal_invalid"] * 104 + ["signer_unknown"] * 16
    )
    assert {"seal_invalid", "deployment_mismatch", "signer_unknown"} <= set(monitor.found())
    assert nothing_was_applied(monitor)


def test_a_forged_signature_is_found() -> None:
    sender, monitor = billing()
    sent = sender.seal(event())
    forged = Sender("billing", Signer.generate()).seal(event())

    monitor.take(altered(sent, signature=forged.batch.signature))

    assert monitor.found() == {"seal_invalid": 1}
    assert the_finding(monitor, "seal_invalid").finding.principal == "billing"
    assert nothing_was_applied(monitor)


def test_an_unknown_signer_is_found_and_many_of_them_are_one_finding() -> None:
    _, monitor = billing()

    for _ in range(5):
        monitor.take(Sender("billing", Signer.generate()).seal(event()))
    monitor.tick(NOW_MS + MINUTE)

    assert monitor.found() == {"signer_unknown": 5}
    assert the_finding(monitor, "signer_unknown").finding.principal == ""
    assert nothing_was_applied(monitor)


def test_a_signer_outside_its_validity_is_unknown() -> None:
    sender = Sender("billing")
    monitor = Monitor(registered("billing", sender.signer, valid_ms=(0, NOW_MS)))

    monitor.take(sender.seal(event()))

    assert monitor.found() == {"signer_unknown": 1}


def test_a_batch_of_another_deployment_is_found() -> None:
    sender, monitor = billing()
    other = Sender("billing", sender.signer, deployment=b"\x99" * 16)

    monitor.take(other.seal(event()))

    assert monitor.found() == {"deployment_mismatch": 1}
    assert nothing_was_applied(monitor)


def test_a_service_that_speaks_for_another_is_found_and_none_of_its_lines_counts() -> None:
    sender, monitor = billing()

    monitor.take(sender.seal(event(), event(service="crm")))

    assert monitor.found() == {"source_mismatch": 1}
    assert the_finding(monitor, "source_mismatch").finding.principal == "billing"
    assert nothing_was_applied(monitor)


def test_a_service_that_continues_the_chain_of_another_is_found_and_the_chain_goes_on() -> None:
    sender, thief = Sender("billing"), Sender("crm")
    monitor = Monitor(registered("billing", sender.signer), registered("crm", thief.signer))
    monitor.take(sender.seal(event()))
    thief.heads = dict(sender.heads)

    monitor.take(thief.seal(event(service="crm")), sender.seal(event()))

    assert monitor.found() == {"source_mismatch": 1}
    assert the_finding(monitor, "source_mismatch").finding.principal == "crm"
    assert monitor.meter().events == 2


def test_a_service_that_uses_the_instance_of_another_on_a_fresh_partition_is_found() -> None:
    sender, thief = Sender("billing"), Sender("crm")
    monitor = Monitor(registered("billing", sender.signer), registered("crm", thief.signer))
    monitor.take(sender.seal(event()))

    monitor.take(thief.seal(event(service="crm"), partition=1))

    assert monitor.found() == {"source_mismatch": 1}


def test_a_batch_moved_to_another_partition_is_found() -> None:
    sender, monitor = billing()
    sent = sender.seal(event())

    monitor.take(monitor.message(sent, partition=1))

    assert monitor.found() == {"seal_invalid": 1}


def test_a_fork_is_found_and_the_first_batch_stands() -> None:
    sender, monitor = billing()
    twin = Sender("billing", sender.signer)
    monitor.take(sender.seal(event()))
    before = monitor.states[0].dump()

    monitor.take(twin.seal(event(), event()))

    assert monitor.found() == {"chain_fork": 1}
    assert the_finding(monitor, "chain_fork").finding.key == sender.instance.hex()
    assert (monitor.meter().events, monitor.rejected()[0]["finding"]) == (1, "chain_fork")
    kept = {key: value for key, value in monitor.states[0].dump().items() if key[0] in (Kind.KEY, Kind.CHAIN)}
    assert kept == {key: value for key, value in before.items() if key[0] in (Kind.KEY, Kind.CHAIN)}


def test_a_fork_that_goes_on_from_a_replaced_batch_is_found() -> None:
    sender, monitor = billing()
    twin = Sender("billing", sender.signer)
    monitor.take(sender.seal(event()))
    twin.seal(event())

    monitor.take(twin.seal(event()))

    assert monitor.found() == {"chain_fork": 1}


def test_a_dropped_batch_is_a_gap_after_five_minutes_and_lost_after_an_hour() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.seal(event()))
    sender.seal(event())  # dropped
    monitor.take(sender.seal(event()))
    for at_ms in range(NOW_MS + 30_000, NOW_MS + 61 * MINUTE, 30_000):
        monitor.tick(at_ms)
        monitor.take(sender.beat(at_ms=at_ms))
        if at_ms == NOW_MS + 4 * MINUTE:
            assert monitor.found() == {}
        if at_ms == NOW_MS + 6 * MINUTE:
            assert monitor.found() == {"audit_gap": 1}

    assert monitor.found() == {"audit_gap": 2}
    assert "lost" in the_finding(monitor, "audit_gap").finding.summary
    assert monitor.meter().lost == 1


def test_a_batch_that_comes_late_heals_its_gap() -> None:
    sender, monitor = billing()
    monitor.take(sender.open())
    late = sender.seal(event())
    monitor.take(sender.beat())
    monitor.tick(NOW_MS + 60_000)
    monitor.take(sender.beat(at_ms=NOW_MS + 60_000))
    for at_ms in range(NOW_MS + 90_000, NOW_MS + 7 * MINUTE, 30_000):
        monitor.tick(at_ms)
        monitor.take(sender.beat(at_ms=at_ms))
    assert monitor.found() == {"audit_gap": 1}

    monitor.take(late)

    (healed,) = monitor.resolved()
    assert (healed.finding_id, healed.count, healed.retracted) == (
        the_finding(monitor, "audit_gap").finding_id,
        1,
        1,
    )
    assert (monitor.meter().late, monitor.meter().events) == (1, 1)


def test_a_cut_tail_is_found_by_the_heads_that_the_close_names() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.seal(event(), partition=1))
    sender.seal(event(), partition=1)  # cut off
    sender.seal(event(), partition=1)
    monitor.take(sender.close())

    monitor.tick(NOW_MS + 6 * MINUTE)

    assert monitor.found() == {"audit_gap": 1}
    assert "2 batches did not come" in the_finding(monitor, "audit_gap").finding.summary


def test_a_cut_tail_without_a_close_is_silence_and_then_an_unclosed_chain() -> None:
    sender, monitor = billing()
    monitor.take(sender.open(), sender.seal(event()))
    sender.seal(event())  # cut off, and all that followed

    monitor.tick(NOW_MS + 2 * MINUTE)
    assert monitor.found() == {"silent_source": 1}
    monitor.tick(NOW_MS + 62 * MINUTE)

    assert monitor.found() == {"silent_source": 1, "chain_unclosed": 1}


def test_a_chain_without_its_beginning_is_found_at_once() -> None:
    sender, monitor = billing()
    sender.seal(event())
    sender.seal(event())

    monitor.take(sender.seal(event()))

    assert monitor.found() == {"audit_gap": 1}
    assert "begins at number 2" in the_finding(monitor, "audit_gap").finding.summary
    assert monitor.meter().events == 1


def test_a_replayed_batch_is_counted_and_changes_nothing() -> None:
    sender, monitor = billing()
    sent = [sender.open(), sender.seal(event(), revoked(at_ms=NOW_MS + 1)), sender.seal(event(at_ms=NOW_MS - 10))]
    monitor.take(*sent)
    documents, outs = list(monitor.documents), list(monitor.outs)
    before = [state.dump() for state in (*monitor.states, monitor.sources_state)]

    for _ in range(3):
        monitor.take(*sent)

    assert monitor.meter().duplicates == 9
    assert (monitor.documents, monitor.outs, monitor.found()) == (documents, outs, {})
    meter = bytes((Kind.METER,)) + b"keys"
    after = [state.dump() for state in (*monitor.states, monitor.sources_state)]
    for old, new in zip(before, after, strict=True):
        assert {k: v for k, v in old.items() if k != meter} == {k: v for k, v in new.items() if k != meter}


def test_a_batch_replayed_after_many_others_is_counted_as_stale() -> None:
    sender, monitor = billing()
    first = sender.seal(event())
    monitor.take(first, *(sender.seal(event()) for _ in range(70)))

    monitor.take(first)

    assert (monitor.meter().stale, monitor.meter().events, monitor.found()) == (1, 71, {})


def test_what_a_compromised_signer_says_is_kept_marked_and_counts_for_nothing() -> None:
    sender = Sender("billing")
    monitor = Monitor(registered("billing", sender.signer, compromised_from_ms=NOW_MS))
    monitor.take(sender.seal(revoked(), event(at_ms=NOW_MS + 5)))

    assert monitor.found() == {"signer_compromised": 1}
    assert len(monitor.documents) == 2
    kept = monitor.states[0].get(Kind.KEY, bytes.fromhex(KEY_ID), KeyHistory)
    assert kept is None or not (kept.uses or kept.counts)
    assert all(b'"suspect":true' in document.body for document in monitor.documents)
    monitor.take(sender.seal(event(at_ms=NOW_MS + 10)))
    assert "revoked_key_decrypt" not in monitor.found()


def test_a_service_without_the_role_does_not_change_the_state_of_a_key() -> None:
    sender = Sender("billing")
    monitor = Monitor(registered("billing", sender.signer, Role.EVENTS))

    monitor.take(sender.seal(revoked(), event(at_ms=NOW_MS + 5)))

    assert monitor.found() == {"key_record_invalid": 1}


def test_garbage_is_rejected_by_name_and_too_much_of_it_is_a_finding() -> None:
    sender, monitor = billing()
    good = sender.seal(event())
    garbage = [
        monitor.message(good)._replace(headers=()),
        monitor.message(good)._replace(headers=(("kt-seal", b"short"), ("kt-sig", b"s" * 64))),
        monitor.message(good)._replace(headers=(*good.batch.headers(), ("x", b""))),
    ]
    monitor.take(*garbage)
    assert [kept["finding"] for kept in monitor.rejected()] == ["rejected"] * 3
    assert monitor.found() == {}

    monitor.take(*(garbage * 40))

    assert set(monitor.found()) == {"rejected_rate"}
    assert monitor.meter().rejected == {"rejected": 123}


def test_a_control_line_that_names_another_batch_than_the_one_received_is_a_fork() -> None:
    sender, monitor = billing()
    twin = Sender("billing", sender.signer)
    monitor.take(sender.open(), twin_open(twin), sender.seal(event(), partition=1))
    sender.heads[1] = twin.seal(event(), partition=1).head

    monitor.take(sender.beat())

    assert monitor.found()["chain_fork"] >= 1


def test_a_batch_other_than_the_one_a_control_line_named_before_is_a_fork() -> None:
    sender, monitor = billing()
    twin = Sender("billing", sender.signer)
    monitor.take(sender.open())
    sender.seal(event(), partition=1)
    monitor.take(sender.beat())

    monitor.take(twin.seal(event(), partition=1))

    assert monitor.found() == {"chain_fork": 1}


def twin_open(twin: Sender) -> Sent:
    """The twin's first batch, which forks the chain of partition 0 as well."""
    line = ChainOpen(id=fresh_id(), at=rfc3339_ms(NOW_MS), service="billing", durability=Durability.BROKER)
    return twin.seal(line)
