"""Incidents: what happened, since when, what it touches, whom to tell, what is owed until it can be closed.

An incident is a signed statement with one revision for each change, so that its history shows who knew what when. Due
dates come from the reviewed terms (policy 3.6, 9.1a, 10c, 10d). It lists whom to notify and writes to nobody.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cryptocore.audit import Subject
from cryptocore.errors import AccessDenied, ConfigurationError, InvalidTransition
from cryptocore.event_texts import is_note
from cryptocore.statements import Statement, Statements
from cryptocore.store import database_ms
from cryptocore.terms import DAY_MS, HOUR_MS, IncidentKind, Terms

if TYPE_CHECKING:
    from cryptocore.parts import Parts

KIND: Final = "incident"
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


class Incidents:
    """Incidents of one store.

    Args:
        terms: what is due when.
    """

    def __init__(self, parts: "Parts", terms: Terms | None = None) -> None:
        self._parts = parts
        self._terms = terms or Terms.load()
        self._statements = Statements(KIND, parts.registry, parts.signer)

    async def open(
        self,
        kind: IncidentKind,
        summary: str,
        *,
        occurred_ms: int | None = None,
        detected_ms: int | None = None,
        reported_ms: int | None = None,
        affected: Sequence[str] = (),
        notify: Sequence[str] = (),
        key_id: str | None = None,
        versions: Sequence[int] = (),
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Incident:
        """Open an incident; times that are not given are those of the database now, but for `occurred_ms`.

        Raises:
            ConfigurationError: a text or a time is none.
            KeyUnavailable: the store does not answer.
        """
        subject = Subject.of(actor, purpose)
        ident = f"inc-{self._parts.ids(8).hex()}"

        def write(connection: Connection) -> Incident:
            now_ms = database_ms(connection)
            known_ms = now_ms if detected_ms is None else detected_ms
            facts = Facts(
                kind=kind,
                summary=summary,
                occurred_ms=occurred_ms,
                detected_ms=known_ms,
                reported_ms=now_ms if reported_ms is None else reported_ms,
                report_due_ms=self._report_due(kind, known_ms if occurred_ms is None else occurred_ms),
                affected=_merged((), affected),
                notify=_merged((), notify),
                notification=Notification(due_ms=known_ms + self._terms.notification_hours * HOUR_MS),
                audit_due_ms=known_ms + self._terms.audit_days * DAY_MS,
                key_id=key_id,
                versions=tuple(versions),
                by=subject.actor,
            )
            _check(facts, now_ms)
            return _incident(self._statements.append(connection, ident, facts, before=None, now_ms=now_ms))

        return await self._parts.acts.in_database(self._parts.ask(write))

    async def get(self, ident: str) -> Incident:
        """Read an incident as it stands.

        Raises:
            AccessDenied: there is none of this id.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        return (await self.history(ident))[-1]

    async def history(self, ident: str) -> list[Incident]:
        """Read all revisions of an incident, oldest first; raises as `get`."""
        found = await self._parts.ask(lambda connection: self._statements.history(connection, ident))
        if not found:
            raise AccessDenied(f"there is no incident {ident}")
        return [_incident(one) for one in found]

    async def all(self, *, closed: bool = False) -> list[Incident]:
        """List the open incidents, with `closed` all of them, the newest first; raises as `get`."""
        found = map(_incident, await self._parts.ask(self._statements.all_latest))
        chosen = [one for one in found if closed or one.facts.closed_ms is None]
        return sorted(chosen, key=lambda one: one.facts.detected_ms, reverse=True)

    async def update(
        self, ident: str, change: Change, *, actor: str | None = None, purpose: str | None = None
    ) -> Incident:
        """Add a revision that says something anew.

        Raises:
            AccessDenied: there is none of this id.
            InvalidTransition: it is closed, or somebody changed it meanwhile.
            ConfigurationError: a text or a time is none.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        subject = Subject.of(actor, purpose)
        return await self._revise(ident, lambda before, _: _changed(before.facts, change, subject.actor))

    async def close(
        self, ident: str, *, note: str | None = None, actor: str | None = None, purpose: str | None = None
    ) -> Incident:
        """Close an incident of which nothing is owed any more; errors as `update`, and one more.

        Raises:
            InvalidTransition: a report, a decision, a notification or the audit is missing; it says which.
        """
        subject = Subject.of(actor, purpose)

        def closed(before: Incident, now_ms: int) -> Facts:
            owed = before.owed()
            if owed:
                raise InvalidTransition(f"incident {ident} still owes: {', '.join(owed)}")
            return msgspec.structs.replace(before.facts, closed_ms=now_ms, by=subject.actor, note=note)

        return await self._revise(ident, closed)

    async def database_ms(self) -> int:
        """Ask for the time that due dates are judged by."""
        return await self._parts.ask(database_ms)

    async def _revise(self, ident: str, change: Callable[[Incident, int], Facts]) -> Incident:
        def write(connection: Connection) -> Incident:
            before = self._statements.latest(connection, ident)
            if before is None:
                raise AccessDenied(f"there is no incident {ident}")
            now_ms = database_ms(connection)
            known = _incident(before)
            if known.facts.closed_ms is not None:
                raise InvalidTransition(f"incident {ident} is closed")
            facts = change(known, now_ms)
            _check(facts, now_ms)
            return _incident(self._statements.append(connection, ident, facts, before=before, now_ms=now_ms))

        return await self._parts.acts.in_database(self._parts.ask(write))

    def _report_due(self, kind: IncidentKind, since_ms: int) -> int | None:
        if kind is not IncidentKind.DEVICE_LOSS:
            return None
        return since_ms + self._terms.device_loss_report_hours * HOUR_MS


def _incident(found: Statement) -> Incident:
    return Incident(found.subject, found.revision, found.stated_ms, found.read(Facts))


def _changed(before: Facts, change: Change, actor: str) -> Facts:
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
        affected=_merged(before.affected, change.affected),
        notify=_merged(before.notify, change.notify),
        versions=tuple(sorted({*before.versions, *change.versions})),
        notification=msgspec.structs.replace(before.notification, **notification),
        by=actor,
        note=change.note,
    )


def _merged(before: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*before, *more)))


def _check(facts: Facts, now_ms: int) -> None:
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
