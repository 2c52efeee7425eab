"""The simulated month, a short one: every planted attack is told once and in time, and ordinary work only as named."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.month import files
from bench.month.live import Lived, live
from bench.month.plan import SHORT, START_S
from bench.month.verdict import judge
from bench.month.world import Month, month
from cryptocore.clock import rfc3339_ms

SEED = 2
NEEDS_DECLARATION = {"vault_silent"}
"""Without vaults.toml, which a replay does not read, nobody knows which vault should speak."""
KEYTRAIL = Path(sys.executable).with_name("keytrail")


@pytest.fixture(scope="module")
def drawn() -> Month:
    return month(SHORT, SEED)


@pytest.fixture(scope="module")
def lived(drawn: Month) -> Lived:
    return asyncio.run(live(drawn, SEED))


def test_every_attack_is_told_once_in_time_and_ordinary_work_only_as_expected(lived: Lived) -> None:
    assert judge(lived).problems == []


def test_the_month_holds_what_its_rules_need(lived: Lived) -> None:
    """Without these the silence of the month would say nothing."""
    assert lived.uses["matched"] > 400
    assert lived.uses["unaccounted"] > 20
    assert lived.written["rejected"] == 0
    assert len(lived.month.names) > 20


def test_the_same_seed_draws_the_same_month_and_another_one_another(drawn: Month) -> None:
    again, other = month(SHORT, SEED), month(SHORT, SEED + 1)

    assert (again.acts, again.batches) == (drawn.acts, drawn.batches)
    assert other.acts != drawn.acts


def test_an_attack_missed_told_twice_or_late_and_an_alert_too_many_are_problems(lived: Lived) -> None:
    """The judge can fail."""
    needed = {one.told for one in lived.month.planted} | {one.told for one in lived.month.expected if one.least}
    for alert in lived.alerts:
        others = [one for one in lived.alerts if one is not alert]
        assert bool(judge(_with(lived, others)).problems) == (lived.named(alert) in needed), lived.named(alert)
        other = judge(_with(lived, [*others, alert | {"key": "kv-other"}])).problems
        assert any(problem.startswith("beyond") for problem in other)
    for planted in lived.month.planted:
        (alert,) = (one for one in lived.alerts if lived.named(one) == planted.told)
        late = alert | {"opened_at": rfc3339_ms(int((START_S + planted.at_s + planted.bound_s + 1) * 1000))}
        others = [one for one in lived.alerts if one is not alert]
        assert judge(_with(lived, [*lived.alerts, alert])).problems == [f"{planted.title}: 2 alerts"]
        assert judge(_with(lived, [*others, late])).problems == [f"{planted.title}: late"]


def test_replaying_the_same_month_from_files_gives_the_same_alerts(drawn: Month, lived: Lived, tmp_path: Path) -> None:
    files.write(drawn, SEED, tmp_path / "month")
    files_of = {"--vault-logs": "vault-logs", "--batches": "batches.ndjson", "--sources": "sources.json"}
    options = [part for option, name in files_of.items() for part in (option, tmp_path / "month" / name)]
    command = [KEYTRAIL, "replay", *options, "--out", tmp_path / "again"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)

    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "again" / "alerts.ndjson").read_bytes().splitlines()
    again = {lived.named(msgspec.json.decode(line)) for line in lines}
    assert again == {lived.named(alert) for alert in lived.alerts if alert["rule_id"] not in NEEDS_DECLARATION}


def _with(lived: Lived, alerts: list[dict[str, Any]]) -> Lived:
    return replace(lived, alerts=alerts)
