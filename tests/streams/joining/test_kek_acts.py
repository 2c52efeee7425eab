"""What is done to a KEK: information where an event of ours explains it, an alert where none does."""

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.examples import key_change
from alerts.model import FindingMessage, Severity
from alerts.thresholds import HOUR_MS, MINUTE_MS, SECOND_MS, Limits
from streams.joining.attempts import VAULT_OPERATION, explained_by
from streams.joining.join import JoinStep
from tests.streams.joining.join_bench import (
    OTHER,
    STRANGER,
    T0,
    Bench,
    Timed,
    act,
    attempt,
    call_id,
    disordered,
    intent,
    kek_act,
    outcome,
    play_out,
    progress,
    registry,
    request_id,
    use,
)

EXPLAINED = ("explained", "exact", None)
NO_EVENT = ("unexplained", None, "no_event")
OFF, ON = key_change(enabled=False), key_change(enabled=True)


@pytest.mark.parametrize("first", ["event", "record"])
@pytest.mark.parametrize(
    ("correlation", "strength"), [(request_id("a"), "exact"), (call_id("a"), "claimed"), (None, "weak")]
)
def test_an_act_through_keytrail_is_information_and_no_alert(
    first: str, correlation: str | None, strength: str
) -> None:
    bench = Bench()
    messages = [kek_act("rotate", "a"), act("u", "KeyRotate", correlation=correlation)]

    bench.send(*(messages if first == "event" else reversed(messages)))
    bench.wait(3 * HOUR_MS)

    assert bench.verdict("u") == ("explained", strength, None)
    document = bench.documents[sha256(b"u").hexdigest()]
    assert (document["event_id"], document["actor"], document["purpose"]) == ("outcome-a", "user:1009", "rotation")
    assert document["final"] is True
    assert bench.findings == []


def test_an_act_of_one_of_our_identities_that_no_event_explains_is_told_when_its_source_has_passed() -> None:
    bench = Bench()

    bench.send(progress(T0 - MINUTE_MS), act("u", "KeyDelete", correlation="x"))
    assert bench.verdict("u") == ("pending", None, None)
    assert bench.findings == []
    bench.send(progress(T0 + 3 * MINUTE_MS))

    assert bench.verdict("u") == NO_EVENT
    [found] = bench.findings
    assert isinstance(found, FindingMessage)
    assert (found.finding.rule_id, found.finding.severity) == ("kek_administration", Severity.HIGH)
    assert "billing had reported past this moment" in found.finding.sure


def test_a_stranger_is_told_at_once_even_with_a_copied_id() -> None:
    bench = Bench()

    bench.send(kek_act("destroy", "a"), act("u", "KeyPurge", correlation=request_id("a"), principal_id=STRANGER))

    assert bench.verdict("u") == ("unexplained", None, "foreign_principal")
    assert bench.standing() == {"kek_administration": 1}


def test_an_event_that_comes_late_takes_the_alert_back() -> None:
    bench = Bench()
    bench.send(act("u", "KeyBackup", correlation=request_id("a")))
    bench.wait(61 * MINUTE_MS)
    assert bench.standing() == {"kek_administration": 1}

    bench.send(kek_act("archive", "a"))

    assert bench.verdict("u") == EXPLAINED
    assert bench.standing() == {}


def test_one_act_explains_one_record() -> None:
    bench = Bench()

    bench.send(
        kek_act("destroy", "a"),
        act("ours", "KeyDelete", correlation=request_id("a")),
        act("copy", "KeyPurge", T0 + SECOND_MS, correlation=call_id("a")),
    )
    bench.wait(HOUR_MS)

    assert (bench.verdict("ours"), bench.verdict("copy")) == (EXPLAINED, ("unexplained", None, "id_reused"))


@pytest.mark.parametrize(
    ("operation", "record", "change", "explains"),
    [
        ("suspend", "KeyUpdate", OFF, True),
        ("suspend", "KeyUpdate", ON, False),
        ("suspend", "KeyUpdate", key_change(operations=("wrapKey",)), False),
        ("suspend", "KeyUpdate", None, True),
        ("resume", "KeyUpdate", ON, True),
        ("resume", "KeyUpdate", OFF, False),
        ("resume", "KeyRecover", None, True),
        ("activate", "KeyUpdate", key_change(expires_at="2027-01-01T00:00:00.000000Z"), True),
        ("create", "KeyCreate", None, True),
        ("create", "KeyImport", None, True),
        ("rotate", "KeyRotate", None, True),
        ("rotate", "KeyCreate", None, True),
        ("rotate", "KeyDelete", None, False),
        ("destroy", "KeyDelete", None, True),
        ("destroy", "KeyPurge", None, True),
        ("destroy", "KeyBackup", None, False),
        ("archive", "KeyBackup", None, True),
        ("unwrap", "KeyDelete", None, False),
    ],
)
def test_an_event_explains_only_what_it_tells_of(operation: str, record: str, change: Any, *, explains: bool) -> None:
    bench = Bench()

    bench.send(kek_act(operation, "a"), act("u", record, correlation=request_id("a"), key_change=change))
    bench.wait(HOUR_MS)

    assert (bench.verdict("u") == EXPLAINED) is explains


def test_every_operation_that_claims_a_record_can_be_explained_by_it() -> None:
    for operation, record in VAULT_OPERATION.items():
        assert operation in explained_by(record, None)


def test_an_unwrap_does_not_explain_an_act_nor_an_act_an_unwrap() -> None:
    bench = Bench()

    bench.send(outcome("a"), act("deed", "KeyDelete", correlation=request_id("a")))
    bench.send(kek_act("destroy", "b"), use("use", correlation=request_id("b")))
    bench.wait(HOUR_MS)

    assert bench.verdict("deed") == ("unexplained", None, "id_reused")
    assert bench.verdict("use") == ("unaccounted", None, "id_reused")


def test_an_act_that_the_vault_answered_and_did_not_log_is_unlogged() -> None:
    bench = Bench()
    bench.send(kek_act("suspend", "a", phase="intent"), kek_act("suspend", "a"))

    bench.wait(61 * MINUTE_MS)

    assert bench.verdict("outcome-a") == ("unlogged", None, "no_vault_record")
    assert bench.documents["outcome-a"]["operation"] == "KeyUpdate"
    assert bench.standing() == {"audit_coverage": 1}


def test_without_application_events_an_act_is_told_at_once() -> None:
    bench = Bench(step=JoinStep(registry=registry(), limits=Limits(), evaluate=False))

    bench.send(act("u", "KeyDelete"))

    assert bench.verdict("u") == ("unexplained", None, "no_batches")
    assert bench.standing() == {"kek_administration": 1}


def test_an_act_that_only_began_is_explained_by_its_intent() -> None:
    bench = Bench()

    bench.send(kek_act("destroy", "a", phase="intent"), act("u", "KeyDelete", correlation=call_id("a")))

    assert bench.verdict("u") == ("explained", "claimed", None)


def test_a_storage_account_under_our_kek_is_no_thief_but_still_unaccounted() -> None:
    bench = Bench()
    account: dict[str, Any] = {"principal_id": STRANGER, "principal_kind": "azure_service"}

    bench.send(use("wrap", operation="KeyWrap", **account), use("sign", operation="KeySign", **account))

    assert bench.verdict("wrap") == ("unaccounted", None, "azure_service")
    assert bench.verdict("sign") == ("unaccounted", None, "foreign_principal")
    told = [found.finding for found in bench.findings if isinstance(found, FindingMessage)]
    assert [finding.severity for finding in told] == [Severity.MEDIUM, Severity.CRITICAL]


# Order does not matter

_PAIRS = [("rotate", "KeyRotate", None), ("suspend", "KeyUpdate", OFF), ("resume", "KeyUpdate", ON)]


@st.composite
def histories(draw: st.DrawFn) -> list[Timed]:
    """Some minutes of acts, ours and others', copies among them; each message with the time it was written."""
    messages: list[Timed] = []
    for number in range(draw(st.integers(1, 5))):
        name = f"n{number}"
        at_ms = T0 + draw(st.integers(0, 8)) * 20 * SECOND_MS
        operation, record, change = draw(st.sampled_from(_PAIRS))
        ids = draw(st.sampled_from([request_id(name), call_id(name), None, "elsewhere"]))
        kind = draw(st.sampled_from(["ours", "no event", "unanswered", "copied", "theirs"]))
        who = {"principal_id": draw(st.sampled_from([STRANGER, OTHER]))} if kind == "theirs" else {}
        if kind != "no event":
            messages.append((at_ms, kek_act(operation, name, at_ms, phase="intent")))
            attempts = (attempt(name, at_ms, None),) if kind == "unanswered" else None
            end = "failed" if kind == "unanswered" else "succeeded"
            messages.append((at_ms + 50, kek_act(operation, name, at_ms, outcome=end, attempts=attempts)))
        messages.append((at_ms + 20, act(f"r-{name}", record, at_ms + 20, correlation=ids, key_change=change, **who)))
        if kind == "copied":
            later_ms = at_ms + draw(st.sampled_from([10, 30 * SECOND_MS]))
            messages.append((later_ms, act(f"copy-{name}", record, later_ms, correlation=ids, key_change=change)))
        if draw(st.booleans()):
            messages += [(at_ms + 5, intent(f"i{name}", at_ms + 5)), (at_ms + 9, use(f"u-{name}", at_ms + 9))]
    beats = [(T0 + beat * MINUTE_MS, progress(T0 + beat * MINUTE_MS)) for beat in range(draw(st.integers(0, 8)))]
    return sorted([*messages, *beats], key=lambda timed: timed[0])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), history=histories())
def test_delays_and_disorder_give_the_verdicts_and_counts_of_the_calm_run(
    data: st.DataObject, history: list[Timed]
) -> None:
    calm = play_out(history)
    disorder, restart_after = disordered(data, history, most_minutes=50)
    live = play_out(disorder, restart_after=restart_after)

    assert live.final() == calm.final()
    assert live.standing() == calm.standing()
    assert all(body["status"] != "pending" for body in live.documents.values())
