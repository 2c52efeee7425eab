"""What belongs to one key event while it is judged: the batch that brought it, what is known of its key, its findings.

Shared by key_trail (uses) and key_life (the life cycle); decides nothing itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

from alerts.model import Evidence, Finding
from alerts.system import system_finding
from cryptocore.events import AuditEvent, OwnerRef
from streams.messages import Effects
from streams.state import State
from streams.trail.key_history import KeyHistory


@dataclass(slots=True, kw_only=True)
class Batch:
    """What all events of one applied batch share. Within [earliest_ms, latest_ms] the sender's clock is believed."""

    source: str
    instance: str
    append_ms: int
    now_ms: int
    earliest_ms: int
    latest_ms: int
    suspect: bool
    changes_keys: bool
    state: State
    effects: Effects
    clock_untrusted: str = ""


class Case(NamedTuple):
    """An event beside what is known of its key."""

    event: AuditEvent
    key_id: str
    history: KeyHistory
    effective_ms: int
    batch: Batch


def tenant_of(owner: OwnerRef | None) -> str:
    """The owner as fingerprints know it."""
    if owner is None:
        return ""
    return owner.tenant_id or f"secret:{owner.secret_name}"


def key_finding(finding: str, case: Case, summary: str) -> Finding:
    """Say something about the key of an event, with the event as its proof."""
    event = case.event
    return system_finding(
        finding,
        summary=summary,
        effective_ms=case.effective_ms,
        tenant=case.history.tenant,
        key=case.key_id,
        who=f"{event.actor} through {event.service}",
        evidence=(Evidence("event", event.id, case.effective_ms),),
    )
