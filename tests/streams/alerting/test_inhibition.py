"""One incident per cause: what the baselines say of an act that a deterministic alert tells of is its evidence."""

from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from alerts.model import Evidence, Finding, Severity
from alerts.thresholds import HOUR_MS, MINUTE_MS
from tests.alerts.alerting import STRANGER, explained, finding, told
from tests.streams.alerting.test_triage import Bench, command

VAULT = STRANGER.key.partition("/")[0]


def sign(
    rule: str = "first_seen_access", *, severity: Severity = Severity.HIGH, after_ms: int = MINUTE_MS, **parts: str
) -> Finding:
    named = {"key": VAULT, "principal": STRANGER.principal} | parts
    made = finding(rule, severity=severity, at_ms=STRANGER.effective_ms + after_ms, **named)
    return replace(made, evidence=(Evidence("vault-access", rule, made.effective_ms),))


def rules(bench: Bench) -> list[str]:
    return sorted(document["rule_id"] for document in bench.documents.values())


def test_a_sign_of_the_same_principal_and_vault_is_evidence_and_no_second_alert() -> None:
    bench = Bench()
    bench.send(told(STRANGER), told(sign()))
    bench.restart()
    bench.send(told(sign()), told(sign("fan_out")))

    alert = bench.only()
    assert alert["rule_id"] == "unaccounted_kek_access"
    assert alert["facts"]["inhibits"] == "fan_out, first_seen_access"
    assert {"first_seen_access", "fan_out"} <= {one["id"] for one in alert["evidence"]}
    assert len(bench.deliver()) == 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_signs_does_not_matter(order: tuple[int, ...]) -> None:
    signs = [sign(), sign("fan_out", after_ms=2 * MINUTE_MS), sign("denied_burst", severity=Severity.MEDIUM)]
    bench, straight = Bench(), Bench()

    bench.send(told(STRANGER), *(told(signs[number]) for number in order))
    straight.send(told(STRANGER), *map(told, signs))

    assert bench.only() == straight.only()


@pytest.mark.parametrize(
    "other",
    [
        sign(principal="somebody-else"),
        sign(key="kv-other"),
        sign(after_ms=2 * HOUR_MS),
        sign("lone_challenges"),
    ],
    ids=["another principal", "another vault", "another time", "a rule about addresses"],
)
def test_what_has_another_cause_is_an_alert_of_its_own(other: Finding) -> None:
    bench = Bench()
    bench.send(told(STRANGER), told(other))

    assert len(bench.documents) == 2


def test_a_milder_or_silenced_or_resolved_alert_hides_nothing() -> None:
    rotation = replace(STRANGER, rule_id="kek_administration", severity=Severity.INFO)
    mild = Bench()
    mild.send(told(rotation), told(sign(severity=Severity.LOW)))
    assert rules(mild) == ["first_seen_access", "kek_administration"]

    for act in ("silence", "resolve"):
        bench = Bench()
        bench.send(told(STRANGER))
        bench.send(command(act, bench.only()["alert_id"], until_ms=bench.now_ms + HOUR_MS), told(sign()))
        assert rules(bench) == ["first_seen_access", "unaccounted_kek_access"], act


def test_when_the_alert_is_explained_away_its_signs_are_told() -> None:
    bench, message = Bench(), told(STRANGER)
    bench.send(message, told(sign()))
    bench.restart()

    bench.send(explained(message, 1))

    standing = {document["rule_id"]: document["status"] for document in bench.documents.values()}
    assert standing == {"unaccounted_kek_access": "resolved", "first_seen_access": "open"}


# A sign that was told before the alert came


def standing(bench: Bench) -> dict[str, str]:
    return {document["rule_id"]: document["status"] for document in bench.documents.values()}


def of(bench: Bench, rule: str) -> dict[str, Any]:
    [found] = [document for document in bench.documents.values() if document["rule_id"] == rule]
    return found


def test_a_sign_that_was_told_first_ends_when_the_alert_of_the_same_act_opens() -> None:
    bench = Bench()
    bench.send(told(sign(), count=3))
    [opened] = bench.deliver()
    assert opened.kind == "opened"

    bench.send(told(STRANGER))

    assert standing(bench) == {"first_seen_access": "resolved", "unaccounted_kek_access": "open"}
    told_of, stays = of(bench, "first_seen_access"), of(bench, "unaccounted_kek_access")
    assert told_of["facts"]["superseded_by"] == stays["number"] == "KT-1002"
    assert stays["facts"]["inhibits"] == "first_seen_access"
    assert "first_seen_access" in {one["id"] for one in stays["evidence"]}
    assert [(one.kind, one.subject) for one in bench.deliver()] == [
        ("opened", stays["text"].splitlines()[0]),
        ("resolved", "KT-1001 resolved by itself: KT-1002 tells of the same cause"),
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_one_alert_stays_whichever_of_sign_and_alert_came_first(order: tuple[int, ...]) -> None:
    messages = [told(STRANGER), told(sign()), told(sign("fan_out", after_ms=2 * MINUTE_MS))]
    bench = Bench()

    for number in order:
        bench.send(messages[number])
        bench.restart()

    assert [rule for rule, status in standing(bench).items() if status != "resolved"] == ["unaccounted_kek_access"]
    assert of(bench, "unaccounted_kek_access")["facts"]["inhibits"] == "fan_out, first_seen_access"


@pytest.mark.parametrize(
    "other",
    [
        sign(principal="somebody-else"),
        sign(key="kv-other"),
        sign(after_ms=-2 * HOUR_MS),
        sign("lone_challenges"),
    ],
    ids=["another principal", "another vault", "another time", "a rule about addresses"],
)
def test_what_had_another_cause_stays_open(other: Finding) -> None:
    bench = Bench()
    bench.send(told(other), told(STRANGER))

    assert set(standing(bench).values()) == {"open"}


def test_an_incident_that_began_long_before_is_not_swallowed_by_an_alert_of_its_last_hour() -> None:
    bench = Bench()
    began = told(sign("volume_anomaly", after_ms=-5 * HOUR_MS))
    bench.send(began, replace(began, count=5, last_ms=STRANGER.effective_ms), told(STRANGER))

    assert set(standing(bench).values()) == {"open"}


def test_a_milder_alert_ends_a_sign_only_when_it_becomes_as_grave() -> None:
    mild = replace(STRANGER, rule_id="kek_administration", severity=Severity.LOW)
    bench = Bench()

    bench.send(told(sign()), told(mild))
    assert standing(bench)["first_seen_access"] == "open"
    bench.send(told(replace(mild, severity=Severity.CRITICAL), count=2))

    assert standing(bench)["first_seen_access"] == "resolved"


def test_more_of_a_superseded_sign_is_evidence_and_worse_of_it_stands_up_again() -> None:
    bench = Bench()
    mild = replace(STRANGER, severity=Severity.HIGH)
    bench.send(told(sign(severity=Severity.MEDIUM)), told(mild))

    bench.send(told(sign(severity=Severity.MEDIUM), count=9))
    assert standing(bench)["first_seen_access"] == "resolved"
    bench.send(told(sign(severity=Severity.CRITICAL), count=10))

    assert standing(bench)["first_seen_access"] == "open"
    assert "superseded_by" not in of(bench, "first_seen_access")["facts"]


def test_when_the_alert_is_explained_away_the_superseded_sign_is_open_again() -> None:
    bench, message = Bench(), told(STRANGER)
    bench.send(told(sign(), count=3), message)
    bench.restart()

    bench.send(explained(message, 1))

    assert standing(bench) == {"unaccounted_kek_access": "resolved", "first_seen_access": "open"}
    assert of(bench, "first_seen_access")["count"] == 3


# A log that was cut, and then silent


@pytest.mark.parametrize("silence_first", [False, True])
def test_the_silence_after_a_cut_is_the_same_incident(silence_first: bool) -> None:
    cut = finding("vault_logging_cut", severity=Severity.CRITICAL, key=VAULT, principal=STRANGER.principal)
    silent = finding("vault_silent", severity=Severity.HIGH, key=VAULT, principal="")
    silent = replace(silent, effective_ms=cut.effective_ms + 24 * HOUR_MS)
    bench = Bench()

    bench.send(*map(told, (silent, cut) if silence_first else (cut, silent)))

    assert [rule for rule, status in standing(bench).items() if status == "open"] == ["vault_logging_cut"]


def test_a_log_that_misses_calls_told_by_many_partitions_is_one_alert_of_bounded_size() -> None:
    low = finding("match_ratio_low", severity=Severity.MEDIUM, key=VAULT, principal="")
    missed = finding("audit_coverage", severity=Severity.MEDIUM, key=VAULT, principal="")
    runs = [told(missed, opened_ms=missed.effective_ms + number) for number in range(2_000)]
    before, after = runs[:100], runs[100:]
    bench = Bench()

    bench.send(*before, told(low), *after)

    standing = [document for document in bench.documents.values() if document["status"] == "open"]
    assert [document["rule_id"] for document in standing] == ["match_ratio_low"]
    assert standing[0]["facts"]["inhibits"] == "audit_coverage"
    bench.state.cut()
    [record] = [raw for key, raw in bench.state.dump().items() if key[1:].hex() == standing[0]["alert_id"]]
    assert len(record) < 100_000


def test_the_silence_of_another_vault_is_told() -> None:
    cut = finding("vault_logging_cut", severity=Severity.CRITICAL, key=VAULT, principal=STRANGER.principal)
    bench = Bench()

    bench.send(told(cut), told(finding("vault_silent", severity=Severity.HIGH, key="kv-other", principal="")))

    assert set(standing(bench).values()) == {"open"}
