"""The week in figures beside the week before, and its days. Pure; each figure names the basis it stands on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from alerts.words import duration
from reports.facts import Document, Facts, UseKind, WeekFacts, moment_ms
from reports.keys import awaiting_destruction, open_rotations

_ACTS: Final = frozenset({"explained", "unexplained"})
"""What the join says of administrative acts on KEKs."""


class Basis(StrEnum):
    """On what a figure stands.

    R: this report read the sealed lines one by one and judged them again. S: signed heartbeats said so. I: the index
    counted or listed what the monitor wrote there.
    """

    RECORDS = "R"
    SEALS = "S"
    INDEX = "I"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the week's table; a figure that nobody can give is None."""

    label: str
    this: str | None
    last: str | None
    note: str
    basis: Basis


@dataclass(frozen=True, slots=True)
class KekUses:
    """KEK operations by the judgement of the join."""

    vault_uses: int
    explained: int
    unaccounted: int
    unlogged: int
    pending: int
    not_evaluated: int
    allowed: int


@dataclass(frozen=True, slots=True)
class DayBar:
    """One day of the chart: what did not go as it should."""

    name: str
    failed: int
    denied: int
    unaccounted: int


def judge_kek_uses(week: WeekFacts) -> KekUses:
    """Add up the judgements; what is unlogged is in no vault log, and administrative acts are no uses."""
    status: Counter[str] = Counter()
    for day in week.kek_uses:
        for judged, count in day.items():
            if judged.status not in _ACTS:
                status[judged.status] += count
    return KekUses(
        vault_uses=sum(count for name, count in status.items() if name != "unlogged"),
        explained=status["matched"],
        unaccounted=status["unaccounted"],
        unlogged=status["unlogged"],
        pending=status["pending"],
        not_evaluated=status["not_evaluated"],
        allowed=status["allowed"],
    )


def any_data(week: WeekFacts) -> bool:
    """Say whether anything at all is known of the week."""
    return any(week.events) or any(week.kek_uses) or bool(week.vault_records) or bool(week.alerts)


def week_rows(facts: Facts) -> tuple[Row, ...]:
    """The week beside the week before; where that one has no data, nothing is said of it."""
    this, last = facts.this, facts.last if any_data(facts.last) else None

    def row(label: str, value: Callable[[WeekFacts], str], note: str = "", basis: Basis = Basis.INDEX) -> Row:
        return Row(label, value(this), None if last is None else value(last), note, basis)

    return (
        row("Uses of data keys", lambda week: _number(_uses(week, _DATA))),
        row("Failed decrypts", lambda week: _number(_uses(week, ("decrypt",), "failed")), _reasons(this, "failed")),
        row("Denied decrypts", lambda week: _number(_uses(week, ("decrypt",), "denied")), _reasons(this, "denied")),
        row("Use of revoked keys", _revoked, _exposure(this), Basis.RECORDS),
        row("Token anomalies", lambda week: _number(_uses(week, TOKEN_ACTS, *_BAD)), _token_note(this)),
        row("Rotations not finished", lambda week: _number(len(open_rotations(_until(facts, week)))), _late(facts)),
        row("Keys awaiting destruction", lambda week: _number(len(awaiting_destruction(_until(facts, week))))),
        row("KEK uses in vault logs", lambda week: _number(judge_kek_uses(week).vault_uses)),
        row("KEK uses not accounted for", lambda week: _number(judge_kek_uses(week).unaccounted)),
        row("Alerts", _alerts, _delivery(this)),
    )


_DATA = ("encrypt", "decrypt", "reencrypt")


TOKEN_ACTS: Final = ("token.store", "token.use", "token.regenerate", "token.expire", "token.invalidate")
_BAD: Final = ("denied", "failed")


def _number(count: int) -> str:
    return f"{count:,}"


def _until(facts: Facts, week: WeekFacts) -> list[Document]:
    """Acts of the life cycle as far as they had come at the end of a week."""
    return [each for each in facts.life_cycle if moment_ms(each["@timestamp"]) < week.week.until_ms]


def _token_note(week: WeekFacts) -> str:
    """Say of how many, and why."""
    acts, reasons = _uses(week, TOKEN_ACTS), _reasons(week, *_BAD, operations=TOKEN_ACTS)
    return ", ".join(part for part in (f"of {acts:,} acts on tokens" if acts else "", reasons) if part)


def _late(facts: Facts) -> str:
    late = len([1 for alert in facts.open_alerts if alert.get("rule_id") == "rotation_unfinished"])
    return f"of {late:,} key{'' if late == 1 else 's'} past their date" if late else ""


def _uses(week: WeekFacts, operations: Sequence[str], *outcomes: str) -> int:
    return sum(
        count
        for day in week.events
        for kind, count in day.items()
        if kind.operation in operations and (not outcomes or kind.outcome in outcomes)
    )


def _reasons(week: WeekFacts, *outcomes: str, operations: Sequence[str] = ("decrypt",)) -> str:
    counts: Counter[str] = Counter()
    for day in week.events:
        for kind, count in day.items():
            if kind.operation in operations and kind.outcome in outcomes:
                counts[kind.reason or "no reason given"] += count
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.most_common(4))


def _revoked(week: WeekFacts) -> str:
    succeeded = len([1 for _, document in week.revoked_decrypts if _outcome(document) == "succeeded"])
    return f"{len(week.revoked_decrypts) - succeeded:,} blocked, {succeeded:,} succeeded"


def _outcome(document: Document) -> str:
    return str(document["keytrail"].get("outcome", ""))


def _exposure(week: WeekFacts) -> str:
    after = [
        moment_ms(document["@timestamp"]) - revoked.at_ms
        for revoked, document in week.revoked_decrypts
        if _outcome(document) == "succeeded"
    ]
    return f"longest exposure after a revocation {duration(max(0, *after))}" if after else ""


def _alerts(week: WeekFacts) -> str:
    delivered = len([1 for alert in week.alerts if alert.get("delivered")])
    return f"{len(week.alerts):,} raised, {delivered:,} delivered"


def _delivery(week: WeekFacts) -> str:
    waits = [
        moment_ms(min(sent["at"] for sent in alert["delivered"])) - moment_ms(alert["opened_at"])
        for alert in week.alerts
        if alert.get("delivered") and alert.get("opened_at")
    ]
    return f"slowest delivery {duration(max(0, *waits))}" if waits else ""


def day_bars(week: WeekFacts) -> tuple[DayBar, ...]:
    """Count for each day what did not go as it should."""

    def ended(day: Counter[UseKind], outcome: str) -> int:
        return sum(count for kind, count in day.items() if kind.outcome == outcome)

    return tuple(
        DayBar(
            name=day.name,
            failed=ended(events, "failed"),
            denied=ended(events, "denied"),
            unaccounted=sum(count for judged, count in uses.items() if judged.status == "unaccounted"),
        )
        for day, events, uses in zip(week.week.days, week.events, week.kek_uses, strict=True)
    )
