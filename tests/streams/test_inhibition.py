"""One incident per cause: what the baselines say of an act that a deterministic alert tells of is its evidence."""

from itertools import permutations

import pytest
from msgspec.structs import replace

from alerts.model import Evidence, Finding, Severity
from alerts.thresholds import HOUR_MS, MINUTE_MS
from tests.alerts.alerting import STRANGER, explained, finding, told
from tests.streams.test_triage import Bench, command

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
