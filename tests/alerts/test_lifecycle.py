import pytest
from msgspec.structs import replace

from alerts import lifecycle
from alerts.examples import NOW_MS
from alerts.lifecycle import Alert
from alerts.model import Command, Evidence, Severity
from alerts.thresholds import DAY_MS, DEFAULT_LIMITS, HOUR_MS, MINUTE_MS
from tests.alerts.alerting import LATER_MS, alert_of, explained, finding, told


def _settle(alert: Alert, now_ms: int) -> None:
    lifecycle.settle(alert, now_ms=now_ms, limits=DEFAULT_LIMITS)


def _hit(alert: Alert, count: int, now_ms: int, severity: Severity = Severity.HIGH) -> None:
    message = told(finding(severity=severity), count=count, opened_ms=NOW_MS)
    lifecycle.absorb(alert, message, now_ms=now_ms, limits=DEFAULT_LIMITS)
    _settle(alert, now_ms)


def _command(act: str, ident: str = "c1", until_ms: int | None = None) -> Command:
    return Command(id=ident, act=act, alert_id="00", person="user:lena", until_ms=until_ms)  # type: ignore[arg-type]


def _obey(alert: Alert, command: Command, now_ms: int) -> None:
    lifecycle.obey(alert, command, now_ms=now_ms)
    _settle(alert, now_ms)


def _sent(alert: Alert, now_ms: int) -> list[str]:
    kinds = [owed.kind for owed in alert.owed]
    for owed in alert.owed:
        assert lifecycle.sent(alert, owed.ordinal, ("console",), now_ms=now_ms)
    return list(kinds)


def _opened(severity: Severity = Severity.HIGH) -> Alert:
    alert = alert_of(told(finding(severity=severity)), now_ms=LATER_MS)
    assert _sent(alert, LATER_MS) == (["opened"] if severity is not Severity.INFO else [])
    return alert


@pytest.mark.parametrize(
    ("count", "after_ms", "told_again"),
    [(3, DAY_MS, []), (4, 15 * MINUTE_MS - 1, []), (4, 15 * MINUTE_MS, ["worse"]), (400, 14 * MINUTE_MS, [])],
)
def test_it_is_worse_at_four_times_the_count_and_not_before_a_quarter_of_an_hour(
    count: int, after_ms: int, told_again: list[str]
) -> None:
    alert = _opened()

    _hit(alert, count, LATER_MS + after_ms)

    assert _sent(alert, LATER_MS) == told_again


def test_growth_that_came_too_soon_is_told_when_the_quarter_of_an_hour_is_over() -> None:
    alert = _opened()
    _hit(alert, 8, LATER_MS + MINUTE_MS)

    due_ms = lifecycle.due_ms(alert, now_ms=LATER_MS + MINUTE_MS, limits=DEFAULT_LIMITS)
    assert due_ms == LATER_MS + 15 * MINUTE_MS
    _settle(alert, due_ms)

    assert _sent(alert, due_ms) == ["worse"]
    _settle(alert, due_ms + HOUR_MS)
    assert _sent(alert, due_ms) == [], "not again for the same count"


def test_a_higher_severity_is_told_at_once_and_a_lower_one_changes_nothing() -> None:
    alert = _opened()

    _hit(alert, 2, LATER_MS + 1, Severity.CRITICAL)
    assert _sent(alert, LATER_MS) == ["worse"]
    _hit(alert, 3, LATER_MS + 2, Severity.LOW)

    assert alert.severity is Severity.CRITICAL
    assert _sent(alert, LATER_MS) == []


def test_info_is_listed_and_told_to_nobody_until_it_is_worse() -> None:
    alert = _opened(Severity.INFO)

    _hit(alert, 2, LATER_MS + 1, Severity.HIGH)

    assert _sent(alert, LATER_MS) == ["opened"]


def test_an_acknowledgement_ends_and_then_somebody_is_told() -> None:
    alert = _opened()
    _obey(alert, _command("acknowledge", until_ms=LATER_MS + HOUR_MS), LATER_MS + 1)
    assert (alert.status, alert.acknowledged_by) == ("acknowledged", "user:lena")
    assert lifecycle.due_ms(alert, now_ms=LATER_MS + 15 * MINUTE_MS, limits=DEFAULT_LIMITS) == LATER_MS + HOUR_MS

    _settle(alert, LATER_MS + HOUR_MS)

    assert alert.status == "open"
    assert alert.owed[0].because == "the acknowledgement has run out"


def test_a_silence_holds_back_what_is_not_critical_until_it_ends() -> None:
    alert = _opened()
    _obey(alert, _command("silence", until_ms=LATER_MS + HOUR_MS), LATER_MS + 1)

    _hit(alert, 100, LATER_MS + 20 * MINUTE_MS)
    assert _sent(alert, LATER_MS) == []
    _settle(alert, LATER_MS + HOUR_MS)

    assert _sent(alert, LATER_MS) == ["worse"]


def test_no_silence_holds_back_a_critical_alert() -> None:
    alert = _opened()
    _obey(alert, _command("silence", until_ms=LATER_MS + HOUR_MS), LATER_MS + 1)

    _hit(alert, 2, LATER_MS + 2, Severity.CRITICAL)

    assert _sent(alert, LATER_MS) == ["worse"]


def test_a_person_resolves_it_and_only_a_new_hit_opens_it_again() -> None:
    alert = _opened()
    _obey(alert, _command("resolve"), LATER_MS + 1)
    assert (alert.status, _sent(alert, LATER_MS)) == ("resolved", ["resolved"])

    _hit(alert, 1, LATER_MS + 2)
    assert alert.status == "resolved"
    _hit(alert, 2, LATER_MS + 3)

    assert (alert.status, _sent(alert, LATER_MS)) == ("open", ["opened"])
    assert alert.resolved_by == ""


def test_the_same_command_twice_counts_once() -> None:
    alert = _opened()
    _obey(alert, _command("resolve"), LATER_MS + 1)
    _hit(alert, 2, LATER_MS + 2)

    assert not lifecycle.obey(alert, _command("resolve"), now_ms=LATER_MS + 3)
    assert alert.status == "open"


def test_it_is_resolved_when_every_hit_is_explained_and_not_before() -> None:
    message = told(finding(), count=2)
    alert = alert_of(message)
    _sent(alert, LATER_MS)

    lifecycle.retract(alert, explained(message, 1), now_ms=LATER_MS)
    _settle(alert, LATER_MS)
    assert (alert.status, alert.count) == ("open", 1)
    lifecycle.retract(alert, explained(message, 2), now_ms=LATER_MS)
    _settle(alert, LATER_MS)

    assert (alert.status, alert.count, _sent(alert, LATER_MS)) == ("resolved", 0, ["resolved"])


def test_what_was_never_told_is_not_told_to_be_over() -> None:
    message = told(finding())
    alert = alert_of(message)

    lifecycle.retract(alert, explained(message, 1), now_ms=LATER_MS)
    _settle(alert, LATER_MS)

    assert _sent(alert, LATER_MS) == []


def test_it_closes_a_week_after_its_last_hit() -> None:
    alert = _opened()
    _hit(alert, 2, LATER_MS + DAY_MS)

    _settle(alert, LATER_MS + 8 * DAY_MS - 1)
    assert alert.status == "open"
    _settle(alert, LATER_MS + 8 * DAY_MS)

    assert (alert.status, _sent(alert, LATER_MS)[-1:]) == ("resolved", ["resolved"])


def test_while_a_notification_waits_nothing_else_is_owed_but_the_end() -> None:
    alert = alert_of(told(finding()))

    _hit(alert, 50, LATER_MS + HOUR_MS, Severity.CRITICAL)
    assert [owed.kind for owed in alert.owed] == ["opened"]
    _obey(alert, _command("resolve"), LATER_MS + 2 * HOUR_MS)

    assert alert.owed == []


def test_an_alert_cites_its_first_and_its_last_documents() -> None:
    alert = _opened()
    for number in range(60):
        proof = (Evidence("event", f"{number:02}", NOW_MS + number),)
        message = told(replace(finding(at_ms=NOW_MS + number), evidence=proof), count=number + 1, opened_ms=NOW_MS)
        lifecycle.absorb(alert, message, now_ms=LATER_MS, limits=DEFAULT_LIMITS)

    cited = [proof.id for proof in alert.finding.evidence]

    assert cited == [f"{number:02}" for number in (*range(10), *range(50, 60))]
