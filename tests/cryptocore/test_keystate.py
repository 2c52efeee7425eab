"""Revocations that reach a process by the key-state topic: what a message may do, what it may not, and how long."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import TypedDict
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cryptocore import testing
from cryptocore.clock import SystemClock
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, KeyRecordRollback
from cryptocore.kafka import connection
from cryptocore.keys import KeyReason, KeyState
from cryptocore.keystate_kafka import KafkaKeyStates
from cryptocore.records import KeyRecord, SignedRecord, sign_record
from cryptocore.revocations import Heard
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.testing import ALIAS, SERVICE, CoreUnderTest, MemoryTransport, register
from cryptocore.wrapping import LocalKeyWrapper

OWNER = Owner.tenant("t-88", "crm")


class Who(TypedDict):
    actor: str
    purpose: str


WHO: Who = {"actor": "user:4711", "purpose": "test"}


async def encrypted(core: CryptoCore) -> bytes:
    return await core.encrypt(b"token", owner=OWNER, record="row/1", create_missing=True, **WHO)


async def decrypted(core: CryptoCore, ciphertext: bytes) -> bytes:
    return await core.decrypt(ciphertext, owner=OWNER, record="row/1", **WHO)


def said(core: CoreUnderTest, **changes: object) -> tuple[KeyRecord, SignedRecord]:
    """Sign a next record of the only key, that the store does not have."""
    version = core.store.newest(OWNER)
    assert version is not None
    follows = {
        "revision": version.record.revision + 1,
        "previous_record_sha256": sha256(version.signed.record).digest(),
    }
    record = replace(version.record, **follows, **changes)  # type: ignore[arg-type]
    return record, sign_record(record, core.parts.signer)


async def test_a_message_of_a_revocation_drops_the_dek_at_once() -> None:
    async with testing.core() as core:
        await encrypted(core)
        record, signed = said(core, state=KeyState.REVOKED, reason=KeyReason.OPERATOR)
        core.clock.advance(0.02)

        core.parts.states.take(record.topic_key(), signed.encode(), None)

        assert core.parts.cache.get(record.key_id, 1) is None
        [made] = core.revocations()
        assert (made.state, made.revision, made.heard) == (KeyState.REVOKED, record.revision, Heard.TOPIC)
        assert made.after_ms >= 20


async def test_after_such_a_message_a_store_that_shows_less_is_a_rollback() -> None:
    async with testing.core() as core:
        ciphertext = await encrypted(core)
        record, signed = said(core, state=KeyState.REVOKED, reason=KeyReason.OPERATOR)

        core.parts.states.take(record.topic_key(), signed.encode(), None)

        with pytest.raises(KeyRecordRollback):
            await decrypted(core, ciphertext)


async def test_a_message_makes_no_key_usable() -> None:
    async with testing.core() as core:
        ciphertext = await encrypted(core)
        key_id = core.store.newest(OWNER).key_id  # type: ignore[union-attr]
        await core.suspend(key_id.hex(), reason=KeyReason.OPERATOR, **WHO)
        record, signed = said(core, state=KeyState.ACTIVE, reason=KeyReason.OPERATOR)

        core.parts.states.take(record.topic_key(), signed.encode(), None)

        with pytest.raises((AccessDenied, KeyRecordRollback)):
            await decrypted(core, ciphertext)


async def test_a_message_that_nobody_with_the_role_signed_changes_nothing() -> None:
    async with testing.core() as core:
        ciphertext = await encrypted(core)
        record, _ = said(core, state=KeyState.REVOKED, reason=KeyReason.OPERATOR)
        stranger = Signer.generate()
        forged = sign_record(replace(record, signer_id=stranger.signer_id), stranger)
        _, signed = said(core, state=KeyState.REVOKED, reason=KeyReason.OPERATOR)
        altered = signed.encode()[:-1] + bytes([signed.encode()[-1] ^ 1])

        core.parts.states.take(record.topic_key(), forged.encode(), None)
        core.parts.states.take(record.topic_key(), altered, None)
        core.parts.states.take(bytes(20), signed.encode(), None)
        core.parts.states.take(record.topic_key(), b"", None)
        core.parts.states.take(record.topic_key(), bytes(5_000), None)
        core.parts.states.take(record.topic_key(), None, None)

        assert core.parts.states.rejected == 5
        assert await decrypted(core, ciphertext) == b"token"
        assert core.revocations() == []


async def test_a_state_heard_from_the_store_is_measured_as_well() -> None:
    async with testing.core() as core:
        ciphertext = await encrypted(core)
        record, signed = said(core, state=KeyState.REVOKED, reason=KeyReason.OPERATOR)
        version = core.store.newest(OWNER)
        assert version is not None
        revoked = replace(version, record=record, signed=signed)
        core.parts.cache.put(revoked, core.clock.monotonic())

        with pytest.raises(AccessDenied):
            await decrypted(core, ciphertext)
        assert [made.heard for made in core.revocations()] == [Heard.STORE]


def replica(directory: Path, signer: Signer, url: str, bootstrap: str, topic: str) -> CryptoCore:
    registry = register(signer)
    directory.mkdir()
    return CryptoCore(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(url, registry=registry),
        wrappers={ALIAS: WRAPPER},
        kek_alias=ALIAS,
        emitter=Emitter(
            spool_dir=directory,
            signer=signer,
            deployment=registry.deployment,
            service=SERVICE,
            transport=MemoryTransport(),
            partitions=2,
        ),
        key_signer=signer,
        key_states=KafkaKeyStates(connection(bootstrap, security_protocol="PLAINTEXT"), topic),
    )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)


WRAPPER = LocalKeyWrapper(ALIAS, clock=SystemClock())


@pytest.mark.servers
async def test_three_replicas_drop_a_revoked_dek_within_a_second(kafka: str, tmp_path: Path) -> None:
    topic, signer = f"key-state-{uuid4().hex}", Signer.generate()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    rounds = int(os.environ.get("REVOCATIONS", "3"))
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(replica(tmp_path / f"spool{number}", signer, url, kafka, topic))
            for number in range(4)
        ]
        await until(lambda: all(one.parts.states.following for one in replicas))
        revoker, others = replicas[0], replicas[1:]
        windows = []
        for number in range(rounds):
            owner = Owner.tenant(f"t-{number}", "crm")
            ciphertext = await revoker.encrypt(b"x", owner=owner, record="row", create_missing=True, **WHO)
            for one in others:
                assert await one.decrypt(ciphertext, owner=owner, record="row", **WHO) == b"x"
            key_id = revoker.parts.store.newest(owner).key_id  # type: ignore[union-attr]
            await revoker.revoke(key_id.hex(), reason=KeyReason.OPERATOR, **WHO)
            await until(lambda count=number: all(len(one.revocations()) > count for one in others))  # type: ignore[misc]
            windows += [one.revocations()[-1] for one in others]
            for one in others:
                with pytest.raises(AccessDenied):
                    await one.decrypt(ciphertext, owner=owner, record="row", **WHO)

    took = sorted(made.after_ms for made in windows)
    sys.stdout.write(f"revocation window: median {median(took)} ms, most {took[-1]} ms, of {len(took)} drops\n")
    assert len(windows) == 3 * rounds
    assert {made.heard for made in windows} == {Heard.TOPIC}
    assert took[-1] < 14_000  # a busy machine; the next look into the store comes at 15 s only
