"""CryptoCore: encrypt and decrypt, each use with a durable audit event before its result.

What it decides is the order of things: who acts, which key, whose, in which state, the DEK, the event, the result. How
each is done is elsewhere: cache.py and keyring.py, vaultcalls.py, emitter.py; the life of keys in core_keys.py.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hmac import compare_digest
from types import TracebackType
from typing import Any, Self, TypeVar

from cryptocore import forking
from cryptocore.audit import Audit, Refusal, StoreAway, Subject, cannot_open, state_forbids
from cryptocore.cache import CacheLimits, Entry, KeyCache
from cryptocore.clock import Clock, SystemClock, rfc3339
from cryptocore.core_keks import KekCare
from cryptocore.dek import Dek
from cryptocore.emitter import Emitter
from cryptocore.envelope import Header, Owner, decrypt_envelope, encrypt_envelope, place_of
from cryptocore.errors import AccessDenied, ConfigurationError, DecryptionFailed, EnvelopeInvalid
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keyring import Keyring
from cryptocore.keys import KeyAct, permits
from cryptocore.keystate import KeyStates, KeyStateTopic
from cryptocore.life.acts import Acts
from cryptocore.life.lifecycle import LifeCycle
from cryptocore.life.revisions import Revisions
from cryptocore.life.wraps import Wraps
from cryptocore.parts import Parts
from cryptocore.purposes import Purposes
from cryptocore.registry import Registry
from cryptocore.relay import Relay
from cryptocore.revocations import Revocation, Revocations
from cryptocore.signing import Signer
from cryptocore.spool.entries import new_id
from cryptocore.stats import CoreStats, Counts, look
from cryptocore.store.key_store import KeyStore, KeyVersion, StoreConflict
from cryptocore.store.outbox_marks import OutboxMarks
from cryptocore.sync import SyncCore
from cryptocore.throttle import VaultBudget
from cryptocore.vaultcalls import VaultCalls
from cryptocore.wrapping import KeyWrapper, Secret

T = TypeVar("T")


class CryptoCore(KekCare):
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
        purposes: the declared ones; None takes any that is well formed.
        vault_budget: of requests to vaults; None sets no limit.
        key_states: through which revocations reach every process at once; None looks into the store alone.
        let_go: called when the core is closed, to close what was made for it alone.
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
        purposes: Purposes | None = None,
        vault_budget: VaultBudget | None = None,
        key_states: KeyStateTopic | None = None,
        let_go: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if service != emitter.service or deployment != registry.deployment:
            raise ConfigurationError("service and deployment are those of emitter and registry")
        self._emitter = emitter
        self._clock = clock or SystemClock()
        self._ids = ids
        self._audit = Audit(emitter, ids, purposes=purposes)
        self._let_go = let_go
        self.sync = SyncCore(self, emitter)

        def assembled() -> Parts:
            revocations = Revocations(self._clock)
            counts = Counts()
            cache = KeyCache(limits or CacheLimits(), revocations, counts)
            states = KeyStates(key_states, registry=registry, cache=cache, clock=self._clock)
            calls = VaultCalls(self._audit, vault_budget, counts)
            keyring = Keyring(store, cache, calls, wrappers, clock=self._clock, threads=emitter.background)
            marks = OutboxMarks(service, registry, key_signer)
            relay = Relay(store, keyring, self._audit, states, marks=marks, clock=self._clock)
            lifecycle = LifeCycle(
                store=store,
                keyring=keyring,
                wraps=Wraps(keyring, calls),
                revisions=Revisions(registry, key_signer, self._audit, self._clock),
                ids=ids,
            )
            return Parts(
                service=service,
                deployment=deployment,
                registry=registry,
                store=store,
                keyring=keyring,
                cache=cache,
                lifecycle=lifecycle,
                calls=calls,
                audit=self._audit,
                relay=relay,
                states=states,
                revocations=revocations,
                acts=Acts(relay, self.open),
                signer=key_signer,
                wrappers=wrappers,
                kek_alias=kek_alias,
                clock=self._clock,
                ids=ids,
            )

        self._assembled = assembled
        self._start_afresh()
        forking.renew_in_child(self)

    def _start_afresh(self) -> None:
        """Make what belongs to one process: what is remembered, and what is under way."""
        self.parts = self._assembled()
        self._cache, self._keyring, self._relay = self.parts.cache, self.parts.keyring, self.parts.relay
        self._owns_emitter = False
        self._opened = False
        self._opening = asyncio.Lock()

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

    def after_fork(self) -> None:
        """Start afresh in a forked child, with no DEK, no task and no connection of the parent."""
        self._cache.clear()
        forking.keep(self.parts)
        self._start_afresh()

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
            Misuse: no actor, no purpose, or one that is not declared.
            EnvelopeInvalid: plaintext or record beyond their limits.
        """
        if not self._opened:
            held, plaintext = Secret(plaintext), b""  # many a tool prints the variables of an error's frames
            await self.open()
            plaintext = held.reveal()
        # 1
        actor, purpose = self._audit.who_acts(actor, purpose)
        place = place_of(record, plaintext)
        dek: Dek | None = None
        try:
            # 2
            entry = self._cache.newest(owner)
            if entry is None or not self._keyring.fresh(entry) or not entry.version.newest:
                entry = await self._newest(Subject(actor, purpose, owner.ref()), owner, create_missing=create_missing)
            # 3
            _check_encrypts(entry)
            # 4
            dek, grace = self._keyring.cached_dek(entry), False
            while dek is None:
                dek, grace = await self._keyring.dek(entry, Subject(actor, purpose, owner.ref()))
                entry = await self._keyring.current(entry)
                if not _encrypts(entry.version):  # it was changed while the vault answered
                    entry, dek = await self._newest(Subject(actor, purpose), owner, create_missing=False), None
                    _check_encrypts(entry)
            version = entry.version
        except Refusal as refusal:
            dek, plaintext = None, b""
            return await self._relay.refuse(Operation.ENCRYPT, Subject(actor, purpose, owner.ref()), refusal)
        except BaseException:
            dek, plaintext = None, b""
            raise
        # 5
        envelope = encrypt_envelope(
            dek,
            key_id=version.key_id,
            key_version=version.number,
            owner=owner,
            record=place,
            plaintext=plaintext,
        )
        # 6
        dek, plaintext = None, b""
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
        actor, purpose = self._audit.who_acts(actor, purpose)
        place = place_of(record)
        dek: Dek | None = None
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
            plaintext = _opened(dek, ciphertext, owner, place, entry)
        except Refusal as refusal:
            dek = None  # many a tool prints the variables of an error's frames
            subject = Subject(actor, purpose, owner.ref(), claimed_key_id=claimed.hex() if claimed else None)
            return await self._relay.refuse(Operation.DECRYPT, subject, refusal)
        # 8
        dek = None
        try:
            await self._release(Operation.DECRYPT, entry, actor, purpose, grace=grace)
        except BaseException:
            plaintext = b""
            raise
        return plaintext

    # --- open, relay, close ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the emitter, unless it is, and start the relay; the first use does this when nobody did before."""
        async with self._opening:
            if self._opened:
                return
            forking.refuse_green_threads()
            if not self._emitter.is_open:
                await self._emitter.open()
                self._owns_emitter = True
            if self._emitter.background:
                self._relay.start()
                self.parts.states.start()
            self._opened = True

    async def relay(self) -> None:
        """Take life-cycle events from the outbox to the spool, and write the summaries that are due.

        A crash between spool and mark sends an event twice, with the same id and bytes; the monitor drops the second.

        Raises:
            KeyUnavailable: the store does not answer.
            AuditUnavailable: the spool cannot be written; the rows stay.
        """
        await self._relay.run()

    def revocations(self) -> list[Revocation]:
        """List the DEKs that this process dropped because a state forbade their use, and after how long."""
        return self.parts.revocations.last()

    def stats(self) -> CoreStats:
        """Look at what this process did and what waits in it: memory only, on any thread, whether open or not."""
        return look(
            self._emitter,
            self._cache.counts,
            entries=len(self._cache),
            revocations=self.revocations(),
            clock=self._clock,
            is_open=self._opened,
        )

    async def close(self) -> None:
        """Finish what is under way, relay, forget every DEK, and close the emitter if it was opened here."""
        if self._opened:
            await self.parts.acts.finish()
            await self._keyring.close()
            await self._relay.stop()
            await self.parts.states.stop()
            self._opened = False
            if self._owns_emitter:
                await self._emitter.close()
        self._cache.clear()
        if self._let_go is not None:
            await self._let_go()

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
            await self.parts.lifecycle.create(owner, self.parts.kek_alias, subject, activate=True)
        except StoreConflict:
            return  # somebody else made it meanwhile
        except Refusal as refusal:
            if refusal.reason is not Reason.KEY_STATE or isinstance(refusal, StoreAway):
                raise
        self._relay.wake()

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


def _check_encrypts(entry: Entry) -> None:
    if not _encrypts(entry.version):
        raise state_forbids(entry.key, "encrypt")


def _header(ciphertext: bytes) -> Header:
    try:
        return Header.parse(ciphertext)
    except EnvelopeInvalid:
        raise cannot_open(Outcome.FAILED, Reason.PARSE_ERROR) from None


def _opened(dek: Dek, ciphertext: bytes, owner: Owner, place: bytes, entry: Entry) -> bytes:
    try:
        return decrypt_envelope(dek, ciphertext, owner=owner, record=place)
    except DecryptionFailed:
        raise cannot_open(Outcome.FAILED, Reason.BAD_TAG, entry.key) from None
