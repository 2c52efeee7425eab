"""What a core is made of, for cryptocore's own rooms: the life of keys, tokens, incidents. No service needs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptocore.acts import Acts
from cryptocore.audit import Audit
from cryptocore.cache import KeyCache
from cryptocore.clock import Clock
from cryptocore.keyring import Keyring
from cryptocore.lifecycle import LifeCycle
from cryptocore.registry import Registry
from cryptocore.relay import Relay
from cryptocore.signing import Signer
from cryptocore.store import KeyStore
from cryptocore.vaultcalls import VaultCalls
from cryptocore.wrapping import KeyWrapper


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
    acts: Acts
    signer: Signer = field(repr=False)
    wrappers: Mapping[str, KeyWrapper] = field(repr=False)
    kek_alias: str
    clock: Clock
    ids: Callable[[int], bytes]
