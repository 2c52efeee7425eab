"""One test over all rules: metadata, runbook, clause, and what each example says."""

from pathlib import Path
from typing import Any

import pytest

from alerts import rules
from alerts.conduct import Challenges, Conduct
from alerts.detection import Detection
from alerts.examples import NOW_MS, Example, earlier, key_use, key_view
from alerts.model import KekAccess, KekAct, KekUse, KeyUse, Scope, Severity, VaultAccess
from alerts.rules import ALL_RULES, look_back, run
from alerts.system import SYSTEM, system_finding
from alerts.thresholds import DEFAULT_LIMITS, HOUR_MS, MINUTE_MS, Limits
from cryptocore.events import Operation, Outcome

ROOT = Path(__file__).parents[2]
_CLAUSES = (
    "1 2 3.1 3.2 3.3 3.4 3.5 3.6 4 5.1 5.2 5.3 6.1 6.2 6.3a 6.3b 6.4a 6.4b 6.4c 7.1 7.2 7.3 8.1 8.2 8.3 8.4 9.1a 9.1b "
    "9.1c 9.1d 9.2a 9.2b 9.2c 9.3 9.4a 9.4b 9.4c 9.5a 9.5b 9.5c 9.5d 9.6a 9.6b 9.6c 10a 10b 10c 10d 11 A B"
)
CLAUSES = frozenset(_CLAUSES.split())
SEEN_BY_SCOPE: dict[Any, Scope] = {
    KeyUse: Scope.KEY,
    VaultAccess: Scope.KEK,
    KekAct: Scope.KEK,
    KekAccess: Scope.KEK,
    KekUse: Scope.KEK,
    Conduct: Scope.PRINCIPAL,
    Challenges: Scope.PRINCIPAL,
}

EXAMPLES = [
    pytest.param(detection, example, id=f"{detection.rule.id}: {example.name}")
    for detection in ALL_RULES
    for example in detection.examples
]


@pytest.mark.parametrize("detection", ALL_RULES, ids=lambda detection: detection.rule.id)
def test_a_rule_is_complete(detection: Detection[Any]) -> None:
    rule = detection.rule

    assert rule.policy in CLAUSES
    assert rule.technique is None or rule.technique.startswith("T1")
    assert len(rule.known_gaps) > 40, "a rule that sees everything does not exist"
    assert rule.title
    assert rule.first_step
    assert SEEN_BY_SCOPE[detection.sees] is rule.scope
    assert {example.severity is None for example in detection.examples} == {True, False}
    assert rule.severity in {example.severity for example in detection.examples}


@pytest.mark.parametrize(("detection", "example"), EXAMPLES)
def test_an_example_gets_its_verdict(detection: Detection[Any], example: Example[Any]) -> None:
    finding = detection.evaluate(example.subject, DEFAULT_LIMITS)

    if example.severity is None:
        assert finding is None
        return
    assert finding is not None
    assert finding.severity is example.severity
    assert finding.rule_id == detection.rule.id
    assert finding.effective_ms == NOW_MS
    assert finding.summary
    assert finding.who
    assert finding.sure
    assert finding.first_step
    assert finding.key
    assert finding.evidence
    assert "None" not in finding.summary + finding.who + finding.sure + finding.first_step


def test_rule_ids_are_unique_and_distinct_from_the_findings_of_the_system() -> None:
    ids = [detection.rule.id for detection in ALL_RULES]

    assert len(ids) == len(set(ids))
    assert not set(ids) & set(SYSTEM)


@pytest.mark.parametrize("name", [*(detection.rule.id for detection in ALL_RULES), *SYSTEM])
def test_each_finding_has_a_runbook_that_says_what_it_means_and_what_to_do(name: str) -> None:
    runbook = ROOT / "docs" / "runbooks" / f"{name}.md"

    text = runbook.read_text()
    title = next((detection.rule.title for detection in ALL_RULES if detection.rule.id == name), None)
    assert text.startswith(f"# {title or SYSTEM[name].title}\n")
    for heading in ("## What it means", "## Steps", "## When it is harmless"):
        assert heading in text
    assert "\n1. " in text


@pytest.mark.parametrize("name", list(SYSTEM))
def test_a_finding_of_the_system_names_a_clause_and_a_first_step(name: str) -> None:
    finding = system_finding(name, summary="seen", effective_ms=NOW_MS)

    assert SYSTEM[name].policy in CLAUSES
    assert finding.first_step
    assert finding.severity is SYSTEM[name].severity


def test_a_rule_that_raises_becomes_a_finding_about_the_rule_without_its_words() -> None:
    def broken(use: KeyUse, limits: Limits) -> None:
        raise ZeroDivisionError(f"secret {use.actor} {limits}")

    detection = Detection(ALL_RULES[0].rule, KeyUse, broken, ())

    finding = rules.evaluate(detection, key_use(Operation.DECRYPT, Outcome.FAILED), DEFAULT_LIMITS)

    assert finding is not None
    assert (finding.rule_id, finding.key, finding.principal) == (
        "rule_error",
        ALL_RULES[0].rule.id,
        "ZeroDivisionError",
    )
    assert "secret" not in str(finding)


def test_each_subject_meets_only_the_rules_that_see_its_type() -> None:
    for detection in ALL_RULES:
        for example in detection.examples:
            found = {finding.rule_id for finding in run(example.subject, DEFAULT_LIMITS)}

            assert (detection.rule.id in found) is (example.severity is not None), example.name
            assert "rule_error" not in found


def test_a_failure_that_two_memories_hold_counts_once() -> None:
    nine = earlier(8, every_ms=MINUTE_MS, reason="bad_tag")
    again = type(nine[0])(**{**_fields(nine[0]), "event_id": key_use(Operation.DECRYPT, Outcome.FAILED).event_id})
    use = key_use(Operation.DECRYPT, Outcome.FAILED, reason="bad_tag", recent=(*nine, again), failed=nine)

    assert run(use, DEFAULT_LIMITS) == []


def test_a_late_revoke_finds_the_remembered_decrypts_after_it_and_no_others() -> None:
    remembered = earlier(6, every_ms=20 * MINUTE_MS, outcome=Outcome.SUCCEEDED)
    allowed = [use for use in remembered if use.effective_ms <= NOW_MS - HOUR_MS]
    view = key_view(revoked_ago_ms=HOUR_MS)
    older = [type(use)(**{**_fields(use), "revision": 6}) for use in remembered]

    found = look_back(view, "t-88", older, DEFAULT_LIMITS)

    assert len(allowed) == 4
    assert [finding.effective_ms for finding in found] == [NOW_MS - 40 * MINUTE_MS, NOW_MS - 20 * MINUTE_MS]
    assert {finding.severity for finding in found} == {Severity.CRITICAL}
    assert {finding.tenant for finding in found} == {"t-88"}


def _fields(use: Any) -> dict[str, Any]:
    return {name: getattr(use, name) for name in use.__struct_fields__}
