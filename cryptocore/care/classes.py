"""Labels of keys: how sensitive what a key protects is, and which team answers for it.

A label decides when a key is due for rotation and who is told, never whether it may be used. Each change is a signed
statement with its author; the last one counts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import Connection

from cryptocore.audit import Subject
from cryptocore.care.statements import Statement, Statements
from cryptocore.care.terms import Classification
from cryptocore.core_keys import raw_key_id
from cryptocore.errors import ConfigurationError, InvalidTransition
from cryptocore.lines.texts import purposes as is_word
from cryptocore.store.key_store import database_ms

if TYPE_CHECKING:
    from cryptocore.parts import Parts

KIND = "label"


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """What a key is labelled with, by whom and when."""

    key_id: str
    classification: Classification
    team: str
    set_by: str
    set_ms: int


class _Label(Struct, frozen=True, forbid_unknown_fields=True):
    classification: Classification
    team: str
    set_by: str


class Labels:
    """Labels of the keys of one store."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._statements = Statements(KIND, parts.registry, parts.signer)

    async def label(
        self,
        key_id: str,
        classification: Classification,
        team: str,
        *,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> KeyLabel:
        """Label a key; a label that says the same already stays as it is.

        Args:
            team: who answers for the key: `[a-z0-9][a-z0-9._-]{0,63}`.

        Raises:
            InvalidTransition: there is no such key.
            ConfigurationError: the team's name is none.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        subject = Subject.of(actor, purpose)
        if not is_word[team]:
            raise ConfigurationError("a team is named by [a-z0-9][a-z0-9._-]{0,63}")
        raw = raw_key_id(key_id)
        if not await self._parts.read(self._parts.store.versions, raw):
            raise InvalidTransition(f"there is no key {key_id}")
        body = _Label(Classification(classification), team, subject.actor)

        def write(connection: Connection) -> Statement:
            before = self._statements.latest(connection, raw.hex())
            if before is not None and _says(before, body):
                return before
            return self._statements.append(connection, raw.hex(), body, before=before, now_ms=database_ms(connection))

        return _label(await self._parts.acts.in_database(self._parts.ask(write)))

    async def of(self, key_id: str) -> KeyLabel | None:
        """Read the label of a key; None when it has none.

        Raises:
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        raw = raw_key_id(key_id)
        found = await self._parts.ask(lambda connection: self._statements.latest(connection, raw.hex()))
        return None if found is None else _label(found)

    async def all(self) -> dict[str, KeyLabel]:
        """Read every label that is to be believed, by key id; raises as `of`."""
        latest = await self._parts.ask(self._statements.all_latest)
        return {found.subject: _label(found) for found in latest.found}

    async def unbelieved(self) -> tuple[str, ...]:
        """List keys whose label somebody else wrote or took away."""
        return (await self._parts.ask(self._statements.all_latest)).unbelieved


def _says(before: Statement, body: _Label) -> bool:
    said = before.read(_Label)
    return (said.classification, said.team) == (body.classification, body.team)


def _label(found: Statement) -> KeyLabel:
    said = found.read(_Label)
    return KeyLabel(found.subject, said.classification, said.team, said.set_by, found.stated_ms)
