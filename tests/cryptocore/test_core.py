import asyncio
import logging
import pickle
import sqlite3
import traceback
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cryptocore import testing
from cryptocore.audit import Subject
from cryptocore.cache import CacheLimits
from cryptocore.context import acting
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import (
    AccessDenied,
    AuditUnavailable,
    CoreError,
    DecryptionFailed,
    EventInvalid,
    InvalidTransition,
    KeyRecordRollback,
    KeyUnavailable,
    MissingActor,
    MissingPurpose,
)
from cryptocore.events import (
    AuditEvent,
    KekRef,
    KeyRef,
    Operation,
    Outcome,
    Phase,
    Reason,
    VaultAttempt,
    encode_line,
)
from cryptocore.keys import KeyReason, KeyState
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore, KeyVersion
from cryptocore.testing import CoreUnderTest, MemoryTransport, register
from cryptocore.wrapping import LocalKeyWrapper, Secret, Unwrapped, VaultCallFailed, Wrapped, build_blob

OWNER = Owner.tenant("t-88", "crm")
OTHER = Owner.tenant("t-99", "crm")
RECORD = "tokens/8f3c/access"
SECRET_TEXT = b"planted-plaintext-8f3c"
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}


@pytest.fixture
async def core() -> AsyncIterator[CoreUnderTest]:
    async with testing.core() as tested:
        with acting(actor="user:4711", purpose="crm-sync"):
            yield tested


async def encrypted(core: CryptoCore, plaintext: bytes = b"token", owner: Owner = OWNER) -> bytes:
    return await core.encrypt(
        plaintext, owner=owner, record=RECORD, actor="user:4711", purpose="crm-sync", create_missing=True
    )


async def decrypted(core: CryptoCore, ciphertext: bytes, owner: Owner = OWNER, record: str = RECORD) -> bytes:
    return await core.decrypt(ciphertext, owner=owner, record=record, actor="user:4711", purpose="crm-sync")


def ends(events: list[AuditEvent]) -> list[tuple[Outcome | None, Reason | None]]:
    return [(event.outcome, event.reason) for event in events]


# --- uses


async def test_what_is_encrypted_comes_back_and_both_uses_leave_their_event(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)

    assert await decrypted(core, ciphertext) == b"token"
    (encrypt,) = core.events.only(Operation.ENCRYPT)
    (decrypt,) = core.events.only(Operation.DECRYPT)
    for event in (encrypt, decrypt):
        assert event.outcome is Outcome.SUCCEEDED
        assert event.phase is Phase.SINGLE
        assert (event.actor, event.purpose, event.service) == ("user:4711", "crm-sync", "tested")
        assert event.owner == OWNER.ref()
        assert event.key is not None
        assert (event.key.version, event.key.revision, event.key.state) == (1, 2, KeyState.ACTIVE)
    assert encrypt.id != decrypt.id


async def test_a_vault_call_leaves_an_intent_with_its_call_ids_and_an_outcome_with_its_attempts(
    core: CoreUnderTest,
) -> None:
    await encrypted(core)

    for operation in (Operation.WRAP, Operation.UNWRAP):
        intent, outcome = core.events.only(operation)[:2]
        assert intent.phase is Phase.INTENT
        assert intent.outcome is None
        assert outcome.intent_id == intent.id
        assert {attempt.call_id for attempt in outcome.vault_attempts} <= set(intent.call_ids)
        assert intent.kek == outcome.kek


async def test_a_new_key_is_unwrapped_and_compared_before_its_row_is_written(core: CoreUnderTest) -> None:
    class Swapping(LocalKeyWrapper):
        async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
            other = bytes([blob[-1] ^ 1])
            return await super().wrap(blob[:-1] + other, version=version, call_ids=call_ids)

    core._keyring._wrappers = {testing.ALIAS: Swapping(testing.ALIAS, clock=core.clock)}

    with pytest.raises(KeyUnavailable):
        await core.create_key(OWNER, **ADMIN)
    assert core.store.newest(OWNER) is None
    assert ends(core.events.only(Operation.CREATE)) == [(Outcome.FAILED, Reason.COMMITMENT_MISMATCH)]
    assert core.events.only(Operation.UNWRAP)[-1].reason is Reason.COMMITMENT_MISMATCH


async def test_without_actor_or_purpose_nothing_happens() -> None:
    async with testing.core() as core:
        with pytest.raises(MissingActor):
            await core.encrypt(b"", owner=OWNER, record=RECORD, purpose="crm-sync")
        with pytest.raises(MissingPurpose):
            await core.decrypt(b"", owner=OWNER, record=RECORD, actor="user:1")
        assert list(core.events) == []


async def test_a_malformed_actor_is_refused_before_the_result(core: CoreUnderTest) -> None:
    await encrypted(core)

    with pytest.raises(EventInvalid):
        await core.encrypt(b"", owner=OWNER, record=RECORD, actor="not an actor", purpose="crm-sync")


async def test_every_way_of_not_opening_is_one_error_and_its_event_tells_them_apart(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    await encrypted(core, owner=OTHER)
    unknown = ciphertext[:3] + bytes(16) + ciphertext[19:]
    attempts: list[tuple[bytes, Owner, str]] = [
        (b"KT", OWNER, RECORD),
        (unknown, OWNER, RECORD),
        (ciphertext, OTHER, RECORD),
        (ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), OWNER, RECORD),
        (ciphertext, OWNER, "tokens/other/access"),
    ]
    messages = set()
    for bad, owner, record in attempts:
        with pytest.raises(DecryptionFailed) as caught:
            await decrypted(core, bad, owner, record)
        messages.add(str(caught.value))

    assert len(messages) == 1
    events = core.events.only(Operation.DECRYPT)
    assert ends(events) == [
        (Outcome.FAILED, Reason.PARSE_ERROR),
        (Outcome.FAILED, Reason.UNKNOWN_KEY),
        (Outcome.DENIED, Reason.OWNER_MISMATCH),
        (Outcome.FAILED, Reason.BAD_TAG),
        (Outcome.FAILED, Reason.BAD_TAG),
    ]
    assert events[1].claimed_key_id == bytes(16).hex()
    assert events[2].owner == OTHER.ref()


async def test_nothing_reaches_the_vault_before_the_owner_check(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core.clock.advance(301)
    unwraps = len(core.events.only(Operation.UNWRAP))

    with pytest.raises(DecryptionFailed):
        await decrypted(core, ciphertext, OTHER)
    assert len(core.events.only(Operation.UNWRAP)) == unwraps


async def test_an_owner_without_a_key_is_refused_and_told(core: CoreUnderTest) -> None:
    with pytest.raises(AccessDenied):
        await core.encrypt(b"", owner=OWNER, record=RECORD)
    assert ends(core.events.only(Operation.ENCRYPT)) == [(Outcome.DENIED, Reason.UNKNOWN_KEY)]


async def test_many_callers_make_one_key_and_unwrap_it_once(core: CoreUnderTest) -> None:
    ciphertexts = await asyncio.gather(*(encrypted(core) for _ in range(20)))

    assert len({ciphertext[3:19] for ciphertext in ciphertexts}) == 1
    assert len(core.events.only(Operation.WRAP)) == 2
    assert len(core.events.only(Operation.UNWRAP)) == 4
    assert len(core.events.only(Operation.ENCRYPT)) == 20


# --- nothing without its event


async def test_no_result_without_its_event(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core.transport.down = True

    with pytest.raises(AuditUnavailable):
        await encrypted(core)
    with pytest.raises(AuditUnavailable):
        await decrypted(core, ciphertext)
    core.transport.down = False


async def test_without_a_durable_intent_the_vault_is_not_called(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core.clock.advance(301)
    called: list[str] = []

    class Counting(LocalKeyWrapper):
        async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
            called.append(version)
            return await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)

    core._keyring._wrappers = {testing.ALIAS: Counting(testing.ALIAS)}
    core.transport.down = True

    with pytest.raises(AuditUnavailable):
        await decrypted(core, ciphertext)
    assert called == []
    core.transport.down = False


async def test_a_cancelled_caller_leaves_the_outcome_of_the_vault_call(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core.clock.advance(301)
    slow = Slow(core.wrapper)
    core._keyring._wrappers = {testing.ALIAS: slow}
    task = asyncio.create_task(decrypted(core, ciphertext))
    await slow.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    slow.proceed.set()
    await core._keyring.close()

    assert core.events.only(Operation.UNWRAP)[-1].outcome is Outcome.SUCCEEDED


class Slow(LocalKeyWrapper):
    """Unwraps when it is told to."""

    def __init__(self, inner: LocalKeyWrapper) -> None:
        super().__init__(testing.ALIAS, keys=inner._keys)
        self.entered, self.proceed = asyncio.Event(), asyncio.Event()

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        self.entered.set()
        await self.proceed.wait()
        return await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)


@pytest.mark.parametrize("use", [Operation.ENCRYPT, Operation.DECRYPT])
async def test_a_key_revoked_while_the_vault_answers_is_not_used(core: CoreUnderTest, use: Operation) -> None:
    ciphertext = await encrypted(core)
    core.clock.advance(301)
    slow = Slow(core.wrapper)
    core._keyring._wrappers = {testing.ALIAS: slow}
    task = asyncio.create_task(decrypted(core, ciphertext) if use is Operation.DECRYPT else encrypted(core))
    await slow.entered.wait()
    await core.revoke(ciphertext[3:19].hex(), reason=KeyReason.OPERATOR, **ADMIN)
    slow.proceed.set()

    with pytest.raises(AccessDenied):
        await task
    assert ends(core.events.only(use))[-1] == (Outcome.DENIED, Reason.KEY_STATE)


async def test_a_key_rotated_while_the_vault_answers_gives_way_to_the_new_version(core: CoreUnderTest) -> None:
    await encrypted(core)
    core.clock.advance(301)
    slow = Slow(core.wrapper)
    core._keyring._wrappers = {testing.ALIAS: slow}
    task = asyncio.create_task(encrypted(core))
    await slow.entered.wait()
    core._keyring._wrappers = {testing.ALIAS: core.wrapper}
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    slow.proceed.set()

    assert await decrypted(core, await task) == b"token"
    assert core.events.only(Operation.ENCRYPT)[-1].key.version == 2  # type: ignore[union-attr]


async def test_a_read_that_a_revocation_overtakes_is_no_rollback(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    before = core.store.newest(OWNER)
    await core.revoke(ciphertext[3:19].hex(), reason=KeyReason.OPERATOR, **ADMIN)
    read = core.store.version
    late = [before]

    def overtaken(key_id: bytes, number: int) -> KeyVersion | None:
        return late.pop() if late else read(key_id, number)

    core.store.version = overtaken  # type: ignore[method-assign]

    with pytest.raises(AccessDenied):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.DECRYPT)) == [(Outcome.DENIED, Reason.KEY_STATE)]


async def test_a_vault_call_that_is_itself_cancelled_ends_as_unknown(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core.clock.advance(301)
    entered = asyncio.Event()

    class Hanging(LocalKeyWrapper):
        async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError(wrapped_dek, version, call_ids)

    core._keyring._wrappers = {testing.ALIAS: Hanging(testing.ALIAS)}
    task = asyncio.create_task(decrypted(core, ciphertext))
    await entered.wait()
    for flight in list(core._keyring._flights.values()):
        flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert core.events.only(Operation.UNWRAP)[-1].outcome is Outcome.UNKNOWN


# --- life cycle


async def test_a_created_key_encrypts_once_it_is_activated(core: CoreUnderTest) -> None:
    created = await core.create_key(OWNER, **ADMIN)
    assert created.state is KeyState.PRE_ACTIVATION
    with pytest.raises(AccessDenied):
        await core.encrypt(b"", owner=OWNER, record=RECORD)

    activated = await core.activate(created.key_id, **ADMIN)

    assert activated.state is KeyState.ACTIVE
    await core.encrypt(b"", owner=OWNER, record=RECORD)
    await core.relay()
    assert [event.key.revision for event in core.events if event.key and event.operation in ("create", "activate")] == [
        1,
        2,
    ]


async def test_the_record_holds_the_digest_of_the_very_event_that_is_sent(core: CoreUnderTest) -> None:
    await core.create_key(OWNER, **ADMIN)
    await core.relay()

    (event,) = core.events.only(Operation.CREATE)
    version = core.store.newest(OWNER)
    assert version is not None
    assert version.record.event_sha256 == sha256(encode_line(event)).digest()


async def test_an_owner_has_one_living_key(core: CoreUnderTest) -> None:
    await core.create_key(OWNER, **ADMIN)

    with pytest.raises(InvalidTransition):
        await core.create_key(OWNER, **ADMIN)
    assert ends(core.events.only(Operation.CREATE)) == [(Outcome.DENIED, Reason.KEY_STATE)]


async def test_rotation_gives_a_new_version_and_the_old_one_still_decrypts(core: CoreUnderTest) -> None:
    old = await encrypted(core)

    rotated = await core.rotate(OWNER, reason=KeyReason.TOKEN_REGENERATED, **ADMIN)

    assert rotated.version == 2
    new = await encrypted(core)
    assert int.from_bytes(new[19:23], "big") == 2
    assert await decrypted(core, old) == await decrypted(core, new) == b"token"
    await core.relay()
    (event,) = core.events.only(Operation.ROTATE)
    assert event.reason is Reason.TOKEN_REGENERATED
    assert event.key is not None
    assert (event.key.version, event.key.revision) == (1, 3)


async def test_a_superseded_version_decrypts_until_its_retirement_date(core: CoreUnderTest) -> None:
    old = await encrypted(core)
    retire_at_ms = core.clock.now_us() // 1000 + 60_000
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, retire_at_ms=retire_at_ms, **ADMIN)
    assert await decrypted(core, old) == b"token"

    core.clock.advance(60)

    with pytest.raises(AccessDenied):
        await decrypted(core, old)


async def test_two_rotations_at_once_give_one_new_version(core: CoreUnderTest) -> None:
    await encrypted(core)

    first, second = await asyncio.gather(
        core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN), core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    )

    assert first.version == second.version == 2
    await core.relay()
    assert sorted(event.outcome or "" for event in core.events.only(Operation.ROTATE)) == ["denied", "succeeded"]


async def test_after_a_revocation_nothing_is_decrypted_and_each_try_is_told(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    info = await core.describe(OWNER)

    (revoked,) = await core.revoke(info.key_id, reason=KeyReason.COMPROMISE_SUSPECTED, note="leaked backup", **ADMIN)

    assert revoked.state is KeyState.REVOKED
    for use in (decrypted(core, ciphertext), encrypted(core)):
        with pytest.raises(AccessDenied):
            await use
    assert ends(core.events.only(Operation.DECRYPT)) == [(Outcome.DENIED, Reason.KEY_STATE)]
    event = core.events.only(Operation.DECRYPT)[0]
    assert event.key is not None
    assert (event.key.state, event.key.revision) == (KeyState.REVOKED, 3)


async def test_restrictive_acts_need_neither_spool_nor_vault(core: CoreUnderTest) -> None:
    await encrypted(core)
    info = await core.describe(OWNER)
    core.transport.down = True
    core._keyring._wrappers = {}

    await core.suspend(info.key_id, reason=KeyReason.OPERATOR, **ADMIN)
    await core.resume(info.key_id, reason=KeyReason.OPERATOR, **ADMIN)
    await core.suspend(info.key_id, reason=KeyReason.OPERATOR, **ADMIN)
    await core.archive(info.key_id, reason=KeyReason.OFFBOARDED, **ADMIN)
    await core.revoke(info.key_id, reason=KeyReason.OFFBOARDED, **ADMIN)

    assert (await core.describe(OWNER)).state is KeyState.REVOKED
    core.transport.down = False
    await core.relay()
    assert [event.key.revision for event in core.events if event.key and event.operation in ("suspend", "revoke")] == [
        3,
        5,
        7,
    ]


async def test_nothing_leads_from_revoked_back_to_active(core: CoreUnderTest) -> None:
    await encrypted(core)
    info = await core.describe(OWNER)
    await core.revoke(info.key_id, reason=KeyReason.OPERATOR, **ADMIN)

    for act in (core.resume, core.suspend, core.archive, core.revoke):
        with pytest.raises(InvalidTransition):
            await act(info.key_id, reason=KeyReason.OPERATOR, **ADMIN)
    with pytest.raises(InvalidTransition):
        await core.activate(info.key_id, **ADMIN)
    with pytest.raises(InvalidTransition):
        await core.rotate(OWNER, reason=KeyReason.OPERATOR, **ADMIN)


async def test_a_cancelled_rotation_is_finished_all_the_same(core: CoreUnderTest) -> None:
    await encrypted(core)
    task = asyncio.create_task(core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await core.parts.acts.finish()

    assert (await core.describe(OWNER)).version == 2


async def test_the_outbox_is_relayed_again_with_the_same_bytes_when_its_mark_was_lost(core: CoreUnderTest) -> None:
    await core.create_key(OWNER, **ADMIN)
    rows = core.store.outbox("tested", 10)
    await core.relay()
    core._relay.wake()
    core.store.transaction(lambda connection: connection.exec_driver_sql("UPDATE audit_outbox SET sent_ms = NULL"))
    await core.relay()

    events = core.events.only(Operation.CREATE)
    assert len(events) == 2
    assert encode_line(events[0]) == encode_line(events[1]) == rows[0].line
    assert core.store.outbox("tested", 10) == []


# --- what is remembered


async def test_another_process_revocation_is_seen_at_the_next_recheck(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    async with testing.core(store_url=url) as core:
        ciphertext = await encrypted(core)
        other = KeyStore(url, registry=core.registry)
        core.clock.advance(14)
        assert await decrypted(core, ciphertext) == b"token"
        revoke_elsewhere(core, other)

        assert await decrypted(core, ciphertext) == b"token"
        core.clock.advance(1)
        with pytest.raises(AccessDenied):
            await decrypted(core, ciphertext)
        other.close()


def revoke_elsewhere(core: CoreUnderTest, store: KeyStore) -> None:
    """Revoke with the same signer through another connection."""
    version = store.newest(OWNER)
    assert version is not None
    from cryptocore.audit import Subject  # noqa: PLC0415
    from cryptocore.keys import KeyAct  # noqa: PLC0415

    change = core.parts.lifecycle.revisions.next(
        version, KeyAct.REVOKE, KeyReason.OPERATOR, Subject("user:1", "elsewhere")
    )
    store.apply([change])


async def test_without_the_store_use_ends_after_a_minute(tmp_path: Path) -> None:
    there, away = tmp_path / "there", tmp_path / "away"
    there.mkdir()
    async with testing.core(store_url=f"sqlite:///{there / 'keys.sqlite'}") as core:
        ciphertext = await encrypted(core)
        core.store.close()
        there.rename(away)

        core.clock.advance(59)
        assert await decrypted(core, ciphertext) == b"token"
        core.clock.advance(1)
        with pytest.raises(KeyUnavailable) as caught:
            await decrypted(core, ciphertext)
        assert caught.value.retryable
        away.rename(there)
        core.clock.advance(2)
        assert await decrypted(core, ciphertext) == b"token"


async def test_a_dek_is_unwrapped_again_after_its_age_and_after_its_uses() -> None:
    async with testing.core(limits=CacheLimits(dek_max_uses=3)) as core:
        ciphertext = await encrypted(core)
        before = len(core.events.only(Operation.UNWRAP))
        for _ in range(2):
            await decrypted(core, ciphertext)
        assert len(core.events.only(Operation.UNWRAP)) == before
        await decrypted(core, ciphertext)
        assert len(core.events.only(Operation.UNWRAP)) == before + 2
        core.clock.advance(300)
        await decrypted(core, ciphertext)
        assert len(core.events.only(Operation.UNWRAP)) == before + 4


async def test_no_more_entries_are_kept_than_allowed() -> None:
    async with testing.core(limits=CacheLimits(dek_max_entries=2)) as core:
        for number in range(5):
            await encrypted(core, owner=Owner.secret(f"secret-{number}"))
        assert len(core._cache._entries) == 2
        assert len(core._cache._newest) == 2


async def test_in_an_outage_of_the_vault_a_dek_lives_on_and_each_use_says_so(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core._keyring._wrappers = {testing.ALIAS: Failing(Reason.VAULT_UNREACHABLE)}
    core.clock.advance(300)
    assert await decrypted(core, ciphertext) == b"token"
    assert core.events.only(Operation.DECRYPT)[-1].outage_grace

    core.clock.advance(1_800)
    with pytest.raises(KeyUnavailable):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.DECRYPT))[-1] == (Outcome.FAILED, Reason.VAULT_UNREACHABLE)


async def test_a_vault_that_denies_ends_a_dek_at_once(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core._keyring._wrappers = {testing.ALIAS: Failing(Reason.VAULT_DENIED)}
    core.clock.advance(300)

    with pytest.raises(AccessDenied):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.UNWRAP))[-1] == (Outcome.DENIED, Reason.VAULT_DENIED)
    assert ends(core.events.only(Operation.DECRYPT)) == [(Outcome.DENIED, Reason.VAULT_DENIED)]


async def test_a_failing_vault_is_asked_once_a_second_and_every_caller_leaves_his_event(core: CoreUnderTest) -> None:
    ciphertext = await encrypted(core)
    core.clock.advance(3_000)
    core._keyring._wrappers = {testing.ALIAS: Failing(Reason.VAULT_UNREACHABLE)}
    before = len(core.events.only(Operation.UNWRAP))

    for _ in range(5):
        with pytest.raises(KeyUnavailable):
            await decrypted(core, ciphertext)
    assert len(core.events.only(Operation.UNWRAP)) == before + 2
    assert len(core.events.only(Operation.DECRYPT)) == 5
    core.clock.advance(1)
    with pytest.raises(KeyUnavailable):
        await decrypted(core, ciphertext)
    assert len(core.events.only(Operation.UNWRAP)) == before + 4


class Failing(LocalKeyWrapper):
    """A KEK that does not unwrap; what it raises would show the blob, were it chained."""

    def __init__(self, reason: Reason | None) -> None:
        super().__init__(testing.ALIAS)
        self._reason = reason

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        if self._reason is None:
            raise RuntimeError(f"request body: {SECRET_TEXT!r} {wrapped_dek!r} {version} {call_ids}")
        raise VaultCallFailed(self._reason, (), retryable=True)


# --- a store that is not to be trusted


@pytest.fixture
async def on_file(tmp_path: Path) -> AsyncIterator[tuple[CoreUnderTest, Callable[..., None]]]:
    path = tmp_path / "keys.sqlite"

    def tamper(*statements: str, values: tuple[object, ...] = ()) -> None:
        connection = sqlite3.connect(path)
        for trigger in ("key_version_step", "key_version_first", "key_history_UPDATE", "key_history_DELETE"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            connection.execute(statement, values)
        connection.commit()
        connection.close()

    async with testing.core(store_url=f"sqlite:///{path}") as core:
        yield core, tamper


Tampered = tuple[CoreUnderTest, Callable[..., None]]


async def test_a_row_changed_back_from_revoked_is_refused_as_invalid(on_file: Tampered) -> None:
    core, tamper = on_file
    ciphertext = await encrypted(core)
    await core.revoke((await core.describe(OWNER)).key_id, reason=KeyReason.OPERATOR, **ADMIN)
    core.clock.advance(16)

    tamper("UPDATE key_version SET state = 'active'")

    with pytest.raises(KeyUnavailable):
        await decrypted(core, ciphertext)
    with pytest.raises(KeyUnavailable):
        await encrypted(core)
    event = core.events.only(Operation.DECRYPT)[0]
    assert (event.outcome, event.reason, event.key) == (Outcome.FAILED, Reason.RECORD_INVALID, None)
    assert event.claimed_key_id == ciphertext[3:19].hex()


async def test_an_older_revision_put_back_is_refused_by_its_history(on_file: Tampered) -> None:
    core, tamper = on_file
    ciphertext = await encrypted(core)
    await core.revoke((await core.describe(OWNER)).key_id, reason=KeyReason.OPERATOR, **ADMIN)
    core._cache._seen.clear()

    tamper(
        "UPDATE key_version SET state = 'active', revision = 2,"
        " (record, signature) = (SELECT record, signature FROM key_history WHERE revision = 2)"
    )

    with pytest.raises(KeyRecordRollback):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.DECRYPT)) == [(Outcome.DENIED, Reason.RECORD_ROLLBACK)]


async def test_an_older_revision_put_back_with_its_history_is_refused_by_who_saw_the_later_one(
    on_file: Tampered,
) -> None:
    core, tamper = on_file
    ciphertext = await encrypted(core)
    await core.revoke((await core.describe(OWNER)).key_id, reason=KeyReason.OPERATOR, **ADMIN)

    tamper(
        "UPDATE key_version SET state = 'active', revision = 2,"
        " (record, signature) = (SELECT record, signature FROM key_history WHERE revision = 2)",
        "DELETE FROM key_history WHERE revision = 3",
    )

    with pytest.raises(KeyRecordRollback):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.DECRYPT)) == [(Outcome.DENIED, Reason.RECORD_ROLLBACK)]


async def test_a_dek_inserted_by_a_database_writer_is_refused(on_file: Tampered) -> None:
    core, tamper = on_file
    ciphertext = await encrypted(core)
    chosen = build_blob(bytes(32), 1, ciphertext[3:19], 1, OWNER)  # type: ignore[arg-type]
    public_key = core.wrapper._keys["1"].public_key()
    from cryptocore.wrapping import _OAEP  # noqa: PLC0415

    core.clock.advance(16)
    tamper("UPDATE key_version SET wrapped_dek = ?", values=(public_key.encrypt(chosen, _OAEP),))

    with pytest.raises(KeyUnavailable):
        await encrypted(core)
    assert ends(core.events.only(Operation.ENCRYPT))[-1] == (Outcome.FAILED, Reason.RECORD_INVALID)


async def test_a_record_signed_by_somebody_without_the_role_is_refused(on_file: Tampered) -> None:
    core, tamper = on_file
    await encrypted(core)
    version = core.store.newest(OWNER)
    assert version is not None
    forged = Signer.generate().sign("keytrail/key-record/v1", version.signed.record)
    core.clock.advance(16)

    tamper("UPDATE key_version SET signature = ?", values=(forged,))

    with pytest.raises(KeyUnavailable):
        await encrypted(core)


def claimed_unwrap() -> bytes:
    """An outcome that would account for somebody's own call of the vault."""
    call_id, intent_id = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    event = AuditEvent(
        id="33333333-3333-4333-8333-333333333333",
        phase=Phase.OUTCOME,
        operation=Operation.UNWRAP,
        outcome=Outcome.SUCCEEDED,
        occurred_at=testing.START,
        service=testing.SERVICE,
        key=KeyRef(id="aa" * 16, version=1, kind="dek"),
        owner=OWNER.ref(),
        kek=KekRef(vault="local", name="local-kek", version="1"),
        actor="user:4711",
        purpose="crm-sync",
        intent_id=intent_id,
        vault_attempts=(VaultAttempt(call_id=call_id, started_at=testing.START, ended_at=testing.START),),
    )
    return encode_line(event)


@pytest.mark.parametrize("line", [claimed_unwrap(), b"no event", b'{"v":1,"type":"heartbeat"}', "text"])
async def test_a_line_put_into_the_outbox_by_a_database_writer_is_not_sealed(on_file: Tampered, line: object) -> None:
    core, tamper = on_file
    await encrypted(core)
    await core.relay()

    tamper(
        "INSERT INTO audit_outbox (event_id, service, line) VALUES ('forged', 'tested', ?)",
        values=(line,),
    )
    core._relay.wake()
    await core.relay()

    assert core.events.only(Operation.UNWRAP)[-1].intent_id != "22222222-2222-4222-8222-222222222222"
    assert ends(list(core.events))[-1] == (Outcome.FAILED, Reason.RECORD_INVALID)
    assert core.store.outbox("tested", 10) == []
    told = len(list(core.events))
    await core.relay()
    assert len(list(core.events)) == told


async def test_a_life_cycle_event_that_its_record_does_not_hold_is_not_sealed(on_file: Tampered) -> None:
    core, tamper = on_file
    await core.create_key(OWNER, **ADMIN)

    tamper("UPDATE audit_outbox SET line = CAST(replace(line, 'user:1001', 'user:9999') AS BLOB)")
    await core.relay()

    assert ends(core.events.only(Operation.CREATE)) == [(Outcome.FAILED, Reason.RECORD_INVALID)]


@pytest.mark.parametrize("column", ["record", "signature", "owner", "wrapped_dek"])
async def test_a_value_of_another_type_in_a_row_is_refused_as_invalid(on_file: Tampered, column: str) -> None:
    core, tamper = on_file
    ciphertext = await encrypted(core)
    core.clock.advance(16)

    tamper(f"UPDATE key_version SET {column} = 'text'")

    with pytest.raises(KeyUnavailable):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.DECRYPT))[-1] == (Outcome.FAILED, Reason.RECORD_INVALID)


async def test_a_signed_step_from_revoked_back_to_active_is_refused_by_who_saw_the_revocation(
    core: CoreUnderTest,
) -> None:
    ciphertext = await encrypted(core)
    await core.revoke((await core.describe(OWNER)).key_id, reason=KeyReason.OPERATOR, **ADMIN)
    with pytest.raises(AccessDenied):
        await decrypted(core, ciphertext)
    revoked = core.store.newest(OWNER)
    assert revoked is not None
    after = {"state": KeyState.ACTIVE}
    who = Subject(ADMIN["actor"], ADMIN["purpose"])
    core.store.apply([core.parts.lifecycle.revisions.change(revoked, after, Operation.RESUME, who)])
    core.clock.advance(16)

    with pytest.raises(KeyUnavailable):
        await decrypted(core, ciphertext)
    assert ends(core.events.only(Operation.DECRYPT))[-1] == (Outcome.FAILED, Reason.RECORD_INVALID)


# --- floods


async def test_a_flood_of_failures_that_touch_no_dek_is_counted_exactly(core: CoreUnderTest) -> None:
    for _ in range(250):
        with pytest.raises(DecryptionFailed):
            await decrypted(core, b"no envelope")
    core.clock.advance(60)
    await core.relay()

    told = core.events.only(Operation.DECRYPT)
    (summary,) = core.events.only(Operation.SUMMARY)
    assert len(told) == 100
    assert [(line.reason, line.count) for line in summary.counts] == [(Reason.PARSE_ERROR, 150)]
    assert summary.actor == "user:4711"
    core.clock.advance(60)
    await core.relay()
    assert len(core.events.only(Operation.SUMMARY)) == 1


# --- secrets


async def test_no_secret_is_in_errors_or_logs(core: CoreUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ciphertext = await encrypted(core, SECRET_TEXT)
    entry = core._cache.newest(OWNER)
    assert entry is not None
    assert entry.dek is not None
    version, dek = entry.version, entry.dek.reveal()
    errors: list[BaseException] = []

    async def fails(work: Any) -> None:
        with pytest.raises(CoreError) as caught:
            await work
        errors.append(caught.value)

    await fails(decrypted(core, ciphertext, OTHER))
    await fails(decrypted(core, ciphertext, record="elsewhere"))
    core._keyring._wrappers = {testing.ALIAS: Failing(None)}
    core.clock.advance(3_000)
    await fails(decrypted(core, ciphertext))
    core.store.transaction(lambda connection: connection.exec_driver_sql("DROP TABLE key_history"))
    core.clock.advance(3_000)
    await fails(decrypted(core, ciphertext))
    with pytest.raises(CoreError) as broken:
        core.store.version(version.key_id, 1)
    errors.append(broken.value)

    seen = [
        caplog.text,
        repr(entry.dek),
        repr(version),
        repr(entry),
        *(encode_line(event).decode() for event in core.events),
    ]
    for error in errors:
        for link in chain_of(error):
            seen += [repr(link), *traceback.format_exception(link)]
    text = "\n".join(seen)
    for planted in (SECRET_TEXT, dek, version.wrapped_dek, version.record.commitment):
        for form in (planted, planted.hex().encode(), repr(planted)[2:-1].encode()):
            assert form.decode("latin-1") not in text
    with pytest.raises(TypeError):
        pickle.dumps(Secret(dek))


def chain_of(error: BaseException | None) -> list[BaseException]:
    """Walk causes and contexts, those that `from None` only hides too."""
    links: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and link not in links:
            links.append(link)
            waiting += [link.__cause__, link.__context__]
    return links


# --- real threads, real clock


async def test_in_the_background_life_cycle_events_reach_the_log_by_themselves(tmp_path: Path) -> None:
    signer, transport = Signer.generate(), MemoryTransport()
    registry = register(signer)
    store = KeyStore(f"sqlite:///{tmp_path / 'keys.sqlite'}", registry=registry)
    core = CryptoCore(
        service="tested",
        deployment=registry.deployment,
        registry=registry,
        store=store,
        wrappers={"kek": LocalKeyWrapper("kek")},
        kek_alias="kek",
        emitter=Emitter(
            spool_dir=tmp_path / "spool",
            signer=signer,
            deployment=registry.deployment,
            service="tested",
            transport=transport,
            partitions=2,
            linger_ms=1,
        ),
        key_signer=signer,
    )
    with acting("user:1", "test"):
        ciphertexts = await asyncio.gather(*(encrypted(core) for _ in range(100)))
        await asyncio.gather(*(decrypted(core, ciphertext) for ciphertext in ciphertexts))
    await core.close()

    events = list(testing.Events(transport, registry))
    assert len([event for event in events if event.operation in ("create", "activate")]) == 2
    assert len([event for event in events if event.operation is Operation.DECRYPT]) == 100
    assert transport.closed
    store.close()
