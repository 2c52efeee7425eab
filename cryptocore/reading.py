"""What the key store alone tells, to whoever only looks: no signer, no spool, no log, no vault."""

import asyncio
from collections.abc import Callable
from typing import Self, TypeVar

from sqlalchemy import Connection

from cryptocore import forking
from cryptocore.audit import not_believed
from cryptocore.care.incidents import IncidentLooking
from cryptocore.care.threat import ThreatLooking
from cryptocore.errors import RecordInvalid
from cryptocore.registry import Registry
from cryptocore.store.key_store import KeyStore
from cryptocore.tokens.rows import Reach, TokenInfo, listed

T = TypeVar("T")


class StoreReader:
    """Reads statements and tokens.

    Args:
        store: of key versions.
        registry: whose signers with the role `keys` are believed.
    """

    def __init__(self, store: KeyStore, registry: Registry) -> None:
        self._store = store
        self.registry = registry

    @classmethod
    def from_env(cls) -> Self:
        """Make a reader of `KEYTRAIL_CORE_STORE_URL` and `KEYTRAIL_CORE_REGISTRY_FILE`; it opens nothing yet.

        Raises:
            ConfigurationError: a variable is missing or wrong.
            RegistryInvalid: the registry file cannot be used.
        """
        from cryptocore.store_settings import StoreSettings  # noqa: PLC0415 - only who reads the environment pays for it

        settings = StoreSettings.load()
        registry = Registry.load(settings.registry_file)
        return cls(settings.store(registry), registry)

    async def ask(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction of the key store's database.

        Raises:
            KeyUnavailable: the database does not answer, or what it gives is not to be believed.
        """
        try:
            return await asyncio.to_thread(forking.whole, self._store.transaction, work)
        except RecordInvalid as err:
            raise not_believed(f"{err.field}: {err.problem}").public() from None

    @property
    def threats(self) -> ThreatLooking:
        """The threat level."""
        return ThreatLooking(self)

    @property
    def incidents(self) -> IncidentLooking:
        """The incidents."""
        return IncidentLooking(self)

    async def tokens(self, reach: Reach | None = None, *, ended: bool = False, limit: int = 1_000) -> list[TokenInfo]:
        """List tokens as `TokenVault.tokens` does."""
        return await self.ask(lambda connection: listed(connection, reach, ended=ended, limit=limit))

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()
