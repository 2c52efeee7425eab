"""What a month gave beside what it had to give."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from bench.month.live import Lived, after_s
from bench.month.told import Expected, Planted, Told


@dataclass(frozen=True, slots=True)
class Caught:
    """One attack and the alerts that have its name; right is exactly one, in time, as severe as it should be."""

    planted: Planted
    alerts: list[dict[str, Any]]

    @property
    def after_s(self) -> float | None:
        """How long after its first act the first of them was opened."""
        return min((after_s(self.planted, alert) for alert in self.alerts), default=None)

    @property
    def problem(self) -> str:
        """What is wrong; empty where nothing is."""
        if len(self.alerts) != 1:
            return "missed" if not self.alerts else f"{len(self.alerts)} alerts"
        after = self.after_s or 0
        if not 0 <= after <= self.planted.bound_s:
            return "late" if after > 0 else "told before it was"
        severity = self.alerts[0]["severity"]
        return "" if severity == self.planted.severity else f"is {severity}, not {self.planted.severity}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The month, judged: every attack, every alert that ordinary work should give, and every other alert."""

    caught: list[Caught]
    usual: list[tuple[Expected, int]]
    surplus: list[dict[str, Any]]

    @property
    def problems(self) -> list[str]:
        """All that is wrong, in words."""
        found = [f"{one.planted.title}: {one.problem}" for one in self.caught if one.problem]
        found += [
            f"{expected.told}: {count} alerts, not {expected.least} to {expected.most}"
            for expected, count in self.usual
            if not expected.least <= count <= expected.most
        ]
        return found + [
            f"beyond: {alert['rule_id']} {alert['key']}: {alert['summary'][:100]}" for alert in self.surplus
        ]


def judge(lived: Lived) -> Verdict:
    """Hold the alerts of a month against its own expectations; what was explained away later still counts."""
    month = lived.month
    named: dict[Told, list[dict[str, Any]]] = {}
    for alert in lived.alerts:
        named.setdefault(lived.named(alert), []).append(alert)
    caught = [Caught(planted, named.get(planted.told, [])) for planted in month.planted]
    counts = Counter({name: len(alerts) for name, alerts in named.items()})
    usual = [(expected, counts[expected.told]) for expected in month.expected]
    known = {planted.told for planted in month.planted} | {one.told for one in month.expected}
    surplus = [alert for name, alerts in named.items() if name not in known for alert in alerts]
    return Verdict(caught, usual, surplus)
