import asyncio
import sqlite3
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import inspect

from cryptocore.clock import parse_rfc3339
from cryptocore.envelope import Owner, Suite
from cryptocore.errors import KeyUnavailable, RecordInvalid
from cryptocore.keys import KeyReason, KeyState
from cryptocore.records import NO_PREVIOUS, KeyRecord, sign_record
from cryptocore.signing import Signer
from cryptocore.store import Change, KeyStore, KeyVersion, StoreConflict
from cryptocore.testing import START, register
from cryptocore.wrapping import WrapAlgorithm

SIGNER = Signer.generate()
REGISTRY = register(SIGNER)
OWNER = Owner.tenant("t-88", "crm")
WRAPPED = b"wrapped"


def record(number: int = 1, *, state: KeyState = KeyState.ACTIVE, previous: KeyVersion | None = None) -> KeyRecord:
    return KeyRecord(
        deployment=REGISTRY.deployment,
        key_id=b"k" * 16,
        key_version=number,
        revision=1 if previous is None else previous.record.revision + 1,
        state=state,
        reason=KeyReason.OPERATOR,
        suite=Suite.XAES_256_GCM,
        owner_sha256=OWNER.digest(),
        kek_alias="kek",
        kek_version="1",
        wrap_alg=WrapAlgorithm.LOCAL,
        wrapped_dek_sha256=sha256(WRAPPED).digest(),
        commitment=bytes(32),
        changed_at_ms=parse_rfc3339(START) // 1000,
        superseded_by=0,
        retire_at_ms=0,
        previous_record_sha256=NO_PREVIOUS if previous is None else sha256(previous.signed.record).digest(),
        event_sha256=bytes(32),
        signer_id=SIGNER.signer_id,
    )


def change(made: KeyRecord, event_id: str, signer: Signer = SIGNER) -> Change:
    version = KeyVersion(made, sign_record(made, signer), OWNER, WRAPPED)
    return Change(version=version, event_id=event_id, service="billing", line=event_id.encode())


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(f"sqlite:///{tmp_path / 'keys.sqlite'}", registry=REGISTRY)


def test_nothing_is_opened_before_the_first_use(tmp_path: Path, store: KeyStore) -> None:
    assert list(tmp_path.iterdir()) == []
    assert store.newest(OWNER) is None
    assert (tmp_path / "keys.sqlite").exists()
    store.close()


def test_a_revision_its_history_and_its_event_are_written_together(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])
    store.apply([change(record(state=KeyState.SUSPENDED, previous=first.version), "two")])

    version = store.version(b"k" * 16, 1)
    assert version is not None
    assert (version.record.revision, version.record.state) == (2, KeyState.SUSPENDED)
    assert [row.line for row in store.outbox("billing", 10)] == [b"one", b"two"]
    assert store.outbox("crm", 10) == []
    store.close()


def test_a_conflict_writes_nothing(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])
    store.apply([change(record(state=KeyState.SUSPENDED, previous=first.version), "two")])

    with pytest.raises(StoreConflict):
        store.apply(
            [change(record(2), "three"), change(record(state=KeyState.REVOKED, previous=first.version), "four")]
        )
    assert len(store.versions(b"k" * 16)) == 1
    assert len(store.outbox("billing", 10)) == 2
    store.close()


def test_an_owner_has_one_newest_active_version(store: KeyStore) -> None:
    store.apply([change(record(), "one")])

    with pytest.raises(StoreConflict):
        store.apply([change(record(2), "two")])
    store.close()


async def test_of_changes_raced_by_many_threads_one_wins(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])

    def race(number: int) -> bool:
        try:
            store.apply([change(record(state=KeyState.REVOKED, previous=first.version), f"race-{number}")])
        except StoreConflict:
            return False
        return True

    assert sum(await asyncio.gather(*(asyncio.to_thread(race, number) for number in range(12)))) == 1
    store.close()


def test_a_relayed_row_does_not_come_again(store: KeyStore) -> None:
    store.apply([change(record(), "one")])
    rows = store.outbox("billing", 10)

    store.relayed(rows, now_ms=1)

    assert store.outbox("billing", 10) == []
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE key_version SET revision = revision + 2",
        "UPDATE key_version SET state = 'suspended'",
        "UPDATE key_version SET revision = revision + 1, owner = x'00'",
        "DELETE FROM key_version",
        "UPDATE key_history SET record = x'00'",
        "DELETE FROM key_history",
    ],
)
def test_the_triggers_refuse_what_our_own_code_never_does(store: KeyStore, tmp_path: Path, statement: str) -> None:
    store.apply([change(record(), "one")])
    store.close()
    connection = sqlite3.connect(tmp_path / "keys.sqlite")

    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()


def test_a_record_of_a_signer_without_the_role_is_not_believed(store: KeyStore) -> None:
    stranger = Signer.generate()
    made = record()
    signed = sign_record(KeyRecord.decode(made.encode()[:-16] + stranger.signer_id), stranger)
    store.apply([Change(KeyVersion(made, signed, OWNER, WRAPPED), "one", "billing", b"one")])

    with pytest.raises(RecordInvalid):
        store.version(b"k" * 16, 1)
    store.close()


def test_a_store_that_cannot_be_opened_is_unavailable_and_shows_no_values(tmp_path: Path) -> None:
    store = KeyStore(f"sqlite:///{tmp_path / 'missing' / 'keys.sqlite'}", registry=REGISTRY)

    with pytest.raises(KeyUnavailable) as caught:
        store.newest(OWNER)
    assert caught.value.retryable
    assert caught.value.__suppress_context__
    store.close()


def test_columns_are_those_of_the_table(store: KeyStore) -> None:
    store.newest(OWNER)

    names = {column["name"] for column in inspect(store._opened()).get_columns("key_version")}
    assert {"record", "signature", "wrapped_dek", "owner"} <= names
    store.close()
