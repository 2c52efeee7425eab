import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.clock import rfc3339_ms
from reports.week import parse_week

HOUR_MS = 3_600_000


def test_a_week_goes_from_monday_to_sunday_in_its_zone() -> None:
    week = parse_week("2026-W47", "UTC")

    assert rfc3339_ms(week.since_ms) == "2026-11-16T00:00:00.000000Z"
    assert rfc3339_ms(week.until_ms) == "2026-11-23T00:00:00.000000Z"
    assert week.title == "Week 47, 2026 (Mon 16 Nov \u2013 Sun 22 Nov, UTC)"
    assert [day.name for day in week.days] == ["Mon 16", "Tue 17", "Wed 18", "Thu 19", "Fri 20", "Sat 21", "Sun 22"]
    assert rfc3339_ms(parse_week("2026-W47", "Europe/Berlin").since_ms) == "2026-11-15T23:00:00.000000Z"


def test_a_week_in_which_clocks_are_set_back_has_169_hours() -> None:
    week = parse_week("2026-W43", "Europe/Berlin")

    assert (week.until_ms - week.since_ms) // HOUR_MS == 169


def test_the_week_before_the_first_is_the_last_of_the_year_before() -> None:
    assert parse_week("2027-W01", "UTC").previous.label == "2026-W53"
    assert parse_week("2026-W53", "UTC").title.startswith("Week 53, 2026 (Mon 28 Dec")


@pytest.mark.parametrize(
    ("label", "tz"),
    [("2026-47", "UTC"), ("2026-W54", "UTC"), ("2026-W00", "UTC"), ("2026-W47", "Mars/Olympus"), ("2026-W47", "../x")],
)
def test_what_is_no_week_or_no_zone_is_said_so(label: str, tz: str) -> None:
    with pytest.raises(ValueError, match=r"week|zone|calendar"):
        parse_week(label, tz)


@given(st.integers(1971, 2200), st.integers(1, 52), st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
def test_days_and_weeks_follow_each_other_without_a_gap(year: int, number: int, tz: str) -> None:
    week = parse_week(f"{year}-W{number:02}", tz)

    assert all(day.until_ms == after.since_ms for day, after in zip(week.days, week.days[1:], strict=False))
    assert week.previous.until_ms == week.since_ms
    assert len(week.days) == 7
