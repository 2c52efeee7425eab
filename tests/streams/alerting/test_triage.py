from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from alerts import grouping
from alerts.examples import NOW_MS
from alerts.model import Command, Finding, FindingMessage, FindingResolved, Notification, Severity
from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS, Limits
from streams.alerting.triage import TriageStep
from streams.index.mappings import unmapped
from streams.index.port import DocKind
from streams.messages import FINDINGS, REJECTED, Effects, Message
from streams.state import Kind, State
from tests.alerts.alerting import STRANGER, explained, finding, told

_encode = msgspec.json.Encoder().encode


class Bench:
    """The one partition of `findings`."""

    def __init__(self) -> None:
        self.step = TriageStep(limits=Limits())
        self.state = State()
        self.now_ms = NOW_MS
        self.documents: dict[str, dict[str, Any]] = {}
        self.rejected = 0
        self.offset = 0
        self.step.restore(self.state)

    def send(self, *messages: FindingMessage | FindingResolved | Command | bytes) -> None:
        for message in messages:
            value = message if isinstance(message, bytes) else _encode(message)
            effects = Effects()
            self.step.apply(
                Message(FINDINGS, 0, self.offset, self.now_ms, None, value), self.now_ms, self.state, effects
            )
            self.offset += 1
            self._take(effects)

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        effects = Effects()
        self.step.tick(self.now_ms, self.state, effects)
        self._take(effects)

    def deliver(self) -> list[Notification]:
        due = self.step.owed(self.state)
        for notification in due:
            effects = Effects()
            self.step.delivered(notification.id, self.now_ms, self.state, effects)
            self._take(effects)
        return due

    def restart(self) -> None:
        self.state.cut()
        read = State()
        for key, value in self.state.dump().items():
            read.load(key, value)
        self.state, self.step = read, TriageStep(limits=Limits())
        self.step.restore(self.state)

    def only(self) -> dict[str, Any]:
        [document] = self.documents.values()
        return document

    def _take(self, effects: Effects) -> None:
        self.rejected += sum(out.topic == REJECTED for out in effects.out)
        for document in effects.documents:
            if document.kind is DocKind.ALERT:
                body = msgspec.json.decode(document.body)
                assert body["revision"] > self.documents.get(document.id, {"revision": 0})["revision"]
                self.documents[document.id] = body
                self.step.indexed(document, self.state)


def command(act: str, alert_id: str, *, ident: str = "c1", until_ms: int | None = None) -> Command:
    return Command(id=ident, act=act, alert_id=alert_id, person="user:lena", until_ms=until_ms)  # type: ignore[arg-type]


def test_the_first_finding_of_a_cause_opens_an_alert_and_tells_it_once() -> None:
    bench = Bench()
    message = told(count=1)

    bench.send(message)

    alert = bench.only()
    assert (alert["number"], alert["status"], alert["severity"], alert["count"]) == ("KT-1001", "open", "critical", 1)
    assert alert["alert_id"] == grouping.alert_id(grouping.fingerprint(STRANGER), message.finding_id)
    [notification] = bench.deliver()
    assert (notification.kind, notification.text) == ("opened", alert["text"])
    assert bench.step.owed(bench.state) == []
    assert [delivery["kind"] for delivery in bench.only()["delivered"]] == ["opened"]


def test_an_alert_fits_the_strict_mapping_of_the_index() -> None:
    bench = Bench()
    bench.send(told(count=3))
    bench.deliver()
    bench.send(command("acknowledge", bench.only()["alert_id"], until_ms=NOW_MS + HOUR_MS))

    assert unmapped(DocKind.ALERT, bench.only()) == []
    assert bench.only()["@timestamp"] == bench.only()["first_at"] == "2025-11-16T02:41:07.000000Z"


def test_repeats_count_up_in_the_same_alert() -> None:
    bench = Bench()
    bench.send(told(count=1), told(count=14, last_ms=NOW_MS + MINUTE_MS), told(count=14), told(count=2))

    assert (bench.only()["count"], bench.only()["last_at"]) == (14, "2025-11-16T02:42:07.000000Z")
    assert bench.only()["revision"] == 2, "what is not news writes nothing"


def test_two_partitions_that_report_one_cause_make_one_alert() -> None:
    bench = Bench()

    bench.send(told(count=3), told(count=4, opened_ms=NOW_MS + 500), told(count=5))

    assert bench.only()["count"] == 9
    assert len(bench.deliver()) == 1


def test_different_causes_make_alerts_with_numbers_of_their_own() -> None:
    bench = Bench()

    bench.send(told(finding(key="a")), told(finding(key="b")), told(finding(key="a", tenant="t")))

    assert [alert["number"] for alert in bench.documents.values()] == ["KT-1001", "KT-1002", "KT-1003"]


def test_a_notification_is_owed_until_it_is_delivered_also_across_a_restart() -> None:
    bench = Bench()
    bench.send(told())
    before = bench.step.owed(bench.state)

    bench.restart()
    bench.send(told())

    assert bench.step.owed(bench.state) == before
    bench.deliver()
    bench.restart()
    assert bench.step.owed(bench.state) == []


def test_a_late_word_about_a_delivery_that_is_not_owed_changes_nothing() -> None:
    bench = Bench()
    bench.send(told())
    [notification] = bench.deliver()
    effects = Effects()

    bench.step.delivered(notification.id, bench.now_ms, bench.state, effects)
    bench.step.delivered("00-7", bench.now_ms, bench.state, effects)

    assert effects.documents == []


def test_growth_is_told_by_the_tick_when_it_came_too_soon() -> None:
    bench = Bench()
    bench.send(told(count=1))
    bench.deliver()
    bench.wait(MINUTE_MS)
    bench.send(told(count=61))
    assert bench.deliver() == []

    bench.wait(14 * MINUTE_MS)

    [notification] = bench.deliver()
    assert (notification.kind, notification.subject) == ("worse", "KT-1001 worse: 1 \u2192 61 hits.")


def test_an_explanation_resolves_and_a_new_hit_opens_again() -> None:
    bench = Bench()
    message = told(count=1)
    bench.send(message)
    bench.deliver()

    bench.send(explained(message, 1))
    assert (bench.only()["status"], bench.only()["count"]) == ("resolved", 0)
    assert [notification.kind for notification in bench.deliver()] == ["resolved"]
    bench.send(told(count=2))

    assert (bench.only()["status"], bench.only()["count"]) == ("open", 1)
    assert [notification.kind for notification in bench.deliver()] == ["opened"]


def test_an_explanation_that_comes_before_its_finding_waits_for_it() -> None:
    bench = Bench()
    message = told(count=1)

    bench.send(explained(message, 1))
    bench.restart()
    bench.send(message)

    assert (bench.only()["status"], bench.only()["count"]) == ("resolved", 0)
    assert bench.deliver() == []


def test_of_explanations_that_come_too_early_the_last_one_counts() -> None:
    bench = Bench()
    message = told(count=2)

    bench.send(explained(message, 2), explained(message, 1), message)

    assert (bench.only()["status"], bench.only()["count"]) == ("resolved", 0)


def test_what_people_decide_is_on_the_alert() -> None:
    bench = Bench()
    bench.send(told(finding()))
    alert_id = bench.only()["alert_id"]

    bench.send(command("acknowledge", alert_id, until_ms=NOW_MS + HOUR_MS))
    assert bench.only()["status"] == "acknowledged"
    assert bench.only()["facts"]["acknowledged_by"] == "user:lena"
    bench.wait(HOUR_MS)
    assert bench.only()["status"] == "open"
    bench.send(command("silence", alert_id, ident="c2", until_ms=bench.now_ms + HOUR_MS))
    bench.send(command("resolve", alert_id, ident="c3"))

    assert (bench.only()["status"], bench.only()["facts"]["resolved_by"]) == ("resolved", "user:lena")


def test_a_silence_holds_for_the_next_alert_of_the_same_cause() -> None:
    bench = Bench()
    bench.send(told(finding()))
    bench.deliver()
    alert_id = bench.only()["alert_id"]
    bench.send(command("silence", alert_id, until_ms=NOW_MS + HOUR_MS), command("resolve", alert_id, ident="c2"))
    bench.deliver()

    bench.send(told(finding(), opened_ms=NOW_MS + 1))

    assert len(bench.documents) == 2
    assert bench.deliver() == []
    bench.wait(HOUR_MS)
    assert [notification.kind for notification in bench.deliver()] == ["opened"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"{}",
        b"\xff\xff",
        _encode(command("acknowledge", "00")),
        _encode(command("silence", "00", until_ms=NOW_MS)),
        _encode(command("resolve", "not hex")),
        _encode(command("resolve", "00")),
        _encode(replace(told(), finding_id="not hex")),
    ],
)
def test_what_cannot_be_taken_is_rejected(wrong: bytes) -> None:
    bench = Bench()

    bench.send(wrong)

    assert bench.rejected == 1
    assert bench.documents == {}


def test_an_alert_closes_after_a_quiet_week_and_its_record_goes_a_week_later() -> None:
    bench = Bench()
    bench.send(told())
    bench.deliver()

    bench.wait(7 * DAY_MS)
    assert bench.only()["status"] == "resolved"
    bench.deliver()
    bench.wait(7 * DAY_MS)

    assert bench.state.count(Kind.ALERT) == 0
    bench.send(told(opened_ms=NOW_MS + 14 * DAY_MS))
    assert sorted(alert["number"] for alert in bench.documents.values()) == ["KT-1001", "KT-1002"]


def test_a_record_stays_until_its_document_is_in_the_index() -> None:
    bench = Bench()
    bench.step.indexed = lambda document, state: None  # type: ignore[method-assign]
    bench.send(told())
    bench.deliver()
    bench.wait(7 * DAY_MS)
    bench.deliver()
    bench.wait(8 * DAY_MS)

    effects = Effects()
    bench.step.redocument(bench.state, effects)

    assert [document.id for document in effects.documents] == list(bench.documents)


# Any order, any repetition


SEVERITIES = st.sampled_from([Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL])


def _stream(name: str, severities: list[Severity], retracted: int) -> list[FindingMessage | FindingResolved]:
    """What the book of one partition sends about one cause: counts go up, the worst hit so far is named."""
    messages: list[FindingMessage | FindingResolved] = []
    worst: Finding | None = None
    for number, severity in enumerate(severities):
        hit = finding("rule", severity=severity, at_ms=NOW_MS + number * 1000, key=name)
        worst = hit if worst is None or hit.severity.rank >= worst.severity.rank else worst
        messages.append(replace(told(hit, count=number + 1, opened_ms=NOW_MS), finding=worst, last_ms=hit.effective_ms))
    whole = messages[-1]
    assert isinstance(whole, FindingMessage)
    messages += [explained(whole, number + 1) for number in range(min(retracted, len(severities)))]
    return messages


def _seen(bench: Bench) -> dict[str, dict[str, Any]]:
    """The alerts less what depends on the order: numbers, when we heard, and how often they were written."""
    apart = {"number", "opened_at", "updated_at", "revision", "text", "delivered"}
    return {
        name: {field: value for field, value in body.items() if field not in apart}
        for name, body in bench.documents.items()
    }


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    streams=st.lists(
        st.tuples(st.lists(SEVERITIES, min_size=1, max_size=5), st.integers(0, 5)), min_size=1, max_size=3
    ),
)
def test_any_order_and_repetition_of_findings_gives_the_same_alerts(
    data: st.DataObject, streams: list[tuple[list[Severity], int]]
) -> None:
    messages = [
        message
        for number, (severities, retracted) in enumerate(streams)
        for message in _stream(f"k{number}", severities, retracted)
    ]
    calm, wild = Bench(), Bench()
    calm.send(*messages)

    again = data.draw(st.lists(st.sampled_from(messages), max_size=6))
    shuffled = data.draw(st.permutations([*messages, *again]))
    cut = data.draw(st.integers(0, len(shuffled)))
    wild.send(*shuffled[:cut])
    wild.restart()
    wild.send(*shuffled[cut:])

    assert _seen(wild) == _seen(calm)


class Deliveries(RuleBasedStateMachine):
    """Whatever happens in whatever order: ids are told once, an open alert was told, nothing is owed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.delivered: list[str] = []
        self.count = 0
        self.retracted = 0

    @initialize()
    def open(self) -> None:
        self.hit(1, Severity.HIGH)

    @rule(more=st.integers(1, 9), severity=SEVERITIES)
    def hit(self, more: int, severity: Severity) -> None:
        self.count += more
        hit = finding(severity=severity, at_ms=NOW_MS + self.count)
        self.bench.send(told(hit, count=self.count, opened_ms=NOW_MS))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.bench.send(told(finding(), count=data.draw(st.integers(1, self.count)), opened_ms=NOW_MS))

    @rule()
    def explain(self) -> None:
        self.retracted = self.count
        self.bench.send(explained(told(finding(), count=self.count, opened_ms=NOW_MS), self.retracted))

    @rule(act=st.sampled_from(["acknowledge", "silence", "resolve"]), minutes=st.integers(1, 90))
    def decide(self, act: str, minutes: int) -> None:
        ident = f"c{self.bench.offset}"
        until_ms = self.bench.now_ms + minutes * MINUTE_MS
        self.bench.send(command(act, self.bench.only()["alert_id"], ident=ident, until_ms=until_ms))

    @rule(minutes=st.integers(1, 30))
    def wait(self, minutes: int) -> None:
        self.bench.wait(minutes * MINUTE_MS)

    @rule()
    def deliver(self) -> None:
        self.delivered += [notification.id for notification in self.bench.deliver()]

    @rule()
    def restart(self) -> None:
        self.bench.restart()

    @invariant()
    def no_id_is_told_twice(self) -> None:
        assert len(self.delivered) == len(set(self.delivered))

    @invariant()
    def at_most_one_notification_waits(self) -> None:
        assert len(self.bench.step.owed(self.bench.state)) <= 1

    @invariant()
    def the_count_is_what_stands(self) -> None:
        for body in self.bench.documents.values():
            assert body["count"] == self.count - self.retracted
            assert (body["status"] == "resolved") >= (body["count"] == 0)

    @invariant()
    def an_open_alert_that_nobody_silenced_was_told_or_will_be(self) -> None:
        for body in self.bench.documents.values():
            silenced = "silenced_by" in body["facts"] and body["severity"] != "critical"
            if body["status"] == "open" and not silenced:
                told_now = [one for one in self.bench.step.owed(self.bench.state) if one.kind != "resolved"]
                assert told_now or body["delivered"]


Deliveries.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_deliveries_hold_their_promises = Deliveries.TestCase
