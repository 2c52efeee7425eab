"""What a writer of the key store can do to it: refused by the service, and found and named by the monitor."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from alerts.model import Finding
from cryptocore import testing
from cryptocore.batch import Seal
from cryptocore.envelope import Owner, Suite
from cryptocore.errors import CoreError, KeyRecordRollback, KeyUnavailable
from cryptocore.events import Head, Operation, Reason
from cryptocore.keys import KeyReason
from cryptocore.signing import KEY_RECORD, Signer
from cryptocore.testing import CoreUnderTest
from cryptocore.wrapping import _OAEP, build_blob
from streams.presence.sources import SourcesStep
from streams.trail.keys import KeysStep
from tests.streams.builders import Monitor, Sent

OWNER = Owner.tenant("t-88", "crm")
WHO: dict[str, Any] = {"actor": "user:4711", "purpose": "crm-sync"}
PLACE: dict[str, Any] = {"owner": OWNER, "record": "tokens/1", **WHO}
TRIGGERS = ("key_version_step", "key_version_first", "key_version_DELETE", "key_history_UPDATE", "key_history_DELETE")
BACK_TO_ACTIVE = (
    "UPDATE key_version SET state = 'active', revision = 2,"
    " (record, signature) = (SELECT record, signature FROM key_history WHERE revision = 2)"
)
WITHOUT_THE_REVOCATION = "DELETE FROM key_history WHERE revision = 3"


class Attacked:
    """A service, its key store under somebody else's hands, and the monitor of its events."""

    def __init__(self, core: CoreUnderTest, path: Path) -> None:
        self.core = core
        self._path = path
        self._monitor = Monitor()
        self._monitor.registry = core.registry
        self._monitor.now_ms = core.clock.now_us() // 1000
        self._monitor.steps = [
            KeysStep(registry=core.registry, limits=self._monitor.limits, generation=1, partition=number)
            for number in range(2)
        ]
        self._monitor.sources = SourcesStep(registry=core.registry, limits=self._monitor.limits)
        self._monitor.restore()
        self._read = 0

    async def a_token(self) -> bytes:
        ciphertext = await self.core.encrypt(b"token", create_missing=True, **PLACE)
        await self.core.relay()
        return ciphertext

    async def revoke(self) -> None:
        key_id = (await self.core.describe(OWNER)).key_id
        await self.core.revoke(key_id, reason=KeyReason.COMPROMISE_SUSPECTED, **WHO)
        await self.core.relay()

    def tamper(self, *statements: str, values: tuple[object, ...] = ()) -> None:
        """Do what the owner of the database can: triggers go first."""
        connection = sqlite3.connect(self._path)
        for statement in (*(f"DROP TRIGGER IF EXISTS {name}" for name in TRIGGERS), *statements):
            connection.execute(statement, values if "?" in statement else ())
        connection.commit()
        connection.close()
        self.core.clock.advance(16)  # past the recheck

    def restart(self) -> None:
        """Let the service forget all that it has seen, as a new process has."""
        self.core._cache.clear()
        self.core._cache._seen.clear()
        self.core._cache._announced.clear()

    def found(self) -> dict[str, int]:
        batches = self.core.transport.batches
        for partition, batch in batches[self._read :]:
            seal = Seal.decode(batch.seal)
            head = Head(generation=1, partition=partition, sequence=seal.sequence, digest="0" * 64)
            self._monitor.take(Sent(partition, batch, head), append_ms=seal.sealed_at_ms)
        self._read = len(batches)
        return self._monitor.found()

    def finding(self) -> Finding:
        return self._monitor.findings()[-1].finding


@pytest.fixture
async def attacked(tmp_path: Path) -> AsyncIterator[Attacked]:
    path = tmp_path / "keys.sqlite"
    async with testing.core(store_url=f"sqlite:///{path}") as core:
        yield Attacked(core, path)


async def test_without_tampering_nothing_is_found(attacked: Attacked) -> None:
    ciphertext = await attacked.a_token()
    assert await attacked.core.decrypt(ciphertext, **PLACE) == b"token"
    await attacked.revoke()

    assert attacked.found() == {}


async def test_a_key_row_changed_back_from_revoked_is_found(attacked: Attacked) -> None:
    ciphertext = await attacked.a_token()
    await attacked.revoke()

    attacked.tamper("UPDATE key_version SET state = 'active'")

    with pytest.raises(KeyUnavailable):
        await attacked.core.decrypt(ciphertext, **PLACE)
    assert attacked.core.events.only(Operation.DECRYPT)[-1].reason is Reason.RECORD_INVALID
    assert attacked.found() == {"key_record_invalid": 1}
    assert "tested" in attacked.finding().summary
    assert attacked.finding().key == ciphertext[3:19].hex()  # the key that the envelope names


@pytest.mark.parametrize("history", [(), (WITHOUT_THE_REVOCATION,)], ids=["its history stays", "its history goes too"])
async def test_the_record_before_a_revocation_put_back_is_a_regression(
    attacked: Attacked, history: tuple[str, ...]
) -> None:
    ciphertext = await attacked.a_token()
    await attacked.revoke()

    attacked.tamper(BACK_TO_ACTIVE, *history)

    with pytest.raises(KeyRecordRollback):
        await attacked.core.decrypt(ciphertext, **PLACE)
    assert attacked.found() == {"key_state_regression": 1}


async def test_what_a_new_process_cannot_know_the_monitor_does(attacked: Attacked) -> None:
    ciphertext = await attacked.a_token()
    await attacked.revoke()

    attacked.tamper(BACK_TO_ACTIVE, WITHOUT_THE_REVOCATION)
    attacked.restart()
    attacked.core.clock.advance(300)

    assert await attacked.core.decrypt(ciphertext, **PLACE) == b"token"  # its store shows a whole, older truth
    assert attacked.found() == {"revoked_key_decrypt": 1}  # one alert: its revision is from before the revocation


async def test_a_dek_inserted_by_a_database_writer_is_found(attacked: Attacked) -> None:
    ciphertext = await attacked.a_token()
    chosen = build_blob(bytes(32), Suite.XAES_256_GCM, ciphertext[3:19], 1, OWNER)
    public_key = attacked.core.wrapper._keys["1"].public_key()

    attacked.tamper("UPDATE key_version SET wrapped_dek = ?", values=(public_key.encrypt(chosen, _OAEP),))

    with pytest.raises(KeyUnavailable):
        await attacked.core.encrypt(b"token", **PLACE)
    assert attacked.core.events.only(Operation.ENCRYPT)[-1].reason is Reason.RECORD_INVALID
    assert attacked.found() == {"key_record_invalid": 1}


FORGERIES: dict[str, Callable[[bytes], tuple[str, tuple[object, ...]]]] = {
    "a record signed by a stranger": lambda record: (
        "UPDATE key_version SET signature = ?",
        (Signer.generate().sign(KEY_RECORD, record),),
    ),
    "the row of another owner": lambda _: (
        "UPDATE key_version SET owner = ?",
        (Owner.tenant("t-99", "crm").encode(),),
    ),
    "another KEK": lambda _: ("UPDATE key_version SET kek_alias = ?", ("attackers-kek",)),
    "a later retirement": lambda _: ("UPDATE key_version SET retire_at_ms = ?", (1,)),
    "a text where bytes belong": lambda _: ("UPDATE key_version SET record = ?", ("text",)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_row_that_its_record_does_not_bear_out_is_found(attacked: Attacked, forgery: str) -> None:
    ciphertext = await attacked.a_token()
    version = attacked.core.store.newest(OWNER)
    assert version is not None
    statement, values = FORGERIES[forgery](version.signed.record)

    attacked.tamper(statement, values=values)

    with pytest.raises(CoreError):
        await attacked.core.decrypt(ciphertext, **PLACE)
    assert attacked.found() == {"key_record_invalid": 1}


async def test_a_line_put_into_the_outbox_is_found_and_never_sealed(attacked: Attacked) -> None:
    await attacked.a_token()

    attacked.tamper(
        "INSERT INTO audit_outbox (event_id, service, line)"
        " SELECT 'x', service, CAST(replace(line, 'user:4711', 'user:9999') AS BLOB) FROM audit_outbox LIMIT 1"
    )
    attacked.core.clock.advance(61)
    await attacked.core.relay()

    assert attacked.found() == {"key_record_invalid": 1}
