"""Azure Key Vault as a KeyWrapper: every wrap and unwrap is one remote request with an id of its own.

The SDK's own `wrap_key` runs locally (no record in the vault's log, and a disabled key still wraps) and its retries
send one id on several requests, so both are passed by: requests go through `KeyClient.send_request`, retries are ours.
No SDK object and no SDK exception leaves this file: they hold the request's body, and with it the DEK.
"""

import asyncio
import base64
import os
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.keyvault.keys.aio import KeyClient

from cryptocore import forking
from cryptocore.clock import Clock, SystemClock, rfc3339
from cryptocore.errors import ConfigurationError
from cryptocore.events import Reason, VaultAttempt
from cryptocore.keks.vault import VaultAnswer
from cryptocore.life.bare import BareWrap
from cryptocore.vault_answers import STATUS_REASONS, Answer, failed, read_document, read_key, request_id, retry_after
from cryptocore.wrapping import Unwrapped, VaultCallFailed, Wrapped

ALGORITHM = "RSA-OAEP-256"
# Host suffixes of the clouds' vaults and of Managed HSM; nothing that merely looks like them.
VAULT_SUFFIXES = (".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net", ".managedhsm.azure.net")
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 10
# Waits before the second, third … attempt. What Key Vault asks for (Retry-After) goes first, and when that is longer
# than MAX_RETRY_AFTER_S the call ends.
BACKOFF_S = (0.2, 0.8, 2.0)
MAX_RETRY_AFTER_S = 5.0

_DONE = frozenset({200, 204})


class AzureKeyWrapper:
    """One KEK: a key of a vault under a pinned alias.

    Args:
        alias: the name that key records carry (`kek_alias`); alias → vault and key name is pinned configuration.
        vault_url: https and one of VAULT_SUFFIXES.
        credential: of whoever calls the vault; or what makes one when it is first needed, in each process its own.
        attempts: requests one call may make; each has its own call id, drawn before the intent is committed.
        transport: what makes an SDK transport when one is first needed, in each process its own; or one of the caller's
            making, which forked children refuse by name. Tests and the demo reach a loopback vault with it.

    Raises:
        ConfigurationError: the URL is not that of a Key Vault.
    """

    def __init__(
        self,
        alias: str,
        *,
        vault_url: str,
        key_name: str,
        credential: AsyncTokenCredential | Callable[[], AsyncTokenCredential],
        clock: Clock | None = None,
        ids: Callable[[int], bytes] = os.urandom,
        attempts: int = 3,
        transport: AsyncHttpTransport[Any, Any] | Callable[[], AsyncHttpTransport[Any, Any]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.kek_alias = alias
        self._host = _vault_host(vault_url)
        self.vault = self._host.partition(".")[0]
        self.name = key_name.lower()
        self._clock = clock or SystemClock()
        self._ids = ids
        self._attempts = attempts
        self._sleep = sleep
        self._url = vault_url
        self._credential = credential
        self._transport = transport
        self._is_parents = False
        self._connected: tuple[KeyClient, AsyncTokenCredential | None] | None = None
        forking.renew_in_child(self)

    def draw_call_ids(self) -> tuple[str, ...]:
        self._check_transport()  # before an intent is written of a call that cannot be made
        return tuple(str(uuid.UUID(bytes=self._ids(16), version=4)) for _ in range(self._attempts))

    async def current_version(self) -> str:
        """Return the version that new DEKs are wrapped under.

        Raises:
            VaultCallFailed: the vault did not say.
        """
        _, answer = await self._call("GET", f"keys/{self.name}", None, self.draw_call_ids())
        return answer.kid.rsplit("/", 1)[-1]

    async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
        """Wrap a DEK blob (65 bytes) under exactly this version.

        Raises:
            VaultCallFailed: with every attempt that was made.
        """
        attempts, answer = await self._operate("wrapkey", blob, version, call_ids)
        return Wrapped(wrapped_dek=answer.value, kek_version=version, attempts=attempts)

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        """Unwrap a DEK blob with exactly this version.

        Raises:
            VaultCallFailed: with every attempt that was made.
        """
        attempts, answer = await self._operate("unwrapkey", wrapped_dek, version, call_ids)
        return Unwrapped(blob=answer.value, attempts=attempts)

    async def unwrap_bare(
        self, wrapped_dek: bytes, *, algorithm: BareWrap, version: str, call_ids: tuple[str, ...]
    ) -> Unwrapped:
        """Unwrap a bare DEK that other software wrapped, with exactly this version.

        Raises:
            VaultCallFailed: with every attempt that was made.
        """
        attempts, answer = await self._operate("unwrapkey", wrapped_dek, version, call_ids, algorithm=algorithm)
        return Unwrapped(blob=answer.value, attempts=attempts)

    async def administer(
        self, method: str, path: str, body: dict[str, Any] | None, *, call_ids: tuple[str, ...]
    ) -> VaultAnswer:
        """Ask for, or change, what the vault knows of keys; cryptocore/keks/vault.py says what there is to ask.

        Args:
            method: of HTTP.
            path: under the vault's URL, or a URL of that vault, as its lists continue.
            body: JSON.
            call_ids: one for each attempt.

        Raises:
            VaultCallFailed: with every attempt that was made.
        """
        parts = urlsplit(path)
        if parts.netloc and (parts.scheme, parts.netloc.lower().removesuffix(":443")) != ("https", self._host):
            raise VaultCallFailed(Reason.VAULT_ERROR, (), retryable=False)  # the token goes to this vault only
        attempts, answer = await self._call(method, path, body, call_ids, read=read_document)
        return VaultAnswer(answer.document, attempts)

    async def close(self) -> None:
        """Let go of the connection; the next call would make another."""
        connected, self._connected = self._connected, None
        if connected is not None:
            client, credential = connected
            await client.close()
            if credential is not None:
                await credential.close()
        elif self._transport is not None and not callable(self._transport) and not self._is_parents:
            await self._transport.close()

    def after_fork(self) -> None:
        """Leave the parent's connection to the parent, and a transport of the parent's making with it."""
        forking.keep(self._connected, self._transport)
        self._connected = None
        self._is_parents = self._transport is not None and not callable(self._transport)

    def _check_transport(self) -> None:
        """Refuse a transport whose sockets and event loop are another process's.

        Raises:
            ConfigurationError: this process was forked after the transport was made.
        """
        if self._is_parents:
            raise ConfigurationError(
                f"the transport of the KEK {self.kek_alias} was made before this process was forked: "
                "give AzureKeyWrapper what makes one, so that each process makes its own"
            )

    def _client(self) -> KeyClient:
        if self._connected is None:
            self._check_transport()
            transport = self._transport() if callable(self._transport) else self._transport
            credential = self._credential() if callable(self._credential) else self._credential
            client = KeyClient(
                self._url,
                credential,
                retry_total=0,
                connection_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                logging_enable=False,
                **({} if transport is None else {"transport": transport}),
            )
            self._connected = client, credential if callable(self._credential) else None
        return self._connected[0]

    async def _operate(
        self, verb: str, value: bytes, version: str, call_ids: tuple[str, ...], *, algorithm: str = ALGORITHM
    ) -> tuple[tuple[VaultAttempt, ...], Answer]:
        body = {"alg": str(algorithm), "value": base64.urlsafe_b64encode(value).rstrip(b"=").decode()}
        attempts, answer = await self._call("POST", f"keys/{self.name}/{version}/{verb}", body, call_ids)
        if not self._is_version(answer.kid, version):
            raise VaultCallFailed(Reason.KID_MISMATCH, attempts, retryable=False)
        return attempts, answer

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        call_ids: tuple[str, ...],
        *,
        read: "Callable[[AsyncHttpResponse, VaultAttempt], Answer] | None" = None,
    ) -> tuple[tuple[VaultAttempt, ...], Answer]:
        made: list[VaultAttempt] = []
        for number, call_id in enumerate(call_ids):
            answer = await self._attempt(method, path, body, call_id, read or read_key)
            made.append(answer.attempt)
            if answer.reason is None:
                return tuple(made), answer
            if not answer.retryable or number + 1 == len(call_ids):
                raise failed(answer, tuple(made)) from None
            backoff = BACKOFF_S[min(number, len(BACKOFF_S) - 1)]
            asked = answer.retry_after_s
            if asked is not None and asked > MAX_RETRY_AFTER_S:
                raise failed(answer, tuple(made)) from None  # longer than a caller waits; the budget remembers it
            await self._sleep(backoff if asked is None else asked)
        raise ConfigurationError("a vault call needs at least one call id")

    async def _attempt(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        call_id: str,
        read: Callable[[AsyncHttpResponse, VaultAttempt], Answer],
    ) -> Answer:
        started = rfc3339(self._clock.now_us())
        request = HttpRequest(method, path, json=body, headers={"x-ms-client-request-id": call_id})
        try:
            response = await self._client().send_request(request)
        except AzureError as problem:
            denied = isinstance(problem, ClientAuthenticationError)
            reason = Reason.VAULT_DENIED if denied else Reason.VAULT_UNREACHABLE
            return Answer(VaultAttempt(call_id=call_id, started_at=started), reason, b"", "", None)
        attempt = VaultAttempt(
            call_id=call_id,
            request_id=request_id(response),
            http_status=response.status_code,
            started_at=started,
            ended_at=rfc3339(self._clock.now_us()),
        )
        if response.status_code not in _DONE:
            reason = STATUS_REASONS.get(response.status_code, Reason.VAULT_ERROR)
            return Answer(attempt, reason, b"", "", retry_after(response))
        return read(response, attempt)

    def _is_version(self, kid: str, version: str) -> bool:
        """Whether a key id names this vault, this key and this version."""
        parts = urlsplit(kid.lower())
        return parts.hostname == self._host and parts.path == f"/keys/{self.name}/{version}"


def process_credential() -> AsyncTokenCredential:
    """Return the identity of the process: managed identity, workload identity or what `az login` left."""
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - only services need azure-identity

    return DefaultAzureCredential()


def _vault_host(vault_url: str) -> str:
    parts = urlsplit(vault_url)
    host = (parts.hostname or "").lower()
    name, _, _ = host.partition(".")
    if parts.scheme != "https" or not name or host.removeprefix(name) not in VAULT_SUFFIXES:
        raise ConfigurationError(f"not the URL of a Key Vault (https and one of {', '.join(VAULT_SUFFIXES)})")
    return host
