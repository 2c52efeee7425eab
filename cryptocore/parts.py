"""What a core is made of, for cryptocore's own rooms: the life of keys, tokens, incidents. No service needs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from cryptocore.audit import Audit, Refusal
from cryptocore.cache import KeyCache
from cryptocore.clock import Clock
from cryptocore.keyring import Keyring
from cryptocore.keystate import KeyStates
from cryptocore.life.acts import Acts
from cryptocore.life.lifecycle import LifeCycle
from cryptocore.registry import Registry
from cryptocore.relay import Relay
from cryptocore.revocations import Revocations
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.vaultcalls import VaultCalls
from cryptocore.wrapping import KeyWrapper

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one core.

    Attributes:
        keyring: asks the store (`run`) so that what it refuses becomes a `Refusal`; finds the KEK of an alias.
        acts: runs an act so that its refusal is told of; see `Acts.live`.
        signer: signs key records, and events that no key record vouches for; role `keys`.
        wrappers: KEKs by alias, as configured; ask `keyring.wrapper`, which refuses by name.
        kek_alias: under which new keys are wrapped unless told otherwise.
        ids: random bytes for ids; never for keys or nonces.
    """

    service: str
    deployment: bytes
    registry: Registry
    store: KeyStore
    keyring: Keyring
    cache: KeyCache
    lifecycle: LifeCycle
    calls: VaultCalls
    audit: Audit
    relay: Relay
    states: KeyStates
    revocations: Revocations
    acts: Acts
    signer: Signer = field(repr=False)
    wrappers: Mapping[str, KeyWrapper] = field(repr=False)
    kek_alias: str
    clock: Clock
    ids: Callable[[int], bytes]

    async def ask(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction of the key store's database.

        Raises:
            StoreConflict: a rule of the tables refused it.
            KeyUnavailable: the database does not answer, or what it gives is not to be believed.
        """
        return await self.read(self.store.transaction, work)

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of the key store; raises as `ask`."""
        try:
            return await self.keyring.run(function, *args)
        except Refusal as refusal:
            raise refusal.public() from None
