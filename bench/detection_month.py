"""Which alerts a simulated month gives: `python -m bench.detection_month [seed ...]`.

The records of bench/month.py go through the real vault, who and triage agents over the log in memory, late, out of
order, some doubled and some lost. Every alert must be one that the month names; none of those may be missing.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from alerts.thresholds import MINUTE_MS, Limits
from bench import month
from streams.baseline_commands import command
from streams.index.port import DocKind, Document, Refused
from streams.memory import MemoryShell
from streams.messages import FINDINGS, VAULT_ACCESS, WHO
from streams.triage import TriageStep
from streams.vault import VaultStep
from streams.vaultlogs.messages import file_key, wrap
from streams.who import WhoStep

TICK_MS = 5 * MINUTE_MS
ADMINISTRATION = "kek_administration"


class AlertsOnly:
    """An index that keeps the alerts and lets the rest go."""

    def __init__(self) -> None:
        self.alerts: dict[str, Document] = {}

    async def ensure(self) -> None:
        return

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        for document in documents:
            if document.kind is DocKind.ALERT:
                self.alerts[document.id] = document
        return []

    async def find(self, kind: DocKind, **_: Any) -> list[dict[str, Any]]:
        return [msgspec.json.decode(document.body) for document in self.alerts.values() if kind is DocKind.ALERT]

    async def count_by(self, kind: DocKind, fields: Sequence[str], **_: Any) -> dict[tuple[str, ...], int]:
        raise NotImplementedError

    async def close(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a month gave: alerts as documents, and how much went in."""

    acts: int
    arrived: int
    seconds: float
    alerts: list[dict[str, Any]]

    def missing(self) -> Counter[month.Told]:
        """What had to be told and was not."""
        return Counter((*month.EXPECTED, *month.PLANTED)) - self.told()

    def surplus(self) -> Counter[month.Told]:
        """What was told and is in no list."""
        return self.told() - Counter((*month.EXPECTED, *month.PLANTED, *month.POSSIBLE))

    def told(self) -> Counter[month.Told]:
        """Alerts of the baselines; administration is told one by one, whatever is usual."""
        names = {month.oid(act): act for act in _names()}
        return Counter(
            month.Told(alert["rule_id"], names.get(alert["principal"], alert["principal"]), alert["key"])
            for alert in self.alerts
            if alert["rule_id"] != ADMINISTRATION
        )


def _names() -> set[str]:
    return {act.principal for act in month.acts() if act.principal}


async def run(seed: int = 1, *, partitions: Mapping[str, int] | None = None, **feed: float) -> Outcome:
    """Live through the month; `feed` are the arguments of `month.arrivals`."""
    limits, began = Limits(), time.perf_counter()
    acts = month.acts()
    arrived = month.arrivals(acts, seed, **feed)
    index = AlertsOnly()
    shell = MemoryShell(
        steps={
            VAULT_ACCESS: lambda _: VaultStep(limits=limits),
            WHO: lambda _: WhoStep(limits=limits),
            FINDINGS: lambda _: TriageStep(limits=limits),
        },
        partitions=partitions or {VAULT_ACCESS: 2, WHO: 2},
        index=index,
    )
    decisions = [((month.START_S + at_s) * 1000, who) for at_s, who in month.ACCEPTED]
    tick_ms = month.START_S * 1000
    for at_ms, number in arrived:
        while tick_ms <= at_ms:
            await shell.tick(tick_ms)
            tick_ms += TICK_MS
        while decisions and decisions[0][0] <= at_ms:
            _, who = decisions.pop(0)
            key, value = command("accept", month.oid(who), person="user:on-call", ident=f"c-{who}")
            shell.append(WHO, key=key, value=value, append_ms=at_ms)
        original = month.record(acts[number], number)
        value = wrap(original, feed="month", resource_id=None, fetched_us=at_ms * 1000)
        shell.append(VAULT_ACCESS, key=file_key(original), value=value, append_ms=at_ms)
    for later_ms in range(tick_ms, tick_ms + 90 * MINUTE_MS, TICK_MS):
        await shell.tick(later_ms)
    await shell.close()
    alerts = sorted(await index.find(DocKind.ALERT), key=lambda alert: (alert["first_at"], alert["rule_id"]))
    return Outcome(len(acts), len(arrived), time.perf_counter() - began, alerts)


def main(seeds: Sequence[int]) -> int:
    wrong = 0
    for seed in seeds:
        outcome = asyncio.run(run(seed))
        print(f"seed {seed}: {outcome.acts} accesses, {outcome.arrived} records arrived, {outcome.seconds:.0f} s")
        for alert in outcome.alerts:
            print(
                f"  {alert['first_at'][:16]} {alert['severity']:8} {alert['rule_id']:20} {alert['count']:4} x "
                f"{alert['who'][:40]:40} {alert['summary'][:110]}"
            )
        missing, surplus = outcome.missing(), outcome.surplus()
        wrong += missing.total() + surplus.total()
        print(
            f"  expected {len(month.EXPECTED)}, planted {len(month.PLANTED)}: missing {dict(missing)}, "
            f"beyond {dict(surplus)}"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main([int(one) for one in sys.argv[1:]] or [1]))
