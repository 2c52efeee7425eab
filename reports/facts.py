"""What a report is made from: counts and documents of the index, before any arithmetic."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from reports.week import Week

Document = Mapping[str, Any]


class UseKind(NamedTuple):
    """What events are counted by."""

    operation: str
    outcome: str
    reason: str


class Judged(NamedTuple):
    """What KEK uses are counted by."""

    status: str
    strength: str
    reason: str


class InstanceState(StrEnum):
    """How a process stood at the end of the week."""

    CLOSED = "closed"
    RUNNING = "running"
    UNCLOSED = "unclosed"


@dataclass(frozen=True, slots=True)
class Instance:
    """One process: what it said it committed, up to `as_of_ms`, and how many of these events are stored."""

    instance: str
    service: str
    state: InstanceState
    as_of_ms: int
    sent: int
    stored: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """When a key version was revoked, and in which revision of its record."""

    key_id: str
    version: int
    revision: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class WeekFacts:
    """What is counted for the week and for the one before it."""

    week: Week
    events: Sequence[Counter[UseKind]]
    """One counter for each day; intents are not in them."""
    kek_uses: Sequence[Counter[Judged]]
    vault_records: Counter[tuple[str, str]]
    """By vault and class."""
    alerts: Sequence[Document]
    """Those whose first event lies in the week."""
    revoked_decrypts: Sequence[tuple[Revocation, Document]]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the arithmetic needs; nothing is asked for later."""

    this: WeekFacts
    last: WeekFacts
    prepared_ms: int
    instances: Sequence[Instance]
    unsaid: int
    """Events of processes from which no control line is stored: nobody says how many they sent."""
    suspect: int
    out_of_range: int
    services: int
    tenants: int
    open_alerts: Sequence[Document]
    sight_alerts: Sequence[Document]
    """Findings about the monitor's own sight that touch the week, open or not."""
    life_cycle: Sequence[Document]
    """Succeeded acts of the life cycle up to the end of the week, oldest first."""
    unaccounted: Sequence[Document]
    rejected: Counter[str] = field(default_factory=Counter)


def moment_ms(text: str) -> int:
    """Read an RFC 3339 time of a document.

    Raises:
        ValueError: it is none.
    """
    return round(datetime.fromisoformat(text).timestamp() * 1000)
