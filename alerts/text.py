"""An alert as people read it at 3 a.m.: what, who, when, how sure, what to do. Plain text, at most 100 columns.

What is not known is left out; nothing is invented to fill a line.
"""

import textwrap
from typing import Final

from msgspec import structs

from alerts.lifecycle import Alert, Owed
from alerts.model import Notification
from alerts.words import BECAME, DOT, TIMES, moment, printable, span

WIDTH: Final = 100
_LABEL: Final = 7
_STEP: Final = 3


def render(alert: Alert) -> str:
    """Write the whole alert."""
    finding = alert.finding
    lines = [headline(alert)]
    for label, text in (
        ("Who", finding.who),
        ("What", finding.summary),
        ("When", _when(alert)),
        ("Sure", finding.sure),
    ):
        lines += _labelled(label, text)
    lines += _steps([finding.first_step, f"runbook: {runbook(alert)}"])
    lines += _labelled("Note", _note(alert))
    return "\n".join(lines)


def headline(alert: Alert) -> str:
    """Severity, title, outcome, count, number: the first line, also a mail's subject."""
    outcome = alert.finding.facts.get("outcome", "").upper()
    count = f"{TIMES}{alert.count}" if alert.count else ""
    parts = (alert.finding.title, f"{outcome} {count}".strip(), alert.name)
    return printable(f"{alert.severity.upper()}  {f' {DOT} '.join(part for part in parts if part)}")[:WIDTH]


def subject(alert: Alert, owed: Owed) -> str:
    """The first line of a notification."""
    if owed.kind == "opened":
        return headline(alert)
    if owed.kind == "resolved":
        return printable(f"{alert.name} {_end(alert)}")[:WIDTH]
    changes = []
    if owed.before_severity is not None and owed.before_severity is not alert.severity:
        changes.append(f"{owed.before_severity} {BECAME} {alert.severity}")
    if alert.count != owed.before_count:
        changes.append(f"{owed.before_count} {BECAME} {alert.count} hits")
    if owed.because:
        changes.append(owed.because)
    again = ""
    if alert.status == "acknowledged":
        again = f". Acknowledged {moment(alert.acknowledged_ms)[11:16]}; notifying again"
    return printable(f"{alert.name} worse: {', '.join(changes) or 'still going on'}{again}.")[:WIDTH]


def notice(alert: Alert, owed: Owed) -> str:
    """A notification's text: what changed, then the alert."""
    return render(alert) if owed.kind == "opened" else f"{subject(alert, owed)}\n\n{render(alert)}"


def unindexed(notification: Notification, *, since_ms: int) -> Notification:
    """Add to a notification that the documents it names cannot be looked up yet.

    Args:
        since_ms: when the index stopped answering.
    """
    note = f"evidence not indexed yet: the index has not answered since {moment(since_ms)} UTC"
    return structs.replace(
        notification,
        text="\n".join([notification.text, *_labelled("Index", note)]),
        alert=notification.alert | {"evidence_indexed": False},
    )


def runbook(alert: Alert) -> str:
    """Path of the runbook below the documentation root."""
    return f"docs/runbooks/{alert.finding.rule_id}.md"


def _when(alert: Alert) -> str:
    judged = moment(alert.opened_ms)
    if judged[:10] == moment(alert.last_ms)[:10]:
        judged = judged[11:]
    return f"{span(alert.first_ms, alert.last_ms)} {DOT} first judged {judged}"


def _end(alert: Alert) -> str:
    """Somebody decided it, or it was explained."""
    return f"resolved {'by ' if alert.closed_count is not None else 'by itself: '}{alert.resolved_by}"


def _note(alert: Alert) -> str:
    notes = []
    if alert.status == "resolved":
        notes.append(_end(alert))
    elif alert.status == "acknowledged":
        notes.append(f"acknowledged by {alert.acknowledged_by} until {moment(alert.acknowledged_until_ms)} UTC")
    if alert.silenced_until_ms > alert.heard_ms:
        notes.append(f"silenced by {alert.silenced_by} until {moment(alert.silenced_until_ms)} UTC")
    return "; ".join(notes)


def _labelled(label: str, text: str) -> list[str]:
    return _wrapped(printable(text), f"{label:<{_LABEL}}", " " * _LABEL) if text else []


def _steps(steps: list[str]) -> list[str]:
    """Number the steps; a step's own lines stay lines, so that a command can be copied."""
    lines: list[str] = []
    for number, step in enumerate((step for step in steps if step), 1):
        label = f"{'Do' if number == 1 else '':<{_LABEL}}{number:<{_STEP}}"
        for part in step.split("\n"):
            lines += _wrapped(printable(part), label, " " * (_LABEL + _STEP))
            label = " " * (_LABEL + _STEP)
    return lines


def _wrapped(text: str, label: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False, break_long_words=True
    )
