"""What people read: order and words as agreed, kept in golden files, so that a change of words is seen as one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts import lifecycle, text
from alerts.examples import NOW_MS
from alerts.lifecycle import Alert
from alerts.model import Command
from alerts.rules import ALL_RULES
from alerts.system import SYSTEM, system_finding
from alerts.thresholds import DEFAULT_LIMITS, HOUR_MS, MINUTE_MS
from alerts.words import duration, printable, short_id, span
from tests.alerts.alerting import LATER_MS, STRANGER, alert_of, example, explained, told

GOLDEN = Path(__file__).parent / "golden"


def _stranger() -> Alert:
    return alert_of(told(count=14, last_ms=NOW_MS + 3 * MINUTE_MS))


def _acknowledged_and_worse() -> Alert:
    alert = _stranger()
    alert.owed = []
    command = Command(
        id="c1", act="acknowledge", alert_id=alert.alert_id, person="user:lena", until_ms=NOW_MS + HOUR_MS
    )
    lifecycle.obey(alert, command, now_ms=LATER_MS + 5 * MINUTE_MS)
    lifecycle.settle(alert, now_ms=LATER_MS + 5 * MINUTE_MS, limits=DEFAULT_LIMITS)
    growth = told(count=61, last_ms=NOW_MS + 19 * MINUTE_MS)
    lifecycle.absorb(alert, growth, now_ms=LATER_MS + 20 * MINUTE_MS, limits=DEFAULT_LIMITS)
    lifecycle.settle(alert, now_ms=LATER_MS + 20 * MINUTE_MS, limits=DEFAULT_LIMITS)
    return alert


def _explained() -> Alert:
    message = told(example("unaccounted_kek_access", "a service's identity while it is behind"))
    alert = alert_of(message)
    alert.owed = []
    lifecycle.retract(alert, explained(message, 1), now_ms=LATER_MS + MINUTE_MS)
    lifecycle.settle(alert, now_ms=LATER_MS + MINUTE_MS, limits=DEFAULT_LIMITS)
    return alert


def _system() -> Alert:
    finding = system_finding(
        "audit_gap",
        summary="billing says it sent batch 4711 of its chain; it has not arrived within 5 min",
        effective_ms=NOW_MS,
        key="billing",
    )
    return alert_of(told(finding))


ALERTS = {
    "stranger-opened": _stranger,
    "stranger-worse": _acknowledged_and_worse,
    "behind-opened": lambda: alert_of(
        told(example("unaccounted_kek_access", "a service's identity while it is behind"))
    ),
    "behind-resolved": _explained,
    "revoked-opened": lambda: alert_of(told(example("revoked_key_decrypt", "revoked an hour ago, decrypt denied"))),
    "failures-opened": lambda: alert_of(
        told(example("crypto_failures", "the vault throttles: said, but milder"), count=3, last_ms=NOW_MS + MINUTE_MS)
    ),
    "purge-denied-opened": lambda: alert_of(told(example("kek_administration", "a purge is denied"))),
    "gap-opened": _system,
}


@pytest.mark.parametrize("name", list(ALERTS))
def test_a_notification_reads_as_it_was_agreed(name: str) -> None:
    alert = ALERTS[name]()
    [owed] = alert.owed

    shown = text.notice(alert, owed) + "\n"

    assert shown == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.startswith(text.subject(alert, owed))


def test_there_is_no_golden_file_without_its_alert() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(ALERTS)


def test_every_rule_and_system_finding_has_a_text_that_says_nothing_it_does_not_know() -> None:
    found = [
        detection.evaluate(one.subject, DEFAULT_LIMITS)
        for detection in ALL_RULES
        for one in detection.examples
        if one.severity is not None
    ]
    found += [system_finding(name, summary="seen", effective_ms=NOW_MS) for name in SYSTEM]
    for finding in found:
        assert finding is not None
        shown = text.render(alert_of(told(finding)))

        assert "None" not in shown
        assert "{" not in shown
        assert all(len(line) <= 100 and line == line.rstrip() for line in shown.splitlines())


def test_a_command_to_copy_stands_on_a_line_of_its_own() -> None:
    lines = text.render(_stranger()).splitlines()

    assert f"          az ad sp update --id {STRANGER.principal} --set accountEnabled=false" in lines


@given(st.text(max_size=300))
def test_no_name_in_a_log_can_write_lines_of_its_own(name: str) -> None:
    clean = alert_of(told(replace(STRANGER, who="x")))
    forged = alert_of(told(replace(STRANGER, who=f"x{name}")))

    labels = [line[:7] for line in text.render(forged).splitlines() if not line.startswith("       ")]

    assert labels == [line[:7] for line in text.render(clean).splitlines() if not line.startswith("       ")]
    assert all(len(line) <= 100 for line in text.render(forged).splitlines())


def test_an_id_that_is_no_azure_id_never_becomes_part_of_a_command() -> None:
    detection = next(each for each in ALL_RULES if each.rule.id == "unaccounted_kek_access")
    subject = next(one.subject for one in detection.examples if one.name == "a stranger unwraps")

    finding = detection.evaluate(replace(subject, principal_id="$(rm -rf ~)"), DEFAULT_LIMITS)

    assert finding is not None
    assert "rm" not in finding.first_step


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (850, "850 ms"),
        (1_800, "1.8 s"),
        (60_000, "1 min"),
        (119 * 60_000, "119 min"),
        (2 * HOUR_MS, "2 h"),
        (47 * HOUR_MS, "47 h"),
        (6 * 24 * HOUR_MS, "6 d"),
    ],
)
def test_a_duration_is_said_in_its_unit(ms: int, said: str) -> None:
    assert duration(ms) == said


def test_words_are_short_and_printable() -> None:
    assert short_id("5f2a" * 8) == "5f2a5f2a\u20265f2a"
    assert short_id("ci-deploy") == "ci-deploy"
    assert printable("a\x1b[31m\u202eb") == "a?[31m?b"
    assert span(NOW_MS, NOW_MS) == "2025-11-16 02:41:07 UTC"
    assert span(NOW_MS, NOW_MS + 24 * HOUR_MS) == "2025-11-16 02:41:07\u20132025-11-17 02:41:07 UTC"
