"""What a key store promises, on SQLite and on PostgreSQL alike."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.errors import ConfigurationError, KeyRecordRollback, KeyUnavailable, RecordInvalid
from cryptocore.events import AuditEvent, KeyRef, Operation, Outcome, Phase, encode_line
from cryptocore.keys import KeyState
from cryptocore.life.revisions import Revisions
from cryptocore.records import KeyRecord, sign_record
from cryptocore.signing import Signer
from cryptocore.store.key_store import Change, KeyStore, KeyVersion, StoreConflict, database_ms
from cryptocore.store.outbox import outbox_row
from cryptocore.store.tables import KEY_HISTORY, KEY_VERSION
from cryptocore.testing import SERVICE, START, register
from tests.conftest import database_on
from tests.cryptocore.stores import (
    KEY,
    OWNER,
    REGISTRY,
    SIGNER,
    WRAPPED,
    Database,
    change,
    postgres_database,
    record,
    sqlite_database,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def migrated(postgres_server_url: str) -> Iterator[Database]:
    """One database for all tests of this file: making one takes longer than most of them."""
    with database_on(postgres_server_url) as url:
        yield postgres_database(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    migrated: Database = request.getfixturevalue("migrated")
    migrated.empty()
    return migrated


@pytest.fixture
def store(database: Database) -> Iterator[KeyStore]:
    store = database.store()
    yield store
    store.close()


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    store = sqlite_database(tmp_path).store()

    assert list(tmp_path.iterdir()) == []
    assert store.newest(OWNER) is None
    assert (tmp_path / "keys.sqlite").exists()
    store.close()


def test_a_revision_its_history_and_its_event_are_written_together(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])
    store.apply([change(record(state=KeyState.SUSPENDED, previous=first.version), "two")])

    version = store.version(KEY, 1)
    assert version is not None
    assert (version.record.revision, version.record.state) == (2, KeyState.SUSPENDED)
    assert [row.line for row in store.outbox("billing", 10)] == [b"one", b"two"]
    assert store.outbox("crm", 10) == []


def test_a_conflict_writes_nothing(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])
    store.apply([change(record(state=KeyState.SUSPENDED, previous=first.version), "two")])

    with pytest.raises(StoreConflict) as caught:
        store.apply(
            [change(record(2), "three"), change(record(state=KeyState.REVOKED, previous=first.version), "four")]
        )
    assert caught.value.retryable
    assert len(store.versions(KEY)) == 1
    assert len(store.outbox("billing", 10)) == 2


def test_what_is_written_beside_a_revision_is_written_with_it_or_not_at_all(store: KeyStore) -> None:
    first = change(record(), "one")

    def fails(_: object) -> None:
        raise KeyUnavailable("no", retryable=False)

    with pytest.raises(KeyUnavailable):
        store.apply([first], beside=[fails])
    assert store.version(KEY, 1) is None
    assert store.outbox("billing", 10) == []


def test_an_owner_has_one_newest_active_version(store: KeyStore) -> None:
    store.apply([change(record(), "one")])

    with pytest.raises(StoreConflict):
        store.apply([change(record(2), "two")])
    with pytest.raises(StoreConflict):
        store.apply([change(record(key_id=b"o" * 16), "three")])


def test_a_rotation_supersedes_and_gives_the_owner_its_new_newest_version(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])

    store.apply([change(record(previous=first.version, superseded_by=2), "two"), change(record(2), "three")])

    newest = store.newest(OWNER)
    assert newest is not None
    assert newest.number == 2
    assert [version.newest for version in store.versions(KEY)] == [False, True]


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


async def test_of_rotations_raced_by_many_threads_one_wins(store: KeyStore) -> None:
    first = change(record(), "one")
    store.apply([first])

    def race(number: int) -> bool:
        superseded = change(record(previous=first.version, superseded_by=number), f"old-{number}")
        try:
            store.apply([superseded, change(record(number), f"new-{number}")])
        except StoreConflict:
            return False
        return True

    assert sum(await asyncio.gather(*(asyncio.to_thread(race, number) for number in range(2, 12)))) == 1
    assert len(store.versions(KEY)) == 2
    assert len(store.outbox("billing", 20)) == 3


_CREATES = """
import sys
from cryptocore.store.key_store import Change, KeyStore, KeyVersion, StoreConflict
from cryptocore.registry import Registry
from cryptocore.records import SignedRecord, KeyRecord
from cryptocore.envelope import Owner
url, *raws = sys.argv[1:]
store = KeyStore(url, registry=Registry(deployment=bytes.fromhex(raws.pop(0)), signers=()))
signed = SignedRecord.decode(bytes.fromhex(raws[0]))
version = KeyVersion(KeyRecord.decode(signed.record), signed, Owner.tenant("t-88", "crm"), b"wrapped")
store.outbox("billing", 1)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
try:
    store.apply([Change(version, raws[1], "billing", b"line")])
except StoreConflict:
    print("conflict")
else:
    print("made")
store.close()
"""


def test_of_keys_made_for_one_owner_by_several_processes_one_stays(database: Database, store: KeyStore) -> None:
    store.outbox("billing", 1)
    racers = []
    for number in range(3):
        made = change(record(key_id=bytes([number]) * 16), f"race-{number}")
        command = [database.url, REGISTRY.deployment.hex(), made.version.signed.encode().hex(), made.event_id]
        racers.append(
            subprocess.Popen(
                [sys.executable, "-c", _CREATES, *command],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"

    said = [racer.communicate("go\n")[0].strip() for racer in racers]

    assert sorted(said) == ["conflict", "conflict", "made"]
    assert store.newest(OWNER) is not None


def test_a_relayed_row_does_not_come_again(store: KeyStore) -> None:
    store.apply([change(record(), "one")])
    claim = store.claim("billing", 10)
    assert [row.line for row in claim.rows] == [b"one"]

    claim.sent(1)

    assert store.claim("billing", 10).rows == []
    assert store.outbox("billing", 10) == []


def test_a_row_that_was_let_go_comes_again(store: KeyStore) -> None:
    store.apply([change(record(), "one")])
    store.claim("billing", 10).release()

    claim = store.claim("billing", 10)

    assert [row.line for row in claim.rows] == [b"one"]
    claim.release()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE key_version SET revision = revision + 2",
        "UPDATE key_version SET state = 'suspended'",
        "UPDATE key_version SET revision = revision + 1, owner = {blob}",
        "DELETE FROM key_version",
        "UPDATE key_history SET record = {blob}",
        "DELETE FROM key_history",
        "DELETE FROM audit_outbox",
    ],
)
def test_the_triggers_refuse_what_our_own_code_never_does(store: KeyStore, database: Database, statement: str) -> None:
    store.apply([change(record(), "one")])

    with pytest.raises(DBAPIError):
        database.run(statement.format(blob=database.blob("00")))
    assert store.version(KEY, 1) is not None


def test_a_version_does_not_begin_in_the_middle(store: KeyStore) -> None:
    first = change(record(), "one")
    later = record(state=KeyState.SUSPENDED, previous=first.version)

    with pytest.raises(StoreConflict):
        store.transaction(
            lambda it: it.execute(
                insert(KEY_VERSION).values(
                    key_id=KEY,
                    version=1,
                    revision=2,
                    state="suspended",
                    owner=OWNER.encode(),
                    superseded_by=0,
                    retire_at_ms=0,
                    kek_alias="kek",
                    kek_version="1",
                    wrapped_dek=WRAPPED,
                    record=later.encode(),
                    signature=bytes(64),
                )
            )
        )


def test_a_record_of_a_signer_without_the_role_is_not_believed(store: KeyStore) -> None:
    stranger = Signer.generate()
    made = record()
    signed = sign_record(KeyRecord.decode(made.encode()[:-16] + stranger.signer_id), stranger)
    store.apply([Change(KeyVersion(made, signed, OWNER, WRAPPED), "one", "billing", b"one")])

    with pytest.raises(RecordInvalid):
        store.version(KEY, 1)


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"state": "active"}, "state"),
        ({"owner": Owner.tenant("t-1", "x").encode()}, "owner"),
        ({"wrapped_dek": b"another"}, "wrapped_dek"),
        ({"superseded_by": 7}, "superseded_by"),
        ({"kek_alias": "theirs"}, "kek_alias"),
        ({"signature": bytes(64)}, "signature"),
    ],
)
def test_a_row_that_somebody_changed_is_not_believed(
    store: KeyStore, database: Database, columns: dict[str, object], field: str
) -> None:
    first = change(record(), "one")
    store.apply([first, change(record(state=KeyState.SUSPENDED, previous=first.version), "two")])
    with database.unguarded() as connection:
        connection.execute(update(KEY_VERSION).values(**columns))

    with pytest.raises(RecordInvalid) as caught:
        store.version(KEY, 1)
    assert caught.value.field == field


def test_a_row_put_back_to_an_older_revision_is_a_rollback(store: KeyStore, database: Database) -> None:
    first = change(record(), "one")
    store.apply([first, change(record(state=KeyState.REVOKED, previous=first.version), "two")])
    signed = first.version.signed
    older = {"revision": 1, "state": "active", "record": signed.record, "signature": signed.signature}
    with database.unguarded() as connection:
        connection.execute(update(KEY_VERSION).values(**older))

    with pytest.raises(KeyRecordRollback):
        store.version(KEY, 1)
    with pytest.raises(KeyRecordRollback):
        store.newest(OWNER)


def test_history_that_is_gone_is_a_rollback(store: KeyStore, database: Database) -> None:
    store.apply([change(record(), "one")])
    with database.unguarded() as connection:
        connection.execute(KEY_HISTORY.delete())

    with pytest.raises(KeyRecordRollback):
        store.version(KEY, 1)


def test_an_event_that_nobody_vouches_for_is_told_apart(store: KeyStore, database: Database) -> None:
    store.apply([change(record(), "one")])
    line = database.blob(b'{"v":1}'.hex())
    database.run(f"INSERT INTO audit_outbox (event_id, service, line) VALUES ('two', 'billing', {line})")

    assert [row.vouched for row in store.outbox("billing", 10)] == [False, False]


def test_another_services_signer_does_not_speak_through_ours(database: Database) -> None:
    stranger = Signer.generate()
    registry = REGISTRY.with_signer(register(stranger, source="crm").signers[0])
    store = KeyStore(database.url, registry=registry)
    try:
        for signer in (stranger, SIGNER):
            store.transaction(outbox_row(told(Operation.TOKEN_INVALIDATE), signer))
            made = told(Operation.CREATE, KeyRef(id=signer.signer_id.hex(), version=1, revision=1))
            line = encode_line(made)
            vouching = replace(
                record(key_id=signer.signer_id, owner=Owner.tenant("t-88", signer.signer_id.hex())),
                event_sha256=sha256(line).digest(),
                signer_id=signer.signer_id,
            )
            version = change(vouching, signer=signer, owner=Owner.tenant("t-88", signer.signer_id.hex())).version
            store.apply([Change(version, made.id, SERVICE, line)])

        assert [row.vouched for row in store.outbox(SERVICE, 10)] == [False, False, True, True]
    finally:
        store.close()


async def test_a_signer_of_another_source_makes_no_revisions_that_no_relay_would_tell_of() -> None:
    signer = Signer.generate()
    async with testing.core(signer=signer) as core:
        core.parts.lifecycle.revisions.check_signer()
        revisions = Revisions(register(signer, source="crm"), signer, core.parts.audit, core.clock)

        with pytest.raises(ConfigurationError, match="for crm, not for tested"):
            revisions.check_signer()


def told(operation: Operation, key: KeyRef | None = None) -> AuditEvent:
    return AuditEvent(
        id=str(uuid4()),
        phase=Phase.SINGLE,
        operation=operation,
        outcome=Outcome.SUCCEEDED,
        occurred_at=START,
        service=SERVICE,
        key=key,
        actor="user:1001",
        purpose="key-care",
    )


def test_the_database_says_its_own_time(store: KeyStore) -> None:
    first = store.transaction(database_ms)

    assert first <= store.transaction(database_ms)
    assert first > 1_700_000_000_000


def test_a_store_that_cannot_be_opened_is_unavailable_and_shows_no_values(tmp_path: Path) -> None:
    store = KeyStore(f"sqlite:///{tmp_path / 'missing' / 'keys.sqlite'}", registry=REGISTRY)

    with pytest.raises(KeyUnavailable) as caught:
        store.newest(OWNER)
    assert caught.value.retryable
    assert caught.value.__suppress_context__
    store.close()


def test_errors_hold_no_value_of_a_row(store: KeyStore) -> None:
    secret = b"planted" * 3

    with pytest.raises(KeyUnavailable) as caught:
        store.transaction(lambda it: it.execute(text("SELECT nothing FROM nowhere WHERE x = :x"), {"x": secret}))
    assert not caught.value.retryable
    assert "planted" not in repr(caught.value)
    assert caught.value.__suppress_context__
    assert sha256(secret).hexdigest() not in str(caught.value)
