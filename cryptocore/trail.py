"""AuditTrail: events of services that keep their own cryptography, through the same spool, seal and chain.

What such a service says is its own word: nobody here saw the key. So it may tell of uses only, never of the life of
keys, which signed records vouch for. Its calls to a vault are an intent before and an outcome after, as the monitor
needs them to explain the vault's own log.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

from cryptocore import forking
from cryptocore.audit import Audit, Subject
from cryptocore.clock import rfc3339
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import NotClaimable
from cryptocore.events import KekRef, KeyRef, Operation, Outcome, Phase, Reason, VaultAttempt
from cryptocore.lines.vocabulary import DATA_USES, VAULT_CALLS
from cryptocore.purposes import Purposes
from cryptocore.spool.entries import new_id
from cryptocore.sync import SyncTrail

USES: Final = DATA_USES | {Operation.TOKEN_USE}
"""What `record` may tell of."""


class VaultCall:
    """A call to a vault that is about to be made; say how it ended before the block ends.

    Attributes:
        call_ids: one for each request that may be made, to be sent as `x-ms-client-request-id`.
    """

    def __init__(self, call_ids: tuple[str, ...]) -> None:
        self.call_ids: Final = call_ids
        self.outcome: Outcome | None = None
        self.reason: Reason | None = None
        self.attempts: tuple[VaultAttempt, ...] = ()

    def succeeded(self, *attempts: VaultAttempt) -> None:
        """Say that the last of these requests had the answer."""
        self.outcome, self.reason, self.attempts = Outcome.SUCCEEDED, None, attempts

    def failed(self, reason: Reason, *attempts: VaultAttempt) -> None:
        """Say that none of these requests had it; `vault_denied` counts as denied, every other reason as failed."""
        self.outcome = Outcome.DENIED if reason is Reason.VAULT_DENIED else Outcome.FAILED
        self.reason, self.attempts = reason, attempts


class AuditTrail:
    """Records what a service did with keys of its own.

    Args:
        emitter: of this process; opened by the first use, closed by `close`.
        purposes: the declared ones; None takes any that is well formed.
    """

    def __init__(
        self, emitter: Emitter, *, ids: Callable[[int], bytes] = os.urandom, purposes: Purposes | None = None
    ) -> None:
        self._emitter = emitter
        self._ids = ids
        self._audit = Audit(emitter, ids, purposes=purposes)
        self._opening = asyncio.Lock()
        self.sync = SyncTrail(self, emitter)
        forking.renew_in_child(self)

    def after_fork(self) -> None:
        """Open anew in a forked child."""
        self._opening = asyncio.Lock()

    @classmethod
    def from_env(cls, *, token_provider: Any = None) -> "AuditTrail":
        """Make a trail of `KEYTRAIL_CORE_*`, of which it needs neither the key store's nor the KEK's.

        Raises:
            ConfigurationError: a variable is missing or wrong.
            RegistryInvalid, PurposesInvalid: a file cannot be used.
        """
        from cryptocore.registry import Registry  # noqa: PLC0415 - only who reads the environment needs it
        from cryptocore.settings import EmitterSettings, build_emitter, declared_purposes  # noqa: PLC0415

        settings = EmitterSettings.load()
        registry = Registry.load(settings.registry_file)
        emitter = build_emitter(settings, registry, token_provider=token_provider)
        return cls(emitter, purposes=declared_purposes(settings))

    async def record(
        self,
        operation: Operation,
        *,
        owner: Owner,
        key_id: str,
        key_version: int = 1,
        outcome: Outcome = Outcome.SUCCEEDED,
        reason: Reason | None = None,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> str:
        """Make the event of a use durable; only then hand the result of the use out.

        Args:
            operation: one of USES.
            key_id: 32 hex digits that name the key, always the same for the same key.
            outcome: `denied` and `failed` need a reason.

        Returns:
            The event's id.

        Raises:
            NotClaimable: not an operation that a service may claim.
            MissingActor, MissingPurpose, UnknownPurpose: as for a core.
            EventInvalid: an argument is not of the format's form.
            AuditUnavailable: the event is not durable: do not hand the result out.
        """
        if operation not in USES:
            raise NotClaimable(f"a service may not claim {operation}: only {', '.join(sorted(USES))}")
        actor, purpose = self._audit.who_acts(actor, purpose)
        subject = Subject(actor, purpose, owner.ref(), KeyRef(id=key_id, version=key_version, kind="dek"))
        event = self._audit.event(operation, subject, outcome=outcome, reason=reason)
        await self.open()
        await self._audit.record(event)
        return event.id

    @asynccontextmanager
    async def vault_call(
        self,
        operation: Operation,
        *,
        kek: KekRef,
        owner: Owner,
        key_id: str,
        key_version: int = 1,
        requests: int = 1,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> AsyncIterator[VaultCall]:
        """Stand around a wrap or unwrap: the intent is durable before the block, its outcome after it.

        A block that ends without `succeeded` or `failed`, or with an exception, leaves the outcome `unknown`.

        Raises:
            NotClaimable: neither wrap nor unwrap.
            AuditUnavailable: before the block: do not call; after it: drop what the vault gave.
        """
        if operation not in VAULT_CALLS:
            raise NotClaimable(f"{operation} is no call to a vault: only {', '.join(sorted(VAULT_CALLS))}")
        actor, purpose = self._audit.who_acts(actor, purpose)
        subject = Subject(actor, purpose, owner.ref(), KeyRef(id=key_id, version=key_version, kind="dek"))
        call = VaultCall(tuple(new_id(self._ids) for _ in range(requests)))
        intent = self._audit.event(
            operation, subject, outcome=None, phase=Phase.INTENT, kek=kek, call_ids=call.call_ids
        )

        async def conclude() -> None:
            outcome = self._audit.event(
                operation,
                subject,
                outcome=call.outcome or Outcome.UNKNOWN,
                phase=Phase.OUTCOME,
                reason=call.reason,
                kek=kek,
                intent_id=intent.id,
                attempts=call.attempts,
            )
            await self._audit.record(outcome)

        await self.open()
        await self._audit.intend(intent, conclude)
        try:
            yield call
        finally:
            await conclude()

    def attempt(self, call_id: str, *, started_us: int, ended_us: int | None = None, **answer: Any) -> VaultAttempt:
        """Describe one request of a call: `http_status` and `request_id` (`x-ms-request-id`) as the vault gave them."""
        ended_at = None if ended_us is None else rfc3339(ended_us)
        return VaultAttempt(call_id=call_id, started_at=rfc3339(started_us), ended_at=ended_at, **answer)

    async def open(self) -> None:
        """Open the emitter, unless it is open.

        Raises:
            AuditUnavailable: the spool cannot be written.
        """
        async with self._opening:
            if not self._emitter.is_open:
                forking.refuse_green_threads()
                await self._emitter.open()

    async def close(self) -> None:
        """Send what is left, and end the chain."""
        await self._emitter.close()

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Open and close with an ASGI application."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
