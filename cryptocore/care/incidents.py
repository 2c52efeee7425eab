"""Incidents: what happened, since when, what it touches, whom to tell, what is owed until it can be closed.

An incident is a signed statement with one revision for each change, so that its history shows who knew what when. Due
dates come from the reviewed terms (policy 3.6, 9.1a, 10c, 10d). It lists whom to notify and writes to nobody.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy import Connection

from cryptocore.audit import Subject
from cryptocore.care.incident_facts import Change, Facts, Incident, Notification, changed, check, merged
from cryptocore.care.statements import Asking, Statement, Statements
from cryptocore.care.terms import DAY_MS, HOUR_MS, IncidentKind, Terms
from cryptocore.errors import AccessDenied, InvalidTransition
from cryptocore.signing import Signer
from cryptocore.store.key_store import database_ms

if TYPE_CHECKING:
    from cryptocore.parts import Parts

KIND: Final = "incident"


class IncidentLooking:
    """Incidents of one store, to look at."""

    def __init__(self, asking: Asking, signer: Signer | None = None) -> None:
        self._asking = asking
        self._statements = Statements(KIND, asking.registry, signer)

    async def get(self, ident: str) -> Incident:
        """Read an incident as it stands.

        Raises:
            AccessDenied: there is none of this id.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        return (await self.history(ident))[-1]

    async def history(self, ident: str) -> list[Incident]:
        """Read all revisions of an incident, oldest first; raises as `get`."""
        found = await self._asking.ask(lambda connection: self._statements.history(connection, ident))
        if not found:
            raise AccessDenied(f"there is no incident {ident}")
        return [_incident(one) for one in found]

    async def all(self, *, closed: bool = False) -> list[Incident]:
        """List the open incidents that are to be believed, with `closed` all of them, the newest first."""
        latest = await self._asking.ask(self._statements.all_latest)
        chosen = [one for one in map(_incident, latest.found) if closed or one.facts.closed_ms is None]
        return sorted(chosen, key=lambda one: one.facts.detected_ms, reverse=True)

    async def unbelieved(self) -> tuple[str, ...]:
        """List incidents of which somebody else wrote, changed or took away a revision."""
        return (await self._asking.ask(self._statements.all_latest)).unbelieved

    async def database_ms(self) -> int:
        """Ask for the time that due dates are judged by."""
        return await self._asking.ask(database_ms)


class Incidents(IncidentLooking):
    """Incidents of one store, to look at and to keep.

    Args:
        terms: what is due when.
    """

    def __init__(self, parts: "Parts", terms: Terms | None = None) -> None:
        super().__init__(parts, parts.signer)
        self._parts = parts
        self._terms = terms or Terms.load()

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
                affected=merged((), affected),
                notify=merged((), notify),
                notification=Notification(due_ms=known_ms + self._terms.notification_hours * HOUR_MS),
                audit_due_ms=known_ms + self._terms.audit_days * DAY_MS,
                key_id=key_id,
                versions=tuple(versions),
                by=subject.actor,
            )
            check(facts, now_ms)
            return _incident(self._statements.append(connection, ident, facts, before=None, now_ms=now_ms))

        return await self._parts.acts.in_database(self._parts.ask(write))

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
        return await self._revise(ident, lambda before, _: changed(before.facts, change, subject.actor))

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
            check(facts, now_ms)
            return _incident(self._statements.append(connection, ident, facts, before=before, now_ms=now_ms))

        return await self._parts.acts.in_database(self._parts.ask(write))

    def _report_due(self, kind: IncidentKind, since_ms: int) -> int | None:
        if kind is not IncidentKind.DEVICE_LOSS:
            return None
        return since_ms + self._terms.device_loss_report_hours * HOUR_MS


def _incident(found: Statement) -> Incident:
    return Incident(found.subject, found.revision, found.stated_ms, found.read(Facts))
