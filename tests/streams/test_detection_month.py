"""The simulated month: nothing is told of benign traffic beyond what is named, and every planted attack once."""

from collections import Counter

from bench import month
from bench.detection_month import run


async def test_a_month_gives_the_expected_alerts_and_the_planted_ones_and_no_others() -> None:
    outcome = await run(2)

    assert outcome.missing() == Counter()
    assert outcome.surplus() == Counter()
    severities = {
        told: alert["severity"]
        for alert in outcome.alerts
        for told in month.PLANTED
        if (alert["rule_id"], alert["key"]) == (told.rule, told.vault)
        and alert["principal"] in {told.principal, month.oid(told.principal)}
    }
    assert [severities[told] for told in month.PLANTED] == ["low", "high", "medium", "medium", "low"]
