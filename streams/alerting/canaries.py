"""What triage does with the canary: it keeps the newest one and owes its delivery, and never makes an alert of it."""

from typing import Final

from msgspec import Struct

from alerts.model import FindingMessage, Notification, Severity
from alerts.rules.canary import RULE
from streams.state import Kind, State

KIND: Final = "canary"
"""Of the notification; deliveries send it to the canary's route and nowhere else."""
_ID: Final = b"canary"
_PREFIX: Final = "canary:"


class Canary(Struct):
    """The newest event that arrived, and whether its delivery is owed."""

    event_id: str
    at_ms: int
    owed: bool = True


def is_canary(message: FindingMessage) -> bool:
    """Say whether a finding is the canary's."""
    return message.finding.rule_id == RULE.id


def take(message: FindingMessage, state: State) -> None:
    """Keep the newest one; one that was not delivered yet is overtaken."""
    event_id = message.finding.facts.get("event_id", "")
    known = state.get(Kind.METER, _ID, Canary)
    if known is None or (message.last_ms, event_id) > (known.at_ms, known.event_id):
        state.put(Kind.METER, _ID, Canary(event_id=event_id, at_ms=message.last_ms))


def owed(state: State) -> list[Notification]:
    """What is to be sent: one, or nothing."""
    known = state.get(Kind.METER, _ID, Canary)
    if known is None or not known.owed:
        return []
    return [
        Notification(
            id=_PREFIX + known.event_id,
            alert_id="",
            kind=KIND,
            severity=Severity.INFO,
            subject=RULE.title,
            text=RULE.title,
            alert={"event_id": known.event_id, "at_ms": known.at_ms},
        )
    ]


def delivered(notification_id: str, state: State) -> bool:
    """Note that one got through; False when the id is no canary's."""
    if not notification_id.startswith(_PREFIX):
        return False
    known = state.get(Kind.METER, _ID, Canary)
    if known is not None and _PREFIX + known.event_id == notification_id:
        known.owed = False
        state.put(Kind.METER, _ID, known)
    return True
