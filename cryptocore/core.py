"""CryptoCore: encrypt, decrypt, and the life of keys, each use with a durable audit event before its result.

What it decides is the order of things: who acts, which key, whose, in which state, the DEK, the event, the result. How
each is done is elsewhere: cache.py and keyring.py, vaultcalls.py, lifecycle.py, emitter.py.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from hmac import compare_digest
from types import TracebackType
from typing import Any, Self, TypeVar

from cryptocore.audit import Audit, Refusal, StoreAway, Subject, cannot_open, no_arrow, state_forbids
from cryptocore.cache import CacheLimits, Entry, KeyCache, key_ref
from cryptocore.clock import Clock, SystemClock, rfc3339
from cryptocore.context import who_acts
from cryptocore.emitter import Emitter
from cryptocore.entries import new_id
from cryptocore.envelope import KEY_ID_SIZE, Header, Owner, decrypt_envelope, encrypt_envelope
from cryptocore.errors import AccessDenied, ConfigurationError, DecryptionFailed, EnvelopeInvalid
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keyinfo import KeyInfo, key_info
from cryptocore.keyring import Keyring
from cryptocore.keys import KeyAct, KeyReason, permits
from cryptocore.lifecycle import OPERATIONS, LifeCycle
from cryptocore.registry import Registry
from cryptocore.relay import Relay
from cryptocore.signing import Signer
from cryptocore.store import KeyStore, KeyVersion, StoreConflict
from cryptocore.vaultcalls import VaultCalls
from cryptocore.wrapping import KeyWrapper

T = TypeVar("T")


class CryptoCore:
    """The one object that a service talks to.

    Args:
        service: the source that the emitter's signer speaks for.
        deployment: the registry's.
        registry: signers that are believed.
        store: of key versions; shared by the services of a deployment.
        wrappers: KEKs by alias.
        kek_alias: under which new keys are wrapped unless told otherwise.
        emitter: of this process; opened and closed by `open` and `close` unless it is open already.
        key_signer: signs key records; has the role `keys`.
        limits: of what is remembered.
    """

    def __init__(
        self,
        *,
        service: str,
        deployment: bytes,
        registry: Registry,
        store: KeyStore,
        wrappers: Mapping[str, KeyWrapper],
        kek_alias: str,
        emitter: Emitter,
        key_signer: Signer,
        clock: Clock | None = None,
        ids: Callable[[int], bytes] = os.urandom,
        limits: CacheLimits | None = None,
    ) -> None:
        if service != emitter.service or deployment != registry.deployment:
            raise ConfigurationError("service and deployment are those of emitter and registry")
        self._store = store
        self._emitter = emitter
        self._kek_alias = kek_alias
        self._clock = clock or SystemClock()
        self._ids = ids
        self._audit = Audit(emitter, ids)
        self._cache = KeyCache(limits or CacheLimits())
        calls = VaultCalls(self._audit)
        self._keyring = Keyring(store, self._cache, calls, wrappers, clock=self._clock, threads=emitter.background)
        self._lifecycle = LifeCycle(
            deployment=deployment,
            store=store,
            keyring=self._keyring,
            calls=calls,
            audit=self._audit,
            signer=key_signer,
            clock=self._clock,
            ids=ids,
        )
        self._relay = Relay(store, self._keyring, self._audit, clock=self._clock)
        self._owns_emitter = False
        self._opened = False
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    def from_env(cls, *, credential: Any = None, token_provider: Any = None) -> "CryptoCore":
        """Make a core of `KEYTRAIL_CORE_*`; it opens nothing before its first use.

        Args:
            credential: an async Azure credential; None takes the process's own identity.
            token_provider: of aiokafka, for OAUTHBEARER.

        Raises:
            ConfigurationError: a variable is missing or wrong.
        """
        from cryptocore.settings import CoreSettings, build  # noqa: PLC0415 - which makes this class

        return build(CoreSettings.load(), credential=credential, token_provider=token_provider)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Open and close with an ASGI application: `FastAPI(lifespan=core.lifespan)`."""
        async with self:
            yield

    # --- data ------------------------------------------------------------------------------------------------------

    async def encrypt(
        self,
        plaintext: bytes,
        *,
        owner: Owner,
        record: str,
        purpose: str | None = None,
        actor: str | None = None,
        create_missing: bool = False,
    ) -> bytes:
        """Encrypt for an owner and a place.

        1. Who acts, and what for.
        2. The owner's newest version, as the store lately said; with `create_missing` it is made when there is none.
        3. Its state permits encryption.
        4. The DEK, from memory or unwrapped.
        5. The envelope.
        6. The event is durable; only then the envelope is handed out.

        Args:
            plaintext: 0 to 1 MiB.
            owner: whose it is.
            record: where the ciphertext will live, such as `tokens/8f3c/access`; needed again to decrypt.
            purpose: what for; else from context.
            actor: who acts, `kind:opaque-id`; else from context.
            create_missing: make and activate a key when the owner never had one.

        Raises:
            AccessDenied: the owner has no key that encrypts, or the vault refused.
            KeyUnavailable: store or vault do not answer, or are not to be believed.
            AuditUnavailable: the event is not durable.
            Misuse: no actor, no purpose.
            EnvelopeInvalid: plaintext or record beyond their limits.
        """
        if not self._opened:
            await self.open()
        # 1
        actor, purpose = who_acts(actor, purpose)
        try:
            # 2
            entry = self._cache.newest(owner)
            if entry is None or not self._keyring.fresh(entry) or not entry.version.newest:
                entry = await self._newest(Subject(actor, purpose, owner.ref()), owner, create_missing=create_missing)
            # 3
            if not _encrypts(entry.version):
                raise state_forbids(entry.key, "encrypt")
            # 4
            dek, grace = self._keyring.cached_dek(entry), False
            while dek is None:
                dek, grace = await self._keyring.dek(entry, Subject(actor, purpose, owner.ref()))
                entry = await self._keyring.current(entry)
                if not _encrypts(entry.version):  # it was changed while the vault answered
                    entry, dek = await self._newest(Subject(actor, purpose), owner, create_missing=False), None
                    if not _encrypts(entry.version):
                        raise state_forbids(entry.key, "encrypt")
            version = entry.version
        except Refusal as refusal:
            return await self._relay.refuse(Operation.ENCRYPT, Subject(actor, purpose, owner.ref()), refusal)
        # 5
        envelope = encrypt_envelope(
            dek,
            key_id=version.key_id,
            key_version=version.number,
            owner=owner,
            record=record,
            plaintext=plaintext,
        )
        # 6
        await self._release(Operation.ENCRYPT, entry, actor, purpose, grace=grace)
        return envelope

    async def decrypt(
        self,
        ciphertext: bytes,
        *,
        owner: Owner,
        record: str,
        purpose: str | None = None,
        actor: str | None = None,
    ) -> bytes:
        """Open an envelope of an owner and a place.

        1. Who acts, and what for.
        2. The envelope names a key version.
        3. The store has it, and its record is believed.
        4. It belongs to the owner; nothing reaches the vault before this.
        5. Its state permits decryption.
        6. The DEK, from memory or unwrapped.
        7. The ciphertext opens.
        8. The event is durable; only then the plaintext is handed out.

        Args and errors as `encrypt`, and:

        Raises:
            DecryptionFailed: no envelope, unknown key, another owner, or it does not open: on purpose one error.
            AccessDenied: the key's state, or the vault, forbids it.
            KeyRecordRollback: the store shows an older revision than was seen.
        """
        if not self._opened:
            await self.open()
        # 1
        actor, purpose = who_acts(actor, purpose)
        claimed: bytes | None = None
        try:
            # 2
            header = _header(ciphertext)
            claimed = header.key_id
            # 3
            entry = self._cache.get(claimed, header.key_version)
            if entry is None or not self._keyring.fresh(entry):
                entry = await self._keyring.version(claimed, header.key_version)
            if entry is None:
                raise cannot_open(Outcome.FAILED, Reason.UNKNOWN_KEY)
            # 4
            if not compare_digest(entry.version.owner.encode(), owner.encode()):
                raise cannot_open(Outcome.DENIED, Reason.OWNER_MISMATCH, entry.key)
            # 5
            if not self._decrypts(entry.version):
                raise state_forbids(entry.key, "decrypt")
            # 6
            dek, grace = self._keyring.cached_dek(entry), False
            if dek is None:
                dek, grace = await self._keyring.dek(entry, Subject(actor, purpose, owner.ref()))
                entry = await self._keyring.current(entry)
                if not self._decrypts(entry.version):  # it was changed while the vault answered
                    raise state_forbids(entry.key, "decrypt")
            # 7
            plaintext = _opened(dek, ciphertext, owner, record, entry)
        except Refusal as refusal:
            subject = Subject(actor, purpose, owner.ref(), claimed_key_id=claimed.hex() if claimed else None)
            return await self._relay.refuse(Operation.DECRYPT, subject, refusal)
        # 8
        await self._release(Operation.DECRYPT, entry, actor, purpose, grace=grace)
        return plaintext

    # --- the life of keys ------------------------------------------------------------------------------------------

    async def create_key(
        self,
        owner: Owner,
        *,
        actor: str | None = None,
        purpose: str | None = None,
        kek_alias: str | None = None,
    ) -> KeyInfo:
        """Make a key in state pre-activation; `activate` lets it encrypt.

        Raises:
            InvalidTransition: the owner has a key that lives.
            KeyUnavailable, AccessDenied: vault or store failed or refused.
            AuditUnavailable: an event is not durable.
        """
        subject = Subject.of(actor, purpose, owner.ref())
        work = self._lifecycle.create(owner, kek_alias or self._kek_alias, subject)
        return key_info(await self._live(Operation.CREATE, subject, work))

    async def activate(self, key_id: str, *, actor: str | None = None, purpose: str | None = None) -> KeyInfo:
        """Let a key encrypt.

        Raises:
            InvalidTransition: it has no version that waits for it, or the owner has another active key.
        """
        subject = Subject.of(actor, purpose)
        work = self._lifecycle.act(_raw(key_id), KeyAct.ACTIVATE, subject, reason=KeyReason.NONE)
        return key_info((await self._live(Operation.ACTIVATE, subject.claiming(_raw(key_id)), work))[-1])

    async def rotate(
        self,
        owner: Owner,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        retire_at_ms: int = 0,
    ) -> KeyInfo:
        """Give an owner a new version for new data; the one before decrypts until `retire_at_ms` (0: no date).

        Two rotations at once give one new version, which both return.

        Raises:
            InvalidTransition: the owner has no active key.
            KeyUnavailable, AccessDenied: vault or store failed or refused.
        """
        subject = Subject.of(actor, purpose, owner.ref())
        work = self._rotate(owner, reason, subject, retire_at_ms)
        return key_info(await self._live(Operation.ROTATE, subject, work))

    async def revoke(
        self,
        key_id: str,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        version: int | None = None,
        note: str | None = None,
    ) -> list[KeyInfo]:
        """Take a key, or one version of it, out of service for good. Needs the key store only.

        Raises:
            InvalidTransition: there is nothing to revoke.
            KeyUnavailable: the store does not answer.
        """
        return await self._act(key_id, KeyAct.REVOKE, reason, actor=actor, purpose=purpose, version=version, note=note)

    async def suspend(
        self,
        key_id: str,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        version: int | None = None,
        note: str | None = None,
    ) -> list[KeyInfo]:
        """Stop all use of a key until `resume`. Arguments and errors as `revoke`."""
        return await self._act(key_id, KeyAct.SUSPEND, reason, actor=actor, purpose=purpose, version=version, note=note)

    async def resume(
        self,
        key_id: str,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        version: int | None = None,
        note: str | None = None,
    ) -> list[KeyInfo]:
        """End a suspension. Arguments and errors as `revoke`."""
        return await self._act(key_id, KeyAct.RESUME, reason, actor=actor, purpose=purpose, version=version, note=note)

    async def archive(
        self,
        key_id: str,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        version: int | None = None,
        note: str | None = None,
    ) -> list[KeyInfo]:
        """Take a key out of use and keep it. Arguments and errors as `revoke`."""
        return await self._act(key_id, KeyAct.ARCHIVE, reason, actor=actor, purpose=purpose, version=version, note=note)

    async def describe(self, owner: Owner) -> KeyInfo:
        """Say which version encrypts for an owner, or which was the last one; no event, since no key is used.

        Raises:
            AccessDenied: the owner has no key.
            KeyUnavailable: the store does not answer, or is not to be believed.
        """
        try:
            version = await self._keyring.run(self._store.newest, owner)
        except Refusal as refusal:
            raise refusal.public() from None
        if version is None:
            raise AccessDenied("the owner has no key")
        return key_info(version)

    # --- open, relay, close ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the emitter, unless it is, and start the relay; the first use does this when nobody did before."""
        async with self._opening:
            if self._opened:
                return
            if not self._emitter.is_open:
                await self._emitter.open()
                self._owns_emitter = True
            if self._emitter.background:
                self._relay.start()
            self._opened = True

    async def relay(self) -> None:
        """Take life-cycle events from the outbox to the spool, and write the summaries that are due.

        A crash between spool and mark sends an event twice, with the same id and bytes; the monitor drops the second.

        Raises:
            KeyUnavailable: the store does not answer.
            AuditUnavailable: the spool cannot be written; the rows stay.
        """
        await self._relay.run()

    async def close(self) -> None:
        """Finish what is under way, relay, forget every DEK, and close the emitter if it was opened here."""
        if not self._opened:
            self._cache.clear()
            return
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keyring.close()
        await self._relay.stop()
        self._opened = False
        if self._owns_emitter:
            await self._emitter.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- behind it -------------------------------------------------------------------------------------------------

    async def _newest(self, subject: Subject, owner: Owner, *, create_missing: bool) -> Entry:
        entry = await self._keyring.newest(owner)
        if entry is None and create_missing:
            await self._keyring.once(("create", owner.encode()), lambda: self._create_missing(owner, subject))
            entry = await self._keyring.newest(owner)
        if entry is None:
            raise Refusal(Outcome.DENIED, Reason.UNKNOWN_KEY, AccessDenied, "the owner has no key")
        return entry

    async def _create_missing(self, owner: Owner, subject: Subject) -> None:
        try:
            await self._lifecycle.create(owner, self._kek_alias, subject, activate=True)
        except StoreConflict:
            return  # somebody else made it meanwhile
        except Refusal as refusal:
            if refusal.reason is not Reason.KEY_STATE or isinstance(refusal, StoreAway):
                raise
        self._relay.wake()

    async def _rotate(self, owner: Owner, reason: KeyReason, subject: Subject, retire_at_ms: int) -> KeyVersion:
        version, made = await self._lifecycle.rotate(owner, reason, subject, retire_at_ms=retire_at_ms)
        if not made:  # the caller gets what it asked for, and the trail says that it was not made twice
            denied = no_arrow("somebody else rotated meanwhile", key_ref(version))
            event = self._audit.event(
                Operation.ROTATE, subject.about(key_ref(version)), outcome=denied.outcome, reason=denied.reason
            )
            await self._audit.record(event)
        return version

    async def _act(
        self,
        key_id: str,
        act: KeyAct,
        reason: KeyReason,
        *,
        actor: str | None,
        purpose: str | None,
        version: int | None,
        note: str | None,
    ) -> list[KeyInfo]:
        subject = Subject.of(actor, purpose)
        raw = _raw(key_id)
        if reason is KeyReason.NONE:
            raise ConfigurationError(f"to {act} a key needs a reason")
        work = self._lifecycle.act(raw, act, subject, reason=reason, number=version, note=note)
        return [key_info(changed) for changed in await self._live(OPERATIONS[act], subject.claiming(raw), work)]

    async def _live(self, operation: Operation, subject: Subject, work: Coroutine[Any, Any, T]) -> T:
        """Run an act of the life cycle to its end, even when its caller is cancelled meanwhile."""

        async def act() -> T:
            try:
                result = await work
            except Refusal as refusal:
                return await self._relay.refuse(operation, subject, refusal)
            except StoreConflict:
                return await self._relay.refuse(operation, subject, no_arrow("the key was changed meanwhile"))
            self._relay.wake()
            return result

        if not self._opened:
            await self.open()
        task = asyncio.get_running_loop().create_task(act())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: its caller, if still there, has it too

    def _decrypts(self, version: KeyVersion) -> bool:
        record = version.record
        retired = record.retire_at_ms != 0 and self._clock.now_us() // 1000 >= record.retire_at_ms
        return permits(record.state, version.newest, KeyAct.DECRYPT, retired=retired)

    def _release(self, operation: Operation, entry: Entry, actor: str, purpose: str, *, grace: bool) -> Awaitable[None]:
        """Make the event of a use that succeeded durable; when awaited, the result may be handed out."""
        if grace:
            subject = Subject(actor, purpose, entry.owner, entry.key)
            return self._emitter.record(
                self._audit.event(operation, subject, outcome=Outcome.SUCCEEDED, outage_grace=True),
            )
        form = entry.form(operation, actor, purpose, self._emitter)
        return self._emitter.commit((form.fill(new_id(self._ids), rfc3339(self._clock.now_us())),))


def _encrypts(version: KeyVersion) -> bool:
    return permits(version.record.state, version.newest, KeyAct.ENCRYPT)


def _header(ciphertext: bytes) -> Header:
    try:
        return Header.parse(ciphertext)
    except EnvelopeInvalid:
        raise cannot_open(Outcome.FAILED, Reason.PARSE_ERROR) from None


def _opened(dek: bytes, ciphertext: bytes, owner: Owner, record: str, entry: Entry) -> bytes:
    try:
        return decrypt_envelope(dek, ciphertext, owner=owner, record=record)
    except DecryptionFailed:
        raise cannot_open(Outcome.FAILED, Reason.BAD_TAG, entry.key) from None


def _raw(key_id: str) -> bytes:
    """Read a key's id.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        raw = bytes.fromhex(key_id)
    except ValueError:
        raw = b""
    if len(raw) != KEY_ID_SIZE:
        raise ConfigurationError(f"a key id is {2 * KEY_ID_SIZE} hex digits") from None
    return raw
