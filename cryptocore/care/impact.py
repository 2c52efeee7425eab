"""What hangs on a key or a KEK: whose data, which tokens, who used it lately. Asked before it is revoked or disabled.

Of the uses this process knows nothing: events go to the log and are forgotten here. Whoever has the monitor's index
gives a `UseHistory`; without one, the uses are "not established", which is not "none".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import Connection, select

from cryptocore.core_keys import raw_key_id
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, EnvelopeInvalid
from cryptocore.keys import KeyState
from cryptocore.store.tables import KEY_VERSION
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.rows import Reach, TokenInfo

if TYPE_CHECKING:
    from cryptocore.parts import Parts

MAX_TOKENS: Final = 100_000


@dataclass(frozen=True, slots=True)
class ServiceUse:
    """That a service did something with a key: how often within the last `within_ms`, the shortest that shows it.

    Attributes:
        operation: as in the events.
    """

    service: str
    operation: str
    count: int
    within_ms: int


class UseHistory(Protocol):
    """Who used what, as far as somebody keeps the events."""

    async def of_key(self, key_id: str) -> Sequence[ServiceUse]:
        """Tell the last uses of a DEK by each service and operation."""

    async def of_kek(self, vault: str, name: str) -> Sequence[ServiceUse]:
        """Tell the last wraps and unwraps under a KEK, any of its versions."""


@dataclass(frozen=True, slots=True)
class KeyReach:
    """A key version that is concerned."""

    key_id: str
    version: int
    owner: Owner
    state: KeyState
    kek_alias: str
    kek_version: str


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What is concerned.

    Attributes:
        subject: the key's id, or the KEK's alias and version.
        keys: versions that are not destroyed.
        tokens: that live under them.
        uses: None: not established.
    """

    subject: str
    keys: tuple[KeyReach, ...]
    tokens: tuple[TokenInfo, ...]
    uses: tuple[ServiceUse, ...] | None

    @property
    def owners(self) -> tuple[Owner, ...]:
        """Whose data is concerned."""
        return tuple(dict.fromkeys(key.owner for key in self.keys))

    @property
    def services(self) -> tuple[str, ...] | None:
        """Who used it lately; None: not established."""
        return None if self.uses is None else tuple(sorted({use.service for use in self.uses}))


async def of_key(parts: "Parts", key_id: str, history: UseHistory | None = None) -> BlastRadius:
    """Say what hangs on a DEK, all of its versions; each is believed by its signed record.

    Raises:
        AccessDenied: there is no such key.
        KeyUnavailable: the store does not answer, or is not to be believed.
    """
    raw = raw_key_id(key_id)
    versions = await parts.read(parts.store.versions, raw)
    if not versions:
        raise AccessDenied(f"there is no key {key_id}")
    keys = tuple(
        KeyReach(
            key_id=raw.hex(),
            version=version.number,
            owner=version.owner,
            state=version.record.state,
            kek_alias=version.record.kek_alias,
            kek_version=version.record.kek_version,
        )
        for version in versions
        if version.record.state is not KeyState.DESTROYED
    )
    tokens = await _tokens(parts, [raw])
    uses = None if history is None else tuple(await history.of_key(raw.hex()))
    return BlastRadius(raw.hex(), keys, tokens, uses)


async def of_kek(
    parts: "Parts", alias: str, version: str | None = None, history: UseHistory | None = None
) -> BlastRadius:
    """Say what hangs on a KEK, or on one version of it.

    Which versions are under it is read from the columns, as the many that they may be; who can write the database could
    leave some out. The act itself must not rely on it: it asks each signed record.

    Raises:
        KeyUnavailable: the store does not answer.
    """
    query = select(KEY_VERSION).where(KEY_VERSION.c.kek_alias == alias, KEY_VERSION.c.state != KeyState.DESTROYED)
    if version is not None:
        query = query.where(KEY_VERSION.c.kek_version == version)
    query = query.order_by(KEY_VERSION.c.key_id, KEY_VERSION.c.version)

    def read(connection: Connection) -> tuple[KeyReach, ...]:
        return tuple(
            KeyReach(
                key_id=row["key_id"].hex(),
                version=row["version"],
                owner=_owner(row["owner"]),
                state=KeyState(row["state"]),
                kek_alias=row["kek_alias"],
                kek_version=row["kek_version"],
            )
            for row in connection.execute(query).mappings()
        )

    keys = await parts.ask(read)
    tokens = await _tokens(parts, [bytes.fromhex(key_id) for key_id in dict.fromkeys(key.key_id for key in keys)])
    wrapper = parts.wrappers.get(alias)
    established = history is not None and wrapper is not None
    uses = tuple(await history.of_kek(wrapper.vault, wrapper.name)) if history and wrapper and established else None
    return BlastRadius(alias if version is None else f"{alias}/{version}", keys, tokens, uses)


async def _tokens(parts: "Parts", key_ids: Sequence[bytes]) -> tuple[TokenInfo, ...]:
    def read(connection: Connection) -> tuple[TokenInfo, ...]:
        found: list[TokenInfo] = []
        for key_id in key_ids:
            rows = token_rows.live(connection, Reach(key_id=key_id), limit=MAX_TOKENS)
            found += (row.info for row in rows)
        return tuple(found)

    return await parts.ask(read)


def _owner(raw: bytes) -> Owner:
    try:
        return Owner.decode(raw)
    except EnvelopeInvalid:
        return Owner.secret("(unreadable)")
