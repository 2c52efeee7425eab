"""A service that does not reach Kafka is one alert, not one for each KEK use that its events would explain."""

from msgspec.structs import replace

from alerts.model import FindingMessage, FindingResolved
from alerts.thresholds import HOUR_MS, MINUTE_MS, SECOND_MS
from streams.joining.correlate import Use
from streams.joining.progress import SourceProgress
from streams.state import State
from tests.streams.alerting.test_triage import Bench as Triage
from tests.streams.joining.join_bench import BILLING, OTHER, STRANGER, T0, Bench, outcome, progress, request_id, use

WAITING = {"pending_source": 40}


def behind(vault: str = "kv-prod", *, later_ms: int = 0) -> Bench:
    """Billing was heard until a minute before its first use, and then no more; 40 uses of two KEKs come."""
    bench = Bench()
    bench.send(progress(T0 - MINUTE_MS), progress(T0 + HOUR_MS, source="crm"))
    bench.send(*(waiting_use(number, vault, later_ms) for number in range(40)))
    return bench


def waiting_use(number: int, vault: str = "kv-prod", later_ms: int = 0) -> Use:
    name = "tokens-kek" if number % 2 else "tenant-kek"
    at_ms = T0 + number * SECOND_MS + later_ms
    return replace(use(f"u{number}", at_ms, correlation=request_id(f"a{number}"), name=name), vault=vault)


EVENTS = [
    replace(outcome(f"a{number}", T0 + number * SECOND_MS), name=waiting_use(number).name) for number in range(40)
]


def alerts(*benches: Bench) -> list[dict[str, object]]:
    triage = Triage()
    for bench in benches:
        triage.send(*bench.findings)
    return sorted(triage.documents.values(), key=lambda alert: str(alert["number"]))


def test_an_outage_of_one_source_is_one_finding_over_all_keks_and_partitions() -> None:
    one, other = behind(), behind(vault="kv-eu", later_ms=7)

    for bench in (one, other):
        bench.wait(10 * MINUTE_MS)

    assert one.standing() == other.standing() == WAITING
    [alert] = alerts(one, other)
    assert (alert["rule_id"], alert["count"], alert["principal"]) == ("pending_source", 80, "billing")
    assert alert["summary"] == "billing is 3 min behind: uses of KEKs by its identity wait for its events"
    assert str(alert["text"]).startswith("MEDIUM  KEK uses wait for a service that is behind")


def test_the_alert_says_how_far_behind_the_source_was_at_the_last_use_that_waits() -> None:
    bench = behind()
    bench.wait(20 * MINUTE_MS)

    late = use("late", bench.now_ms, correlation="x")
    bench.send(late)
    bench.wait(3 * MINUTE_MS)

    [alert] = alerts(bench)
    assert str(alert["summary"]).startswith("billing is 23 min behind")


def test_it_resolves_with_the_reason_when_the_source_catches_up() -> None:
    bench = behind()
    bench.wait(10 * MINUTE_MS)

    bench.send(*EVENTS)
    bench.send(progress(T0 + HOUR_MS))

    assert bench.standing() == {}
    assert {document["status"] for document in bench.documents.values()} == {"matched"}
    [alert] = alerts(bench)
    assert alert["status"] == "resolved"
    assert "resolved by itself: billing caught up: its events explain the uses" in str(alert["text"])


def test_what_a_source_that_caught_up_does_not_explain_is_an_alert_at_once() -> None:
    bench = behind()
    bench.send(use("stolen", T0 + 5 * SECOND_MS, correlation="unheard-of"))
    bench.wait(10 * MINUTE_MS)

    bench.send(*EVENTS)
    bench.send(progress(T0 + HOUR_MS))

    assert bench.standing() == {"unaccounted_kek_access": 1}
    assert bench.verdict("stolen") == ("unaccounted", None, "no_event")


def test_the_last_word_after_an_hour_is_an_alert_of_each_kek_and_nothing_waits_any_more() -> None:
    bench = behind()

    bench.wait(61 * MINUTE_MS)

    assert bench.standing() == {"unaccounted_kek_access": 40}
    waited, *found = alerts(bench)
    assert (waited["rule_id"], waited["status"]) == ("pending_source", "resolved")
    assert "billing was waited for 60 min" in " ".join(str(waited["text"]).split())
    assert [(alert["rule_id"], alert["count"]) for alert in found] == [("unaccounted_kek_access", 20)] * 2


def test_events_that_come_after_the_last_word_take_those_alerts_back_too() -> None:
    bench = behind()
    bench.wait(61 * MINUTE_MS)

    bench.send(*EVENTS)

    assert bench.standing() == {}


def test_a_source_whose_processes_all_fell_silent_is_waited_for_too() -> None:
    bench = behind()
    bench.send(progress(T0 - MINUTE_MS, state="silent"))
    bench.restart()

    bench.wait(10 * MINUTE_MS)

    assert bench.standing() == WAITING
    [alert] = alerts(bench)
    assert alert["who"] == "billing, no process of it is live"


def test_a_second_outage_opens_the_same_alert_again() -> None:
    bench = Bench()
    for number in range(2):
        at_ms = bench.now_ms
        bench.send(progress(at_ms - MINUTE_MS), use(f"u{number}", at_ms, correlation=request_id(f"a{number}")))
        bench.wait(5 * MINUTE_MS)
        assert [alert["status"] for alert in alerts(bench)] == ["open"]
        bench.send(outcome(f"a{number}", at_ms), progress(bench.now_ms))
        assert [alert["status"] for alert in alerts(bench)] == ["resolved"]
        bench.wait(HOUR_MS)


# What never waits


def test_a_theft_under_the_identity_of_a_service_that_reports_in_time_is_one_alert_and_no_other() -> None:
    bench = Bench()
    for second in range(300):
        bench.now_ms = T0 + second * SECOND_MS
        if second % 30 == 0:
            bench.send(progress(bench.now_ms - 2 * SECOND_MS))
        if second == 6:
            bench.send(use("stolen", T0 + 5 * SECOND_MS, correlation="unheard-of"))
        bench.wait(SECOND_MS, step_ms=SECOND_MS)
        if second == 130:
            assert not bench.kept("stolen").final, "told before its source has passed it"  # type: ignore[union-attr]

    assert bench.verdict("stolen") == ("unaccounted", None, "no_event")
    assert [alert["rule_id"] for alert in alerts(bench)] == ["unaccounted_kek_access"]


def test_a_stranger_and_another_source_alert_while_one_source_is_behind() -> None:
    bench = behind()

    bench.send(use("stranger", principal_id=STRANGER), use("crm", principal_id=OTHER, correlation="x"))

    assert bench.standing() == {"unaccounted_kek_access": 2}


def test_a_copied_id_alerts_while_its_source_is_behind() -> None:
    bench = Bench()
    bench.send(progress(T0 - MINUTE_MS), outcome("a"), use("u", correlation=request_id("a")))
    bench.send(use("copy", T0 + 30, correlation=request_id("a")))

    bench.wait(3 * MINUTE_MS)

    assert bench.verdict("copy") == ("unaccounted", None, "id_reused")
    assert bench.standing() == {"unaccounted_kek_access": 1}


def test_the_identity_of_a_service_that_does_not_run_alerts_after_two_minutes() -> None:
    for ended in ((), (progress(T0 - HOUR_MS, state="closed"),)):
        bench = Bench()
        bench.send(*ended, use("u", correlation="x", principal_id=BILLING))

        bench.wait(3 * MINUTE_MS)

        assert bench.standing() == {"unaccounted_kek_access": 1}


def test_a_restart_in_the_middle_of_an_outage_changes_nothing() -> None:
    calm, restarted = behind(), behind()
    for bench in (calm, restarted):
        bench.wait(5 * MINUTE_MS)
        if bench is restarted:
            bench.restart()
        bench.wait(60 * MINUTE_MS)

    assert restarted.standing() == calm.standing()
    assert _told(restarted) == _told(calm)


def test_what_waits_for_a_source_that_is_never_heard_again_is_let_go() -> None:
    state, waits = State(), SourceProgress(slack_ms=2 * MINUTE_MS, keep_ms=HOUR_MS)
    for number in range(1_000):
        waits.wait("billing", T0 + number, b"%d" % number)
    waits.wait("billing", T0 + 6 * HOUR_MS, b"young")

    waits.prune(T0 + 7 * HOUR_MS, state)

    assert waits.advance(progress(T0 + 8 * HOUR_MS), T0 + 7 * HOUR_MS, state) == [b"young"]


def _told(bench: Bench) -> dict[str, tuple[int, int]]:
    told: dict[str, tuple[int, int]] = {}
    for message in bench.findings:
        count, retracted = told.get(message.finding_id, (0, 0))
        more = message.retracted if isinstance(message, FindingResolved) else 0
        assert isinstance(message, FindingMessage | FindingResolved)
        told[message.finding_id] = max(count, message.count), max(retracted, more)
    return told
