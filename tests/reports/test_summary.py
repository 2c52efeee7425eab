"""The arithmetic, on documents made by hand, from the index to the figures."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from alerts.model import KekUseStatus
from cryptocore.events import KekRef, KeyRef, Operation, Outcome, Phase, Reason
from cryptocore.keys import KeyState
from reports.collect import collect
from reports.controls import Standing
from reports.summary import Answer, Summary, oldest_active, summarise
from reports.week import parse_week
from streams.index.documents import rejected_document
from streams.index.embedded import EmbeddedIndex
from streams.index.port import Document
from streams.messages import Message
from tests.reports.scenario import PREPARED_MS, START_US, WEEK, Trail, alert, at, kek_documents, key, use
from tests.reports.story import story

Summarise = Callable[[Sequence[Document]], Summary]


@pytest.fixture
def summary_of(tmp_path: Path) -> Summarise:
    def made(documents: Sequence[Document]) -> Summary:
        async def run() -> Summary:
            index = EmbeddedIndex(tmp_path / "index.sqlite")
            await index.ensure()
            assert await index.write(documents) == []
            facts = await collect(index, parse_week(WEEK, "UTC"), PREPARED_MS)
            await index.close()
            return summarise(facts)

        return asyncio.run(run())

    return made


def closed_trail() -> Trail:
    trail = Trail()
    trail.opened(at(0, 1))
    return trail


def row(summary: Summary, label: str) -> tuple[str | None, str | None, str]:
    found = next(row for row in summary.rows if row.label == label)
    return found.this, found.last, found.note


def test_without_any_document_nothing_is_established(summary_of: Summarise) -> None:
    summary = summary_of([])

    assert summary.answer is Answer.NOT_ESTABLISHED
    assert summary.why == ("no service said how many events it sent", "no vault log was received")
    assert {control.standing for control in summary.controls} == {Standing.NOT_EVALUATED}
    assert row(summary, "Failed decrypts") == ("0", None, "")
    assert not summary.has_last


def test_what_a_closed_process_sent_is_compared_with_what_is_stored(summary_of: Summarise) -> None:
    trail = closed_trail()
    for second in range(10):
        trail.decrypt(at(1, second), key=key(), lost=second in (3, 4))
    trail.closed(at(2))

    events = summary_of([*trail.documents, *kek_documents([use(1, at(1))])]).events

    assert (events.sent, events.stored, events.missing, events.closed) == (10, 8, 2, 1)
    assert [each.service for each in events.differing] == ["billing"]


def test_a_missing_event_is_a_no_and_an_exception_of_its_control(summary_of: Summarise) -> None:
    trail = closed_trail()
    trail.decrypt(at(1), key=key())
    trail.decrypt(at(1, 1), key=key(), lost=True)
    trail.closed(at(2))

    summary = summary_of([*trail.documents, *kek_documents([use(1, at(1))])])

    assert summary.answer is Answer.NO
    assert summary.why == ("1 event that services sent is not stored",)
    control = next(control for control in summary.controls if control.clause == "8.2, 8.3")
    assert control.standing is Standing.EXCEPTIONS
    assert control.seen == "1 sealed event stored; 1 event sent and not stored"


def test_a_missing_event_of_one_process_is_not_hidden_by_a_surplus_of_another(summary_of: Summarise) -> None:
    first, second = Trail("billing", 1), Trail("sync", 2)
    for trail in (first, second):
        trail.opened(at(0, 1))
    first.decrypt(at(1), key=key(), lost=True)
    first.closed(at(2))
    second.heartbeat(at(6.9999))
    second.tallies.clear()
    second.decrypt(at(6.9998), key=key())

    events = summary_of([*first.documents, *second.documents]).events

    assert (events.sent, events.stored, events.missing, events.surplus) == (1, 1, 1, 1)


def test_everything_stored_and_compared_means_that_nothing_is_known_to_be_missing(summary_of: Summarise) -> None:
    trail = closed_trail()
    trail.decrypt(at(1), key=key())
    trail.closed(at(2))

    summary = summary_of([*trail.documents, *kek_documents([use(1, at(1))])])

    assert summary.answer is Answer.NOTHING_MISSING
    assert summary.why == ()


def test_a_process_that_began_before_the_week_is_counted_from_its_last_word_before_it(summary_of: Summarise) -> None:
    trail = Trail()
    trail.opened(at(-3))
    for second in range(5):
        trail.decrypt(at(-2, second), key=key())
    trail.heartbeat(at(0, -20))
    for second in range(3):
        trail.decrypt(at(3, second), key=key())
    trail.heartbeat(at(7, -10))

    summary = summary_of(trail.documents)

    assert (summary.events.sent, summary.events.stored, summary.events.running) == (3, 3, 1)
    assert row(summary, "Uses of data keys")[:2] == ("3", "5")


def test_a_process_that_fell_silent_is_unclosed_and_one_that_speaks_next_week_is_running(summary_of: Summarise) -> None:
    dead, alive = Trail("dead", 1), Trail("alive", 2)
    for trail in (dead, alive):
        trail.opened(at(0, 1))
        trail.heartbeat(at(4))
    alive.heartbeat(at(7, 3_600))

    summary = summary_of([*dead.documents, *alive.documents])

    assert (summary.events.running, summary.events.unclosed) == (1, 1)
    assert summary.answer is Answer.NO


def test_intents_are_not_counted(summary_of: Summarise) -> None:
    trail = closed_trail()
    trail.event(
        Operation.UNWRAP,
        None,
        at(1),
        phase=Phase.INTENT,
        key=key(),
        kek=KekRef(vault="kv-prod", name="tenant-kek", version="c1"),
        call_ids=("7b0f8f5e-3f1c-4f0a-9d53-9b1d5a6d1c11",),
    )
    trail.closed(at(2))

    events = summary_of(trail.documents).events

    assert (events.sent, events.stored) == (0, 0)


def test_events_of_a_process_that_never_told_its_number_are_named(summary_of: Summarise) -> None:
    trail = Trail()
    trail.decrypt(at(1), key=key())

    summary = summary_of([*trail.documents, *kek_documents([use(1, at(1))])])

    assert summary.events.unsaid == 1
    assert summary.answer is Answer.NOT_ESTABLISHED
    assert "1 event comes from a process that did not say how many it sent" in summary.why


def test_decrypts_with_a_revoked_key_are_those_after_it_or_of_its_revision(summary_of: Summarise) -> None:
    trail = closed_trail()
    old, revoked = key(1, revision=2), key(1, revision=3, state=KeyState.REVOKED)
    trail.decrypt(at(2, -5), key=old)  # still allowed
    trail.event(Operation.REVOKE, Outcome.SUCCEEDED, at(2), key=revoked, reason=Reason.COMPROMISE_SUSPECTED)
    trail.decrypt(at(2, 1.5), key=old)  # a cache that did not know
    trail.decrypt(at(2, -2), Outcome.DENIED, key=revoked)  # a clock that is behind
    trail.decrypt(at(3), Outcome.DENIED, key=revoked)
    trail.decrypt(at(3), key=key(1, version=2, revision=1))  # another version
    trail.decrypt(at(3), key=key(2))  # another key
    trail.closed(at(4))

    summary = summary_of(trail.documents)

    assert row(summary, "Use of revoked keys") == (
        "2 blocked, 1 succeeded",
        None,
        "longest exposure after a revocation 1.5 s",
    )
    control = next(control for control in summary.controls if control.clause == "9.5c")
    assert control.standing is Standing.EXCEPTIONS


def test_a_revocation_by_a_compromised_signer_is_no_evidence(summary_of: Summarise) -> None:
    trail = closed_trail()
    trail.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(1), key=key(1, revision=2))
    revoked = key(1, revision=3, state=KeyState.REVOKED)
    trail.event(Operation.REVOKE, Outcome.SUCCEEDED, at(2), key=revoked, reason=Reason.OPERATOR, suspect=True)
    trail.decrypt(at(3), key=key(1))
    trail.closed(at(4))

    summary = summary_of(trail.documents)

    assert summary.states == (("active", 1),)
    assert row(summary, "Use of revoked keys")[0] == "0 blocked, 0 succeeded"
    assert "1 event is signed by a key that counts as compromised" in summary.why


def test_keys_are_counted_by_their_highest_revision_whatever_the_order_of_arrival(summary_of: Summarise) -> None:
    trail = closed_trail()
    trail.event(
        Operation.REVOKE,
        Outcome.SUCCEEDED,
        at(1),
        key=key(1, revision=3, state=KeyState.REVOKED),
        reason=Reason.OPERATOR,
    )
    trail.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(1, 5), key=key(1, revision=2))
    trail.event(Operation.CREATE, Outcome.SUCCEEDED, at(1), key=key(2, revision=1, state=KeyState.PRE_ACTIVATION))
    trail.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(1), key=key(3, revision=2))
    trail.event(Operation.ROTATE, Outcome.SUCCEEDED, at(2), key=key(3, version=2, revision=1))
    trail.event(Operation.ACTIVATE, Outcome.DENIED, at(2), key=key(2, revision=1), reason=Reason.RECORD_INVALID)

    assert summary_of(trail.documents).states == (
        ("pre-activation", 1),
        ("active", 1),
        ("active, superseded", 1),
        ("revoked", 1),
    )


def test_kek_uses_add_up_by_judgement_and_strangers_are_grouped(summary_of: Summarise) -> None:
    uses = [
        use(1, at(0)),
        use(2, at(6.99)),
        use(3, at(1), KekUseStatus.UNACCOUNTED, reason="no_event", principal_id="p1", address="198.51.100.2"),
        use(4, at(2), KekUseStatus.UNACCOUNTED, reason="no_event", principal_id="p1", address="198.51.100.1"),
        use(5, at(2), KekUseStatus.UNACCOUNTED, reason="id_reused", principal_id="p1"),
        use(6, at(3), KekUseStatus.UNLOGGED, reason="no_vault_record"),
        use(7, at(3), KekUseStatus.PENDING),
        use(8, at(3), KekUseStatus.NOT_EVALUATED, reason="no_batches"),
        use(11, at(4), KekUseStatus.ALLOWED, reason="nightly-backup"),
        use(12, at(4), KekUseStatus.EXPLAINED),  # an administrative act is no use
        use(13, at(4), KekUseStatus.UNEXPLAINED, reason="no_event"),
        use(9, at(7)),  # next week
        use(10, at(-0.1), KekUseStatus.UNACCOUNTED, reason="no_event"),  # last week
    ]

    summary = summary_of(kek_documents(uses))

    kek = summary.kek_uses
    assert (kek.vault_uses, kek.explained, kek.unaccounted) == (8, 2, 3)
    assert (kek.unlogged, kek.pending, kek.not_evaluated, kek.allowed) == (1, 1, 1, 1)
    assert row(summary, "KEK uses not accounted for")[:2] == ("3", "1")
    assert [(each.reason, each.count, each.addresses) for each in summary.strangers] == [
        ("no_event", 2, ("198.51.100.1", "198.51.100.2")),
        ("id_reused", 1, ()),
    ]


def test_open_alerts_need_a_decision_worst_first_and_resolved_ones_do_not(summary_of: Summarise) -> None:
    alerts = [
        alert(1, "crypto_failures", severity="medium", first_at=at(1), last_at=at(1)),
        alert(2, "revoked_key_decrypt", severity="critical", first_at=at(3), last_at=at(3), status="acknowledged"),
        alert(3, "kek_administration", severity="critical", first_at=at(-20), last_at=at(-20)),
        alert(4, "crypto_failures", severity="critical", first_at=at(2), last_at=at(2), status="resolved"),
        alert(5, "crypto_failures", severity="critical", first_at=at(8), last_at=at(8)),
    ]

    summary = summary_of(alerts)

    assert [decision.number for decision in summary.decisions] == ["KT-1003", "KT-1002", "KT-1001"]
    assert row(summary, "Alerts")[0] == "3 raised, 3 delivered"


def test_a_finding_about_the_monitors_own_sight_that_touches_the_week_is_a_no(summary_of: Summarise) -> None:
    quiet = closed_trail()
    quiet.closed(at(1))
    base = [*quiet.documents, *kek_documents([use(1, at(1))])]
    before = alert(1, "audit_gap", first_at=at(-9), last_at=at(-8), status="resolved")
    touching = alert(2, "silent_source", first_at=at(-1), last_at=at(1), status="resolved")

    assert summary_of([*base, before]).answer is Answer.NOTHING_MISSING
    assert summary_of([touching]).answer is Answer.NO


def test_rejected_messages_are_a_no(summary_of: Summarise) -> None:
    message = Message("key-events", 0, 3, START_US // 1000 + 5, None, b"?")

    summary = summary_of([rejected_document(message, "seal_invalid", "kt-seal", "missing")])

    assert summary.answer is Answer.NO
    assert "1 message could not be read or was not to be trusted" in summary.why


def test_the_story_adds_up(summary_of: Summarise) -> None:
    summary = summary_of(story())

    assert (summary.events.sent, summary.events.stored, summary.events.missing) == (596, 596, 0)
    assert (summary.events.closed, summary.events.running, summary.events.unclosed) == (1, 1, 1)
    assert sum(day.failed for day in summary.days) == 17
    assert [(day.name, day.denied) for day in summary.days if day.denied] == [("Fri 20", 4)]
    assert [(day.name, day.unaccounted) for day in summary.days if day.unaccounted] == [("Thu 19", 14)]
    assert row(summary, "Failed decrypts") == ("17", "0", "17 bad tag")
    assert row(summary, "Alerts")[2] == "slowest delivery 14 s"
    assert (summary.vaults, summary.services, summary.tenants) == (1, 3, 1)


def test_the_age_of_the_oldest_key_is_that_of_one_that_still_encrypts(tmp_path: Path) -> None:
    trail = Trail()
    trail.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(-30), key=key(1))
    trail.event(Operation.ROTATE, Outcome.SUCCEEDED, at(2), key=key(1, version=2, revision=1))
    trail.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(-10), key=key(2))

    async def run() -> str | None:
        index = EmbeddedIndex(tmp_path / "index.sqlite")
        await index.ensure()
        await index.write(trail.documents)
        facts = await collect(index, parse_week(WEEK, "UTC"), PREPARED_MS)
        await index.close()
        return oldest_active(facts)

    assert asyncio.run(run()) == "17 d"


def test_what_went_wrong_with_tokens_is_counted_beside_all_that_was_done_with_them(summary_of: Summarise) -> None:
    trail = closed_trail()
    trail.event(Operation.TOKEN_USE, Outcome.SUCCEEDED, at(1), key=key(), token_id="refresh")
    trail.event(Operation.TOKEN_USE, Outcome.DENIED, at(1, 1), key=key(), token_id="access", reason=Reason.KEY_STATE)
    trail.closed(at(2))

    summary = summary_of(trail.documents)

    assert row(summary, "Token anomalies") == ("1", None, "of 2 acts on tokens, 1 key state")
    [tokens] = [each for each in summary.controls if each.clause == "9.4a (tokens)"]
    assert tokens.standing is Standing.OBSERVED
    assert tokens.seen.startswith("2 acts on tokens, 1 failed or denied")


def test_a_rotation_is_open_from_its_beginning_to_the_destruction_of_the_old_version(summary_of: Summarise) -> None:
    trail = closed_trail()
    for number in (1, 2):
        old = key(number, revision=3)
        trail.event(Operation.ROTATE, Outcome.SUCCEEDED, at(1, number), key=old, reason=Reason.SCHEDULED)
        report = KeyRef(id=old.id, version=2)
        trail.event(Operation.ROTATE, Outcome.SUCCEEDED, at(1, 10 + number), key=report)
    gone = key(2, revision=5, state=KeyState.DESTROYED)
    trail.event(Operation.DESTROY, Outcome.SUCCEEDED, at(3), key=gone, reason=Reason.OPERATOR)
    trail.closed(at(4))
    late = alert(1, "rotation_unfinished", status="open")

    assert row(summary_of([*trail.documents, late]), "Rotations not finished")[::2] == ("1", "of 1 key past their date")


def test_a_key_waits_for_its_destruction_until_it_comes_or_is_called_off(summary_of: Summarise) -> None:
    trail = closed_trail()
    for number in (1, 2, 3):
        asked = KeyRef(id=key(number).id, kind="dek")
        trail.event(Operation.DESTROY, Outcome.SUCCEEDED, at(1, number), key=asked)
    trail.event(Operation.RESUME, Outcome.SUCCEEDED, at(2), key=KeyRef(id=key(2).id, kind="dek"))
    gone = key(3, revision=5, state=KeyState.DESTROYED)
    trail.event(Operation.DESTROY, Outcome.SUCCEEDED, at(3), key=gone, reason=Reason.OPERATOR)
    trail.closed(at(4))

    assert row(summary_of(trail.documents), "Keys awaiting destruction")[0] == "1"
