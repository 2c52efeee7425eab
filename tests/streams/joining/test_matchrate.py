"""Below 98 % of answered calls in a vault's log for half an hour is one finding a vault, which ends by itself."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.model import Severity
from alerts.thresholds import DEFAULT_LIMITS, HOUR_MS, MINUTE_MS, SECOND_MS, Limits
from streams.alerting.triage import TriageStep
from streams.findings import FindingBook
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind
from streams.joining import correlate, matchrate
from streams.joining.correlate import Claim, Use, partition_key
from streams.joining.join import JoinStep
from streams.joining.matchrate import MatchWatch, Tallied, too_many
from streams.log.statelog import partition_of
from streams.messages import CORRELATE, FINDINGS, SOURCES, Effects
from streams.presence.sources import SourcesStep
from streams.running.memory import MemoryShell
from streams.state import State
from tests.streams.joining.join_bench import T0, outcome, registry, request_id, use

START_MS = T0 // HOUR_MS * HOUR_MS


class Monitor:
    """Join in two partitions, sources and triage, over one log."""

    def __init__(self, index: EmbeddedIndex) -> None:
        self.index = index
        self.now_ms = START_MS
        self.shell = MemoryShell(
            steps={
                CORRELATE: lambda place: JoinStep(registry=registry(), limits=Limits(), partition=place),
                SOURCES: lambda _: SourcesStep(registry=registry(), limits=Limits()),
                FINDINGS: lambda _: TriageStep(limits=Limits()),
            },
            partitions={CORRELATE: 2},
            index=index,
        )

    async def take(self, *messages: Claim | Use) -> None:
        for message in messages:
            key = f"{message.vault}/{message.name}".encode()
            self.shell.append(CORRELATE, key=key, value=correlate.encode(message), append_ms=self.now_ms)
        await self.shell.run()

    async def wait(self, minutes: int) -> None:
        for _ in range(minutes):
            self.now_ms += MINUTE_MS
            await self.shell.tick(self.now_ms)

    async def alerts(self, rule: str = "match_ratio_low") -> list[dict[str, Any]]:
        return await self.index.find(DocKind.ALERT, where={"rule_id": rule})


@pytest.fixture
async def monitor(tmp_path: Path) -> AsyncIterator[Monitor]:
    index = EmbeddedIndex(tmp_path / "index.sqlite")
    await index.ensure()
    made = Monitor(index)
    yield made
    await made.shell.close()
    await index.close()


def calls(hour: int, count: int, *, shown: int) -> Iterator[Claim | Use]:
    """Calls of one hour, a second apart, over two KEKs; the vault's log has the first `shown`."""
    for number in range(count):
        name, at_ms = f"{hour}-{number}", START_MS + hour * HOUR_MS + number * SECOND_MS
        kek = "tokens-kek" if number % 2 else "tenant-kek"
        yield replace(outcome(name, at_ms), name=kek)
        if number < shown:
            yield use(name, at_ms, correlation=request_id(name), name=kek)


async def test_a_log_that_misses_a_tenth_is_told_after_half_an_hour_for_the_whole_vault(monitor: Monitor) -> None:
    await monitor.take(*calls(0, 200, shown=180))

    await monitor.wait(15 + 29)
    assert await monitor.alerts() == []
    await monitor.wait(3)

    [alert] = await monitor.alerts()
    assert (alert["status"], alert["severity"], alert["key"]) == ("open", "medium", "kv-prod")
    assert alert["summary"] == (
        "the log of kv-prod shows 180 of 200 calls of our services in the hour from 2025-11-16 02:00 UTC"
    )
    assert alert["facts"]["ratio"] == "90.0 %"


async def test_the_single_calls_that_are_unlogged_are_evidence_of_it_and_no_alerts_beside_it(monitor: Monitor) -> None:
    await monitor.take(*calls(0, 200, shown=180))

    await monitor.wait(90)

    [alert] = await monitor.alerts()
    assert alert["facts"]["inhibits"] == "audit_coverage"
    assert await monitor.alerts("audit_coverage") == []


async def test_single_calls_that_a_log_misses_are_one_alert_for_the_vault_over_all_its_keks(monitor: Monitor) -> None:
    missing = [replace(outcome(kek, START_MS), name=kek) for kek in ("tokens-kek", "tenant-kek")]
    assert len({partition_of(partition_key(one.vault, one.name), 2) for one in missing}) == 2, "both partitions count"
    await monitor.take(*missing)

    await monitor.wait(62)
    [alert] = await monitor.alerts("audit_coverage")
    assert (alert["status"], alert["key"], alert["count"]) == ("open", "kv-prod", 2)

    await monitor.take(use("tokens-kek", START_MS, correlation=request_id("tokens-kek"), name="tokens-kek"))
    await monitor.wait(2)
    [alert] = await monitor.alerts("audit_coverage")
    assert (alert["status"], alert["count"]) == ("open", 1), "the other call is still missing"

    await monitor.take(use("tenant-kek", START_MS, correlation=request_id("tenant-kek"), name="tenant-kek"))
    await monitor.wait(2)
    [alert] = await monitor.alerts("audit_coverage")
    assert alert["status"] == "resolved"


async def test_records_that_come_late_resolve_it_and_say_so(monitor: Monitor) -> None:
    sent = list(calls(0, 200, shown=200))
    late = [one for one in sent if isinstance(one, Use)][150:]
    await monitor.take(*(one for one in sent if one not in late))
    await monitor.wait(50)
    assert [alert["status"] for alert in await monitor.alerts()] == ["open"]

    await monitor.take(*late)
    await monitor.wait(3)

    [alert] = await monitor.alerts()
    assert alert["status"] == "resolved"
    assert alert["facts"]["resolved_by"] == "records came late: the log shows 100.0 % of the hour from 02:00"


async def test_a_later_hour_that_is_whole_resolves_it_and_what_is_missing_stays_unlogged(monitor: Monitor) -> None:
    await monitor.take(*calls(0, 200, shown=0))
    await monitor.wait(60)
    [alert] = await monitor.alerts()
    assert (alert["status"], alert["severity"]) == ("open", Severity.HIGH)
    assert "shows none of 200 calls" in alert["summary"]

    await monitor.take(*calls(1, 200, shown=200))
    await monitor.wait(60 + 15 + 30 + 2)

    [alert] = await monitor.alerts()
    assert alert["status"] == "resolved"
    assert alert["facts"]["resolved_by"].startswith("the log shows the calls again, 60 min later")
    assert await monitor.alerts("audit_coverage") == [], "they were told as one"
    unlogged = await monitor.index.count_by(DocKind.KEK_USE, ["status"])
    assert unlogged["unlogged",] == 200


async def test_an_outage_over_hours_is_one_alert(monitor: Monitor) -> None:
    for hour in range(4):
        await monitor.take(*calls(hour, 100, shown=0))
        await monitor.wait(60)

    [alert] = await monitor.alerts()
    assert (alert["status"], alert["count"]) == ("open", 4)
    assert "from 2025-11-16 05:00 UTC" in alert["summary"], "the latest hour is what is said"


@pytest.mark.parametrize(("count", "shown"), [(3, 0), (100, 92), (1_000, 980), (200, 198)])
async def test_few_calls_and_ordinary_losses_say_nothing(monitor: Monitor, count: int, shown: int) -> None:
    await monitor.take(*calls(0, count, shown=shown))

    await monitor.wait(120)

    assert await monitor.alerts() == []


@pytest.mark.parametrize(
    ("expected", "missing"), [(4, 4), (10, 5), (50, 7), (100, 9), (1_000, 26), (3_000, 61), (100_000, 2_001)]
)
def test_what_is_too_much_begins_where_the_page_says(expected: int, missing: int) -> None:
    assert too_many(expected, missing, DEFAULT_LIMITS)
    assert not too_many(expected, missing - 1, DEFAULT_LIMITS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=6), st.randoms())
def test_tallies_in_any_order_give_the_same_hours(parts: list[tuple[int, int]], order: Any) -> None:
    told = [Tallied(vault="kv", hour_ms=START_MS, expected=one, missing=min(one, two)) for one, two in parts]
    mixed = list(told)
    order.shuffle(mixed)

    assert _dump(told) == _dump(mixed)


def _dump(told: list[Tallied]) -> dict[bytes, bytes]:
    state, watch = State(), MatchWatch(DEFAULT_LIMITS, FindingBook())
    for one in told:
        watch.take(one, START_MS, state, Effects())
    state.cut()
    return state.dump()


def test_a_restart_between_the_first_low_minute_and_the_finding_loses_nothing() -> None:
    state, effects = State(), Effects()
    MatchWatch(DEFAULT_LIMITS, FindingBook()).take(
        Tallied(vault="kv", hour_ms=START_MS, expected=100, missing=50), START_MS, state, effects
    )
    watch = MatchWatch(DEFAULT_LIMITS, FindingBook())
    watch.restore(state)

    watch.tick(START_MS + 30 * MINUTE_MS, state, effects)
    watch.tick(START_MS + 31 * MINUTE_MS, state, effects)

    assert len(effects.out) == 1


def test_vaults_beyond_the_bound_are_not_kept() -> None:
    state, watch = State(), MatchWatch(DEFAULT_LIMITS, FindingBook())
    for number in range(3 * matchrate.MAX_VAULTS + 10):
        watch.take(Tallied(vault=f"kv-{number}", hour_ms=0, expected=1, missing=0), 1, state, Effects())

    assert len(state.dump()) == 3 * matchrate.MAX_VAULTS
