"""The threat level of a deployment: raised for a while by somebody, for a reason; afterwards it is normal again.

It shortens cryptoperiods (terms.py). Each change is a signed statement.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from sqlalchemy import Connection

from cryptocore.audit import Subject
from cryptocore.care.statements import Asking, Statement, Statements
from cryptocore.care.terms import DAY_MS, ThreatLevel
from cryptocore.errors import ConfigurationError
from cryptocore.lines.texts import is_note
from cryptocore.signing import Signer
from cryptocore.store.key_store import database_ms

if TYPE_CHECKING:
    from cryptocore.parts import Parts

KIND: Final = "threat"
MAX_MS: Final = 366 * DAY_MS
"""A level that stays raised for longer is a matter of the cryptoperiods themselves."""
_SUBJECT: Final = "deployment"


@dataclass(frozen=True, slots=True)
class Threat:
    """The level at one moment.

    Attributes:
        level: what counts now.
        until_ms: when a raised level ends; None at level normal.
        set_by: who set what was set last; None when nobody ever did.
        reason: why.
    """

    level: ThreatLevel
    until_ms: int | None = None
    set_by: str | None = None
    reason: str | None = None
    set_ms: int | None = None


class _Level(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    level: ThreatLevel
    set_by: str
    reason: str
    until_ms: int | None = None


class ThreatLooking:
    """The threat level of one store's deployment, to look at."""

    def __init__(self, asking: Asking, signer: Signer | None = None) -> None:
        self._asking = asking
        self._statements = Statements(KIND, asking.registry, signer)

    async def now(self) -> Threat:
        """Read the level that counts, by the database's time.

        Raises:
            KeyUnavailable: the store does not answer, or is not to be believed.
        """

        def read(connection: Connection) -> Threat:
            return _threat(self._statements.latest(connection, _SUBJECT), database_ms(connection))

        return await self._asking.ask(read)


class Threats(ThreatLooking):
    """The threat level, to look at and to set."""

    def __init__(self, parts: "Parts") -> None:
        super().__init__(parts, parts.signer)
        self._parts = parts

    async def set(
        self,
        level: ThreatLevel,
        *,
        reason: str,
        until_ms: int | None = None,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> Threat:
        """Set the level.

        Args:
            level: `NORMAL` ends a raised one.
            reason: for who reads it later.
            until_ms: when a raised level ends, by the database's time; at most 366 days away.

        Raises:
            ConfigurationError: no reason, or no end where one is needed.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        subject = Subject.of(actor, purpose)
        if not is_note(reason):
            raise ConfigurationError("a reason has 1 to 512 characters, none of them control characters")
        if (until_ms is None) != (level is ThreatLevel.NORMAL):
            raise ConfigurationError("a raised level has an end, and the normal one has none")
        body = _Level(ThreatLevel(level), subject.actor, reason, until_ms)

        def write(connection: Connection) -> Threat:
            now_ms = database_ms(connection)
            if until_ms is not None and not now_ms < until_ms <= now_ms + MAX_MS:
                raise ConfigurationError("the end of a raised level is to come, within 366 days")
            before = self._statements.latest(connection, _SUBJECT)
            return _threat(self._statements.append(connection, _SUBJECT, body, before=before, now_ms=now_ms), now_ms)

        return await self._parts.acts.in_database(self._parts.ask(write))


def _threat(found: Statement | None, now_ms: int) -> Threat:
    if found is None:
        return Threat(ThreatLevel.NORMAL)
    said = found.read(_Level)
    over = said.until_ms is None or now_ms >= said.until_ms
    level, until_ms = (ThreatLevel.NORMAL, None) if over else (said.level, said.until_ms)
    return Threat(level, until_ms, said.set_by, said.reason, found.stated_ms)
