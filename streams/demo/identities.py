"""Who may call the local vaults: identities with object ids, tokens with a simulated hour to live, permissions.

Tokens are random bytes that only this process knows; there is no signature to check and none is claimed.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Self

from azure.core.credentials import AccessToken

from cryptocore.clock import Clock

TOKEN_LIFE_US = 3_600 * 1_000_000
# The SDK judges expiry by the machine's clock, the vault by the simulated one: the vault's challenge renews the token.
_SDK_NEVER = 4_102_444_800


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller as Key Vault logs it: workloads have an app id and no UPN, people have a UPN."""

    name: str
    object_id: str
    app_id: str
    address: str
    permissions: frozenset[str]
    upn: str | None = None

    def claims(self) -> dict[str, str]:
        """Return the `identity.claim` object of a log record."""
        claims = {"oid": self.object_id, "appid": self.app_id}
        if self.upn is None:
            return claims | {"appidacr": "2", "idtyp": "app"}
        return claims | {"appidacr": "0", "scp": "user_impersonation", "upn": self.upn, "ipaddr": self.address}


class Directory:
    """Issues tokens and knows whose they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._issued: dict[str, tuple[Identity, int]] = {}

    def issue(self, identity: Identity) -> str:
        token = secrets.token_urlsafe(24)
        self._issued[token] = (identity, self._clock.now_us())
        return token

    def bearer(self, authorization: str) -> Identity | None:
        """Return who sent this header, or None where it is missing, unknown or expired."""
        identity, issued_us = self._issued.get(authorization.removeprefix("Bearer "), (None, 0))
        if identity is None or self._clock.now_us() - issued_us >= TOKEN_LIFE_US:
            return None
        return identity

    def credential(self, identity: Identity) -> "Credential":
        return Credential(self, identity)


class Credential:
    """What the Azure SDK asks for a token."""

    def __init__(self, directory: Directory, identity: Identity) -> None:
        self._directory = directory
        self._identity = identity

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:  # noqa: ARG002 - the SDK's signature
        return AccessToken(self._directory.issue(self._identity), _SDK_NEVER)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
