"""The arithmetic of the report, and its answer to whether everything was seen. Pure: facts in, words out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from alerts.model import Severity
from alerts.words import duration
from reports.controls import Control, controls
from reports.facts import Document, Facts, Instance, InstanceState, moment_ms
from reports.keys import ORDER, by_state, oldest_active_ms, versions
from reports.rows import DayBar, KekUses, Row, any_data, day_bars, judge_kek_uses, week_rows


class Answer(StrEnum):
    """What is said to the question whether everything was seen."""

    NOTHING_MISSING = "nothing_missing"
    NO = "no"
    NOT_ESTABLISHED = "not_established"


@dataclass(frozen=True, slots=True)
class Decision:
    """One open alert, in the words that people decide by."""

    number: str
    severity: str
    title: str
    summary: str
    who: str
    status: str
    count: int
    first_ms: int
    last_ms: int
    open_for: str
    first_step: str
    runbook: str
    alert_id: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Events:
    """Sent and stored, of those processes that said how many they sent."""

    sent: int
    stored: int
    missing: int
    surplus: int
    closed: int
    running: int
    unclosed: int
    unsaid: int
    differing: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Stranger:
    """Unaccounted uses of one KEK by one principal."""

    principal: str
    kek: str
    operation: str
    outcome: str
    reason: str
    addresses: tuple[str, ...]
    count: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that the page says."""

    decisions: tuple[Decision, ...]
    answer: Answer
    why: tuple[str, ...]
    events: Events
    kek_uses: KekUses
    sight: tuple[Decision, ...]
    rows: tuple[Row, ...]
    days: tuple[DayBar, ...]
    states: tuple[tuple[str, int], ...]
    strangers: tuple[Stranger, ...]
    controls: tuple[Control, ...]
    has_last: bool
    vaults: int
    services: int
    tenants: int


def summarise(facts: Facts) -> Summary:
    """Do the arithmetic of one report."""
    events = _events(facts)
    kek_uses = judge_kek_uses(facts.this)
    sight = tuple(_decision(alert, facts.prepared_ms) for alert in _worst_first(facts.sight_alerts))
    answer, why = _answer(facts, events, kek_uses, sight)
    return Summary(
        decisions=tuple(_decision(alert, facts.prepared_ms) for alert in _worst_first(facts.open_alerts)),
        answer=answer,
        why=why,
        events=events,
        kek_uses=kek_uses,
        sight=sight,
        rows=week_rows(facts),
        days=day_bars(facts.this),
        states=_states(facts),
        strangers=_strangers(facts.unaccounted),
        controls=controls(facts, events.missing if events.sent or events.closed else None),
        has_last=any_data(facts.last),
        vaults=len({vault for vault, _ in facts.this.vault_records if vault}),
        services=facts.services,
        tenants=facts.tenants,
    )


def _worst_first(alerts: Iterable[Document]) -> list[Document]:
    return sorted(alerts, key=lambda alert: (-Severity(alert["severity"]).rank, alert["first_at"], alert["alert_id"]))


def _decision(alert: Document, prepared_ms: int) -> Decision:
    opened_ms = moment_ms(alert.get("opened_at") or alert["first_at"])
    return Decision(
        number=alert.get("number", ""),
        severity=alert["severity"],
        title=alert["title"],
        summary=alert.get("summary", ""),
        who=alert.get("who", ""),
        status=alert.get("status", ""),
        count=alert["count"],
        first_ms=moment_ms(alert["first_at"]),
        last_ms=moment_ms(alert["last_at"]),
        open_for=duration(max(0, prepared_ms - opened_ms)),
        first_step=" ".join(str(alert.get("first_step", "")).split("\n")),
        runbook=alert.get("runbook", ""),
        alert_id=alert["alert_id"],
        evidence=tuple(f"{proof['kind']} {proof['id']}" for proof in alert.get("evidence", ())),
    )


def _events(facts: Facts) -> Events:
    """A process that still runs may have stored what it has not yet told of: only what is missing counts against it."""
    states = Counter(each.state for each in facts.instances)
    return Events(
        sent=sum(each.sent for each in facts.instances),
        stored=sum(each.stored for each in facts.instances),
        missing=sum(max(0, each.sent - each.stored) for each in facts.instances),
        surplus=sum(max(0, each.stored - each.sent) for each in facts.instances),
        closed=states[InstanceState.CLOSED],
        running=states[InstanceState.RUNNING],
        unclosed=states[InstanceState.UNCLOSED],
        unsaid=facts.unsaid,
        differing=tuple(each for each in facts.instances if each.sent != each.stored),
    )


def _answer(
    facts: Facts, events: Events, kek_uses: KekUses, sight: Sequence[Decision]
) -> tuple[Answer, tuple[str, ...]]:
    """Say no where something is known to be missing, and yes never: at most that nothing is known to be missing."""
    lost = sum(facts.rejected.values())
    blind = [
        *_said(events.missing, "event that services sent is not stored", "events that services sent are not stored"),
        *_said(
            events.unclosed,
            "process ended without closing its trail: what it did last is not known",
            "processes ended without closing their trails: what they did last is not known",
        ),
        *_said(
            kek_uses.unlogged,
            "KEK use that a service reports is not in the vaults' logs",
            "KEK uses that services report are not in the vaults' logs",
        ),
        *_said(
            lost,
            "message could not be read or was not to be trusted",
            "messages could not be read or were not to be trusted",
        ),
        *_said(
            len(sight),
            "finding says that the monitor may not have seen everything",
            "findings say that the monitor may not have seen everything",
        ),
    ]
    unsure = [
        *([] if facts.instances else ["no service said how many events it sent"]),
        *_said(
            facts.unsaid,
            "event comes from a process that did not say how many it sent",
            "events come from processes that did not say how many they sent",
        ),
        *_said(
            events.surplus,
            "event more is stored than processes had told of when they were last heard",
            "events more are stored than processes had told of when they were last heard",
        ),
        *([] if facts.this.vault_records else ["no vault log was received"]),
        *_said(
            kek_uses.not_evaluated,
            "KEK use was not compared with the events of services",
            "KEK uses were not compared with the events of services",
        ),
        *_said(
            kek_uses.pending,
            "KEK use waits for its event or its vault record",
            "KEK uses wait for their events or their vault records",
        ),
        *_said(
            facts.suspect,
            "event is signed by a key that counts as compromised",
            "events are signed by a key that counts as compromised",
        ),
        *_said(
            facts.out_of_range, "event carries a date that is not believed", "events carry a date that is not believed"
        ),
    ]
    if blind:
        return Answer.NO, (*blind, *unsure)
    return (Answer.NOT_ESTABLISHED if unsure else Answer.NOTHING_MISSING), tuple(unsure)


def _said(count: int, one: str, many: str) -> list[str]:
    return [f"{count:,} {one if count == 1 else many}"] if count else []


def _states(facts: Facts) -> tuple[tuple[str, int], ...]:
    counts = by_state(versions(facts.life_cycle))
    known = [(state, counts[state]) for state in ORDER if counts[state]]
    return (*known, *sorted((state, count) for state, count in counts.items() if state not in ORDER))


def oldest_active(facts: Facts) -> str | None:
    """Say how old the oldest key version is that still encrypts; None where none is known."""
    since_ms = oldest_active_ms(versions(facts.life_cycle))
    return None if since_ms is None else duration(max(0, facts.this.week.until_ms - since_ms))


def _strangers(uses: Iterable[Document]) -> tuple[Stranger, ...]:
    groups: dict[tuple[str, ...], list[Document]] = {}
    for use in uses:
        who = use.get("principal_label") or use.get("principal_id") or "not named by the vault"
        kek = f"{use['vault']}/{use['name']}"
        name = (who, kek, use["operation"], use["outcome"], use.get("reason") or "")
        groups.setdefault(name, []).append(use)
    found = [
        Stranger(
            principal=name[0],
            kek=name[1],
            operation=name[2],
            outcome=name[3],
            reason=name[4],
            addresses=tuple(sorted({use["address"] for use in group if use.get("address")})),
            count=len(group),
            first_ms=moment_ms(group[0]["time"]),
            last_ms=moment_ms(group[-1]["time"]),
        )
        for name, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.count, each.first_ms, each.principal)))
