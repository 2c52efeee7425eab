"""What an incident says: its facts, what it owes, how a change becomes the next revision. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from cryptocore.care.terms import IncidentKind
from cryptocore.errors import ConfigurationError
from cryptocore.lines.texts import is_note

MAX_LISTED: Final = 10_000
"""Entries of `affected` and of `notify`."""


class Owed(StrEnum):
    """What an open incident waits for."""

    REPORT = "report"
    DECISION = "decision"
    NOTIFICATION = "notification"
    AUDIT = "audit"


class Notification(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whether affected parties are told (policy 10c): `required` None means that nobody has decided yet."""

    due_ms: int
    required: bool | None = None
    decided_by: str | None = None
    sent_ms: int | None = None


class Facts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What one revision says of an incident.

    Attributes:
        summary: one line.
        occurred_ms: when it happened, as far as known.
        detected_ms: when somebody of us knew.
        reported_ms: when Security was told.
        report_due_ms: a lost device is reported within hours.
        affected: what it touches, each with its kind in front: `owner:t-88/crm`, `key:<id>/<version>`, `device:…`.
        notify: whom to tell, likewise: `team:payments`, `tenant:t-88`, `service:billing`.
        key_id: of an incident of kind key.
        versions: those that are compromised.
        by: who made this revision.
        note: what changed with it.
    """

    kind: IncidentKind
    summary: str
    detected_ms: int
    notification: Notification
    audit_due_ms: int
    by: str
    occurred_ms: int | None = None
    reported_ms: int | None = None
    report_due_ms: int | None = None
    affected: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    key_id: str | None = None
    versions: tuple[int, ...] = ()
    audited_ms: int | None = None
    closed_ms: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """One revision of an incident; its id is `inc-` and 16 hex digits."""

    id: str
    revision: int
    stated_ms: int
    facts: Facts

    @property
    def reported_late(self) -> bool:
        """Say whether Security was told after the time that the policy allows."""
        due_ms, reported_ms = self.facts.report_due_ms, self.facts.reported_ms
        return due_ms is not None and reported_ms is not None and reported_ms > due_ms

    def owed(self) -> tuple[Owed, ...]:
        """Say what is missing before it can be closed."""
        facts, notification = self.facts, self.facts.notification
        missing = {
            Owed.REPORT: facts.reported_ms is None,
            Owed.DECISION: notification.required is None,
            Owed.NOTIFICATION: notification.required is True and notification.sent_ms is None,
            Owed.AUDIT: facts.audited_ms is None,
        }
        return tuple(owed for owed, is_missing in missing.items() if is_missing)

    def late(self, now_ms: int) -> tuple[Owed, ...]:
        """Say what is missing although it was due."""
        due = {
            Owed.REPORT: self.facts.report_due_ms,
            Owed.DECISION: self.facts.notification.due_ms,
            Owed.NOTIFICATION: self.facts.notification.due_ms,
            Owed.AUDIT: self.facts.audit_due_ms,
        }
        return tuple(owed for owed in self.owed() if (due_ms := due[owed]) is not None and now_ms >= due_ms)


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an update says anew; what is None stays as it was, lists grow.

    Attributes:
        notification_required: the decision; who decides is the actor.
    """

    summary: str | None = None
    occurred_ms: int | None = None
    reported_ms: int | None = None
    affected: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()
    notification_required: bool | None = None
    notification_sent_ms: int | None = None
    audited_ms: int | None = None
    note: str | None = None


def changed(before: Facts, change: Change, actor: str) -> Facts:
    """Make the facts of the next revision."""
    notification: dict[str, Any] = {}
    if change.notification_required is not None:
        notification = {"required": change.notification_required, "decided_by": actor}
    if change.notification_sent_ms is not None:
        notification["sent_ms"] = change.notification_sent_ms
    given = {
        "summary": change.summary,
        "occurred_ms": change.occurred_ms,
        "reported_ms": change.reported_ms,
        "audited_ms": change.audited_ms,
    }
    return msgspec.structs.replace(
        before,
        **{name: value for name, value in given.items() if value is not None},
        affected=merged(before.affected, change.affected),
        notify=merged(before.notify, change.notify),
        versions=tuple(sorted({*before.versions, *change.versions})),
        notification=msgspec.structs.replace(before.notification, **notification),
        by=actor,
        note=change.note,
    )


def merged(before: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Let a list grow; nothing twice."""
    return tuple(dict.fromkeys((*before, *more)))


def check(facts: Facts, now_ms: int) -> None:
    """Check the texts and times of a revision that is about to be written.

    Raises:
        ConfigurationError: one of them is none.
    """
    if not all(is_note(text) for text in (facts.summary, *facts.affected, *facts.notify, *filter(None, [facts.note]))):
        raise ConfigurationError("texts have 1 to 512 characters, none of them control characters")
    if max(len(facts.affected), len(facts.notify)) > MAX_LISTED:
        raise ConfigurationError(f"affected and notify list at most {MAX_LISTED:,} each")
    for name in ("occurred_ms", "detected_ms", "reported_ms", "audited_ms"):
        value = getattr(facts, name)
        if value is not None and not 0 < value <= now_ms:
            raise ConfigurationError(f"{name.removesuffix('_ms')}: not a time that has been")
    sent_ms = facts.notification.sent_ms
    if sent_ms is not None and not 0 < sent_ms <= now_ms:
        raise ConfigurationError("notification sent: not a time that has been")
    if facts.occurred_ms is not None and facts.occurred_ms > facts.detected_ms:
        raise ConfigurationError("nothing is detected before it occurs")
