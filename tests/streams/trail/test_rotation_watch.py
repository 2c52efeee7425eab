"""Late rotations as the keys agent finds them: in event time, once a day, until the old version is destroyed."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.thresholds import DAY_MS, DEFAULT_LIMITS, MINUTE_MS
from cryptocore.events import AuditEvent, KeyRef, Operation, Reason
from cryptocore.keys import KeyState
from cryptocore.life import rotations
from cryptocore.registry import Role
from cryptocore.signing import Signer
from streams.state import Kind
from streams.trail.rotation_watch import MAX_OPEN, Rotations
from tests.streams.builders import KEY_ID, NOW_MS, Monitor, Sender, event, registered

DUE_MS = NOW_MS + 30 * DAY_MS


class Estate:
    """A service that keeps keys, and the monitor that hears of it, each at the time that a test gives."""

    def __init__(self) -> None:
        signer = Signer.generate()
        self.sender = Sender("billing", signer)
        self.monitor = Monitor(registered("billing", signer, Role.EVENTS, Role.KEYS), partitions=1)

    def tell(self, *lines: AuditEvent, at_ms: int = NOW_MS) -> None:
        self.monitor.take(self.sender.seal(*lines, sealed_ms=at_ms), append_ms=at_ms)

    def wait_until(self, at_ms: int) -> None:
        self.monitor.tick(at_ms, step_ms=DAY_MS // 4)

    def late(self) -> list[str]:
        return [m.finding.summary for m in self.monitor.findings() if m.finding.rule_id == "rotation_unfinished"]

    def resolved(self) -> list[str]:
        return [message.explanation for message in self.monitor.resolved()]

    def known(self) -> Rotations | None:
        return self.monitor.states[0].get(Kind.ROTATION, bytes.fromhex(KEY_ID), Rotations)


def superseded(*, at_ms: int = NOW_MS, version: int = 1, reason: Reason = Reason.SCHEDULED) -> AuditEvent:
    return event(Operation.ROTATE, at_ms=at_ms, version=version, revision=3, reason=reason)


def ended(
    operation: Operation, state: KeyState, *, at_ms: int, revision: int = 4, version: int = 1, **fields: Any
) -> AuditEvent:
    return event(operation, at_ms=at_ms, version=version, revision=revision, state=state, **fields)


def archived(at_ms: int, **fields: Any) -> AuditEvent:
    return ended(Operation.ARCHIVE, KeyState.ARCHIVED, at_ms=at_ms, **fields)


def destroyed(at_ms: int, *, revision: int = 5, **fields: Any) -> AuditEvent:
    return ended(Operation.DESTROY, KeyState.DESTROYED, at_ms=at_ms, revision=revision, **fields)


@pytest.mark.parametrize(("reason", "days"), [(Reason.SCHEDULED, 30), (Reason.COMPROMISE_SUSPECTED, 7)])
def test_a_rotation_is_late_after_thirty_days_or_a_week_after_a_compromise(reason: Reason, days: int) -> None:
    estate = Estate()
    estate.tell(superseded(reason=reason))
    estate.wait_until(NOW_MS + days * DAY_MS - 1)
    assert estate.late() == []

    estate.wait_until(NOW_MS + days * DAY_MS)
    [summary] = estate.late()
    assert "version 1" in summary
    assert f"({reason})" in summary
    assert summary.endswith("is not retired")


def test_the_dates_are_those_of_the_key_store() -> None:
    assert DEFAULT_LIMITS.rotation_ms == rotations.DUE_MS
    assert DEFAULT_LIMITS.rotation_after_compromise_ms == rotations.DUE_AFTER_COMPROMISE_MS


def test_a_rotation_that_ends_in_time_is_no_finding_and_leaves_nothing() -> None:
    estate = Estate()
    estate.tell(superseded())
    estate.tell(archived(NOW_MS + DAY_MS), at_ms=NOW_MS + DAY_MS)
    estate.tell(destroyed(NOW_MS + 9 * DAY_MS), at_ms=NOW_MS + 9 * DAY_MS)
    estate.wait_until(DUE_MS + 2 * DAY_MS)

    assert estate.late() == []
    assert estate.known() is None


def test_a_late_rotation_is_told_daily_and_resolved_when_the_old_version_is_destroyed() -> None:
    estate = Estate()
    estate.tell(superseded())
    estate.wait_until(DUE_MS + DAY_MS)
    retired_ms = DUE_MS + DAY_MS + MINUTE_MS
    estate.tell(archived(retired_ms), at_ms=retired_ms)
    estate.wait_until(DUE_MS + 10 * DAY_MS)
    assert len(estate.late()) == 11
    assert estate.late()[-1].endswith("is retired, and its wrapped DEK is not overwritten")
    assert estate.resolved() == []

    end_ms = DUE_MS + 10 * DAY_MS + MINUTE_MS
    estate.tell(destroyed(end_ms), at_ms=end_ms)
    estate.wait_until(end_ms + 3 * DAY_MS)
    [explanation] = estate.resolved()
    assert "version 1" in explanation
    assert len(estate.late()) == 11


def test_an_alert_stays_while_another_version_of_the_key_is_late() -> None:
    estate = Estate()
    estate.tell(superseded(version=1), superseded(version=2))
    estate.wait_until(DUE_MS)
    [summary] = estate.late()
    assert summary.endswith("and 1 more versions")

    estate.tell(destroyed(DUE_MS + 1, version=1), at_ms=DUE_MS + 1)
    assert estate.resolved() == []
    estate.tell(destroyed(DUE_MS + 2, version=2), at_ms=DUE_MS + 2)
    assert len(estate.resolved()) == 1


def test_a_version_that_is_due_later_is_a_finding_of_its_own_time() -> None:
    estate = Estate()
    estate.tell(superseded(version=1))
    later_ms = NOW_MS + 2 * DAY_MS
    estate.tell(superseded(version=2, at_ms=later_ms), at_ms=later_ms)
    estate.wait_until(DUE_MS)
    estate.tell(destroyed(DUE_MS + 1, version=1), at_ms=DUE_MS + 1)
    assert len(estate.resolved()) == 1

    estate.wait_until(DUE_MS + 2 * DAY_MS)
    assert "version 2" in estate.late()[-1]
    assert len(estate.late()) == 2


def test_a_report_on_rows_left_opens_no_rotation() -> None:
    estate = Estate()
    estate.tell(replace(superseded(), key=KeyRef(id=KEY_ID, version=1)))

    assert estate.known() is None


def test_a_version_that_was_imported_is_to_be_left_by_its_date_too() -> None:
    estate = Estate()
    estate.tell(event(Operation.CREATE, revision=1, reason=Reason.OPERATOR, state=KeyState.ACTIVE))
    estate.wait_until(DUE_MS)

    assert len(estate.late()) == 1


def test_a_service_that_may_not_change_keys_opens_no_rotation() -> None:
    signer = Signer.generate()
    monitor = Monitor(registered("billing", signer, Role.EVENTS), partitions=1)
    monitor.take(Sender("billing", signer).seal(superseded()))

    assert monitor.states[0].count(Kind.ROTATION) == 0


def test_of_one_key_a_bounded_number_is_followed_those_due_first() -> None:
    estate = Estate()
    estate.tell(*(superseded(version=n, at_ms=NOW_MS - n) for n in range(1, MAX_OPEN + 11)))

    known = estate.known()
    assert known is not None
    assert [rotation.version for rotation in known.open] == list(range(11, MAX_OPEN + 11))


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(4)))
def test_what_is_open_does_not_depend_on_the_order_in_which_events_arrive(order: list[int]) -> None:
    lines = [
        superseded(version=1),
        archived(NOW_MS + 1, version=1),
        destroyed(NOW_MS + 2, version=1),
        superseded(version=2),
    ]
    estate = Estate()
    # a revision that was seen first is what earlier ones are measured by: all begin at revision 1
    estate.tell(*(event(Operation.CREATE, version=n, revision=1, state=KeyState.PRE_ACTIVATION) for n in (1, 2)))
    estate.tell(*(event(Operation.ACTIVATE, version=n, revision=2) for n in (1, 2)))
    for place in order:
        estate.tell(lines[place])

    known = estate.known()
    assert known is not None
    assert [rotation.version for rotation in known.open] == [2]


def test_a_takeover_in_between_changes_nothing() -> None:
    estates = Estate(), Estate()
    lines = superseded(), superseded(version=2, at_ms=NOW_MS + 1)
    for estate in estates:
        estate.tell(*lines)
        estate.wait_until(DUE_MS - DAY_MS)
        if estate is estates[1]:
            estate.monitor.restore()
        estate.wait_until(DUE_MS + 3 * DAY_MS)

    assert estates[0].late() == estates[1].late()
    assert len(estates[0].late()) == 4
    assert estates[0].known() == estates[1].known()
