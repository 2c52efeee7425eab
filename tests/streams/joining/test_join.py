from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.model import FindingMessage, FindingResolved, Severity
from alerts.thresholds import HOUR_MS, MINUTE_MS, SECOND_MS, Limits
from streams.joining.attempts import outcome_of
from streams.joining.correlate import Claim, Progress, Use
from streams.joining.join import JoinStep
from streams.messages import Effects
from streams.state import Kind
from tests.streams.joining.join_bench import (
    BILLING,
    OTHER,
    STRANGER,
    T0,
    Bench,
    Timed,
    attempt,
    call_id,
    disordered,
    intent,
    outcome,
    play_out,
    progress,
    registry,
    request_id,
    use,
)

EXACT = ("matched", "exact", None)
CLAIMED = ("matched", "claimed", None)
WEAK = ("matched", "weak", None)
PENDING = ("pending", None, None)
NO_EVENT = ("unaccounted", None, "no_event")
REUSED = ("unaccounted", None, "id_reused")
FOREIGN = ("unaccounted", None, "foreign_principal")


# What explains a record


@pytest.mark.parametrize(
    ("correlation", "verdict"),
    [(request_id("a"), EXACT), (request_id("a").upper(), EXACT), (call_id("a"), CLAIMED), ("", WEAK), (None, WEAK)],
)
def test_a_record_is_joined_by_request_id_call_id_or_attributes(correlation: str | None, verdict: object) -> None:
    bench = Bench()

    bench.send(intent("a"), outcome("a"), use("u", correlation=correlation))

    assert bench.verdict("u") == verdict
    assert bench.findings == []


def test_a_matched_record_says_whose_act_it_was() -> None:
    bench = Bench()

    bench.send(use("u", correlation=request_id("a")), outcome("a"))

    document = bench.documents[sha256(b"u").hexdigest()]
    assert (document["event_id"], document["actor"], document["purpose"]) == ("outcome-a", "user:4711", "crm-sync")
    assert (document["tenant"], document["key_id"], document["source"]) == ("t-88", "5f2a" * 8, "billing")
    assert (document["final"], document["revision"]) == (True, 2)
    assert document["time"] == "2025-11-16T02:40:00.020000Z"


def test_an_intent_alone_is_a_claim_by_its_call_ids_and_its_outcome_makes_the_match_exact() -> None:
    bench = Bench()

    bench.send(intent("a"), use("u", correlation=request_id("a")), use("v", correlation=call_id("b")), intent("b"))

    assert (bench.verdict("u"), bench.verdict("v")) == (WEAK, CLAIMED)
    bench.send(outcome("a"), outcome("b"))
    assert (bench.verdict("u"), bench.verdict("v")) == (EXACT, CLAIMED)


@pytest.mark.parametrize("first", ["the forger", "the owner"])
def test_a_source_does_not_end_the_call_of_another(first: str) -> None:
    bench = Bench()
    ours: list[Claim | Use | Progress | bytes] = [intent("a"), outcome("a"), use("u", correlation=call_id("a"))]
    forged = outcome("a", source="crm", attempts=(), event_id="a-forged")

    bench.send(*([forged, *ours] if first == "the forger" else [ours[0], forged, *ours[1:]]))

    assert bench.verdict("u") == CLAIMED
    assert bench.findings == []


def test_an_outcome_that_names_other_ids_takes_the_weak_match_of_its_intent_back() -> None:
    bench = Bench()

    bench.send(intent("a"), use("stolen", correlation="unheard-of"))

    assert bench.verdict("stolen") == WEAK
    bench.send(outcome("a"))
    assert bench.verdict("stolen") == PENDING
    bench.wait(HOUR_MS)
    assert bench.verdict("stolen") == NO_EVENT


def test_an_adopted_intent_keeps_its_call_ids_because_nobody_knows_how_it_ended() -> None:
    bench = Bench()

    bench.send(intent("a"), outcome("a", outcome="unknown", attempts=()), use("u", correlation=call_id("a")))
    bench.send(intent("b"), outcome("b", outcome="failed", attempts=()), use("v", correlation=call_id("b")))

    assert (bench.verdict("u"), bench.verdict("v")) == (CLAIMED, PENDING)


def test_an_attempt_without_an_answer_explains_a_record_of_any_outcome_and_any_id() -> None:
    bench = Bench()
    lost = attempt("a", status=None)

    bench.send(outcome("a", outcome="failed", attempts=(lost,)), use("u", correlation="of-the-service"))

    assert bench.verdict("u") == WEAK


def test_every_attempt_of_a_call_explains_its_own_record() -> None:
    bench = Bench()
    tried = (attempt("a", status=429), attempt("a1", T0 + SECOND_MS, 200))

    bench.send(outcome("a", attempts=tried))
    bench.send(use("throttled", outcome="throttled", correlation=request_id("a")))
    bench.send(use("done", T0 + SECOND_MS + 20, correlation=request_id("a1")))

    assert (bench.verdict("throttled"), bench.verdict("done")) == (EXACT, EXACT)


DISAGREEING: list[tuple[str, dict[str, Any]]] = [
    ("vault", {"vault": "kv-eu"}),
    ("key", {"name": "other-kek"}),
    ("version", {"version": "d" * 32}),
    ("operation", {"operation": "KeyWrap"}),
    ("outcome", {"outcome": "denied"}),
    ("principal", {"principal_id": OTHER}),
    ("time before", {"at_ms": T0 - 2 * MINUTE_MS - 1}),
    ("time after", {"at_ms": T0 + 2 * MINUTE_MS + 41}),
]


@pytest.mark.parametrize(("what", "changes"), DISAGREEING, ids=[what for what, _ in DISAGREEING])
@pytest.mark.parametrize("correlation", [request_id("a"), call_id("a"), None])
def test_an_id_is_not_enough_when_anything_else_disagrees(
    what: str, changes: dict[str, Any], correlation: str | None
) -> None:
    bench = Bench()

    bench.send(outcome("a"), use("u", correlation=correlation, **changes))
    bench.wait(HOUR_MS)

    assert bench.verdict("u") == (NO_EVENT if correlation is None else REUSED), what


@pytest.mark.parametrize("at_ms", [T0 - 2 * MINUTE_MS, T0 + 2 * MINUTE_MS + 40])
def test_clocks_may_differ_by_two_minutes(at_ms: int) -> None:
    bench = Bench()

    bench.send(outcome("a"), use("u", at_ms, correlation=request_id("a")))

    assert bench.verdict("u") == EXACT


def test_a_record_without_a_version_agrees_with_any() -> None:
    bench = Bench()

    bench.send(outcome("a"), use("u", version=None, correlation=request_id("a")))

    assert bench.verdict("u") == EXACT


def test_names_in_azure_ignore_case() -> None:
    bench = Bench()

    bench.send(outcome("a"), use("u", vault="KV-Prod", name="Tenant-KEK", correlation=request_id("a")))

    assert bench.verdict("u") == EXACT


# What does not


@pytest.mark.parametrize("first", ["claim", "records"])
@pytest.mark.parametrize("correlation", [request_id("a"), call_id("a")])
def test_an_attempt_explains_one_record_whatever_comes_first(first: str, correlation: str) -> None:
    bench = Bench()
    uses = [use("copy", T0 + 500, correlation=correlation), use("ours", correlation=request_id("a"))]

    if first == "claim":
        bench.send(outcome("a"), *uses)
    else:
        bench.send(*uses, outcome("a"))
    bench.wait(HOUR_MS)

    assert (bench.verdict("ours"), bench.verdict("copy")) == (EXACT, REUSED)
    assert bench.standing() == {"unaccounted_kek_access": 1}
    assert bench.documents[sha256(b"copy").hexdigest()]["event_id"] == "outcome-a"


@pytest.mark.parametrize("correlation", [call_id("a"), request_id("a"), None])
def test_a_stranger_is_unaccounted_at_once_even_with_a_copied_id(correlation: str | None) -> None:
    bench = Bench()

    bench.send(intent("a"), outcome("a"), use("theirs", principal_id=STRANGER, correlation=correlation))

    assert bench.verdict("theirs") == FOREIGN
    [message] = bench.findings
    assert isinstance(message, FindingMessage)
    assert message.finding.severity is Severity.CRITICAL
    bench.send(use("ours", T0 + 90, correlation=request_id("a")))
    assert bench.verdict("ours") == EXACT


def test_a_caller_whom_the_record_does_not_name_is_a_stranger() -> None:
    bench = Bench()

    bench.send(outcome("a"), use("u", principal_id=None, correlation=request_id("a")))

    assert bench.verdict("u") == FOREIGN


def test_another_source_of_ours_with_a_copied_id_is_named_as_such() -> None:
    bench = Bench()

    bench.send(outcome("a"), use("u", principal_id=OTHER, correlation=request_id("a")))
    bench.wait(HOUR_MS)

    assert bench.verdict("u") == REUSED
    assert bench.documents[sha256(b"u").hexdigest()]["source"] == "crm"


def test_a_suspect_claim_explains_nothing() -> None:
    bench = Bench()

    bench.send(outcome("a", suspect=True), use("u", correlation=request_id("a")))
    bench.wait(3 * HOUR_MS)

    assert bench.verdict("u") == NO_EVENT
    assert len(bench.documents) == 1, "and nobody expects the vault to have logged it"


# When it is judged


def test_a_record_is_judged_when_every_live_process_of_its_source_has_passed_it() -> None:
    bench = Bench()
    bench.send(progress(T0 - MINUTE_MS), progress(T0 - MINUTE_MS, instance="02" * 16), use("u", correlation="x"))

    bench.send(progress(T0 + 3 * MINUTE_MS))
    assert bench.verdict("u") == PENDING
    bench.send(progress(T0 + 3 * MINUTE_MS, instance="02" * 16))

    assert bench.verdict("u") == NO_EVENT
    document = bench.documents[sha256(b"u").hexdigest()]
    assert (document["final"], document["behind_ms"], document["instances"]) == (True, 0, 2)
    assert "all 2 live instances of billing had reported" in _told(bench)


def test_a_record_that_its_source_has_passed_already_is_judged_on_arrival() -> None:
    bench = Bench()

    bench.send(progress(T0 + 3 * MINUTE_MS), use("u", correlation="x"))

    assert bench.verdict("u") == NO_EVENT


def test_the_progress_of_another_source_or_of_one_that_ended_says_nothing() -> None:
    bench = Bench()

    bench.send(progress(T0 + HOUR_MS, source="crm"), progress(T0 + HOUR_MS, state="closed"), use("u", correlation="x"))

    assert bench.verdict("u") == PENDING


def test_a_process_that_ended_holds_nothing_up() -> None:
    bench = Bench()
    bench.send(progress(T0 - HOUR_MS), progress(T0 + HOUR_MS, instance="02" * 16), use("u", correlation="x"))
    assert bench.verdict("u") == PENDING

    bench.send(progress(T0 - HOUR_MS, state="silent"))

    assert bench.verdict("u") == NO_EVENT


def test_a_process_known_by_its_claims_alone_holds_judgement_up() -> None:
    bench = Bench()

    bench.send(progress(T0 + HOUR_MS), intent("a", T0 - SECOND_MS, instance="02" * 16, calls=0))
    bench.send(use("u", correlation="x"))

    assert bench.verdict("u") == PENDING


def test_without_progress_the_first_word_comes_after_two_minutes_and_the_last_after_an_hour() -> None:
    bench = Bench()
    bench.send(progress(T0 - MINUTE_MS), use("u", correlation="x"))

    bench.wait(2 * MINUTE_MS - 1, step_ms=SECOND_MS)
    assert bench.verdict("u") == PENDING
    bench.wait(1)
    assert bench.verdict("u") == NO_EVENT
    assert bench.documents[sha256(b"u").hexdigest()]["final"] is False
    assert bench.standing() == {"pending_source": 1}
    bench.wait(58 * MINUTE_MS)

    assert bench.documents[sha256(b"u").hexdigest()]["final"] is True
    assert bench.standing() == {"unaccounted_kek_access": 1}, "judged twice, counted once"


def test_an_event_that_comes_late_explains_the_record_and_takes_the_finding_back() -> None:
    bench = Bench()
    bench.send(use("u", correlation=request_id("a")), use("other", T0 + 30, correlation="x"))
    bench.wait(61 * MINUTE_MS)
    assert bench.standing() == {"unaccounted_kek_access": 2}

    bench.send(outcome("a"))

    assert bench.verdict("u") == EXACT
    resolved = bench.findings[-1]
    assert isinstance(resolved, FindingResolved)
    assert (resolved.count, resolved.retracted) == (2, 1)
    assert bench.standing() == {"unaccounted_kek_access": 1}


def test_an_answered_attempt_without_its_record_is_unlogged_after_an_hour() -> None:
    bench = Bench()
    bench.send(intent("a"), outcome("a"))

    bench.wait(59 * MINUTE_MS)
    assert bench.documents == {}
    bench.wait(2 * MINUTE_MS)

    assert bench.verdict("outcome-a") == ("unlogged", None, "no_vault_record")
    assert bench.standing() == {"audit_coverage": 1}


def test_a_record_that_comes_after_that_takes_it_back() -> None:
    bench = Bench()
    bench.send(outcome("a"))
    bench.wait(61 * MINUTE_MS)

    bench.send(use("u", correlation=request_id("a")))

    assert bench.verdict("u") == EXACT
    assert bench.verdict("outcome-a") == ("not_evaluated", None, "logged_late")
    assert bench.standing() == {}


@pytest.mark.parametrize(
    "claims",
    [
        (intent("a"),),
        (intent("a"), outcome("a", outcome="unknown", attempts=())),
        (outcome("a", outcome="failed", attempts=(attempt("a", status=None),)),),
        (outcome("a", outcome="denied", attempts=(attempt("a", status=401),)),),
    ],
    ids=["open intent", "adopted intent", "no answer", "401"],
)
def test_nobody_expects_a_record_of_what_the_vault_did_not_answer(claims: tuple[Claim, ...]) -> None:
    bench = Bench()
    bench.send(*claims)

    bench.wait(3 * HOUR_MS)

    assert bench.documents == {}
    assert bench.findings == []


# Replay


def test_without_batches_nothing_is_evaluated_and_no_rule_runs() -> None:
    bench = Bench(step=JoinStep(registry=registry(), limits=Limits(), evaluate=False))

    bench.send(use("theirs", principal_id=STRANGER), use("ours"))
    bench.wait(2 * HOUR_MS)

    assert bench.verdict("theirs") == bench.verdict("ours") == ("not_evaluated", None, "no_batches")
    assert bench.findings == []


def test_only_the_time_that_batches_cover_is_joined() -> None:
    span = (T0, T0 + MINUTE_MS)
    bench = Bench(step=JoinStep(registry=registry(), limits=Limits(), joined_ms=span))

    bench.send(use("before", T0 - 1, principal_id=STRANGER), use("after", T0 + MINUTE_MS, principal_id=STRANGER))
    bench.send(use("within", T0, principal_id=STRANGER))

    outside = ("not_evaluated", None, "no_batches")
    assert (bench.verdict("before"), bench.verdict("within"), bench.verdict("after")) == (outside, FOREIGN, outside)


# State


def test_a_message_that_is_none_is_rejected_and_the_step_goes_on() -> None:
    bench = Bench()

    bench.send(b"{}", b"\xff", b'{"type":"use","v":2}')
    bench.send(outcome("a"), use("u", correlation=request_id("a")))

    assert bench.rejected == 3
    assert bench.verdict("u") == EXACT


def test_the_same_messages_again_change_nothing() -> None:
    bench = Bench()
    messages = (intent("a"), outcome("a"), use("u", correlation=request_id("a")), use("v", principal_id=STRANGER))
    bench.send(*messages)
    before = (dict(bench.documents), bench.standing())

    bench.send(*messages)

    assert (bench.documents, bench.standing()) == before


def test_everything_is_forgotten_in_the_end_and_nothing_changes_its_verdict_on_the_way() -> None:
    bench = Bench()
    bench.send(intent("a"), outcome("a"), use("u", correlation=request_id("a")), use("copy", T0 + 99, correlation="x"))
    bench.send(intent("open"), outcome("b"), use("theirs", principal_id=STRANGER))
    bench.wait(HOUR_MS)
    before = {name: (body["status"], body["reason"]) for name, body in bench.documents.items()}

    bench.wait(3 * HOUR_MS)

    assert {name: (body["status"], body["reason"]) for name, body in bench.documents.items()} == before
    assert bench.state.count(Kind.USE) == bench.state.count(Kind.CLAIM) == 0


def test_a_record_is_not_forgotten_before_its_document_is_in_the_index() -> None:
    bench = Bench()
    bench.step.indexed = lambda document, state: None  # type: ignore[method-assign]
    bench.send(use("theirs", principal_id=STRANGER))

    bench.wait(5 * HOUR_MS, step_ms=10 * MINUTE_MS)

    assert bench.kept("theirs") is not None
    effects = Effects()
    bench.step.redocument(bench.state, effects)
    assert [document.id for document in effects.documents] == [sha256(b"theirs").hexdigest()]


# Order does not matter


@st.composite
def histories(draw: st.DrawFn) -> list[Timed]:
    """Some minutes of calls, thefts, copies and losses; each message with the time it was written."""
    messages: list[Timed] = []
    for number in range(draw(st.integers(1, 6))):
        name = f"n{number}"
        at_ms = T0 + draw(st.integers(0, 6)) * 45 * SECOND_MS
        ids = draw(st.sampled_from([request_id(name), call_id(name), None, "elsewhere"]))
        kind = draw(st.sampled_from(["whole", "no outcome", "adopted", "unlogged", "no event", "unanswered", "reused"]))
        if kind != "no event":
            messages.append((at_ms, intent(name, at_ms)))
        if kind in {"whole", "unlogged", "reused"}:
            messages.append((at_ms + 50, outcome(name, at_ms)))
        if kind == "adopted":
            messages.append((at_ms + MINUTE_MS, outcome(name, at_ms, outcome="unknown", attempts=())))
        if kind == "unanswered":
            lost = (attempt(name, at_ms, None),)
            messages.append((at_ms + SECOND_MS, outcome(name, at_ms, outcome="failed", attempts=lost)))
        if kind != "unlogged":
            messages.append((at_ms + 20, use(f"use-{name}", at_ms + 20, correlation=ids)))
        if kind == "reused":
            thief = draw(st.sampled_from([BILLING, OTHER, STRANGER]))
            later_ms = at_ms + draw(st.sampled_from([10, 30, 3 * MINUTE_MS]))
            copy = use(f"copy-{name}", later_ms, correlation=ids, principal_id=thief)
            messages.append((later_ms, copy))
    beats = [(T0 + beat * MINUTE_MS, progress(T0 + beat * MINUTE_MS)) for beat in range(draw(st.integers(0, 8)))]
    return sorted([*messages, *beats], key=lambda timed: timed[0])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@pytest.mark.parametrize(
    ("status", "outcome_class"),
    [
        (200, "succeeded"),
        (204, "succeeded"),
        (401, "denied"),
        (403, "denied"),
        (404, "not_found"),
        (429, "throttled"),
        (409, "failed"),
        (500, "failed"),
    ],
)
def test_an_answer_is_classed_like_the_record_of_it(status: int, outcome_class: str) -> None:
    assert outcome_of(status) == outcome_class


def _told(bench: Bench) -> str:
    message = bench.findings[0]
    assert isinstance(message, FindingMessage)
    return message.finding.sure
