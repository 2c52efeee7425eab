"""A destruction that was called off stays so, whoever writes the database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, text, update

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.errors import InvalidTransition, KeyUnavailable
from cryptocore.events import Operation, Reason
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life.destruction import REQUEST
from cryptocore.store.key_store import StoreConflict
from cryptocore.store.rotation_tables import DESTRUCTION
from cryptocore.store.statement_tables import STATEMENT
from cryptocore.testing import CoreUnderTest
from tests.cryptocore.approving import APPROVERS
from tests.cryptocore.stores import Database, postgres_database, sqlite_database
from tests.cryptocore.test_incidents import approved
from tests.cryptocore.test_store_postgres import user

OWNER = Owner.tenant("t-88", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
DAY_S = 86_400


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return postgres_database(str(request.getfixturevalue("postgres_url")))


@pytest.fixture
async def core(database: Database) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=database.url, approvers=APPROVERS) as tested:
        yield tested


async def asked(core: CoreUnderTest) -> str:
    await core.encrypt(b"token", owner=OWNER, record="tokens/1", create_missing=True, **ADMIN)
    key_id = (await core.describe(OWNER)).key_id
    await core.archive(key_id, reason=KeyReason.OFFBOARDED, **ADMIN)
    return (await core.request_destruction(await approved(core, key_id), **ADMIN)).id


async def refused(core: CoreUnderTest, destruction_id: str) -> None:
    with pytest.raises(InvalidTransition, match="called off"):
        await core.destroy(destruction_id, **ADMIN)
    [version] = await core.versions((await core.describe(OWNER)).key_id)
    assert version.state is KeyState.ARCHIVED


async def test_no_update_brings_it_back_or_changes_what_was_asked(core: CoreUnderTest, database: Database) -> None:
    await core.restore(await asked(core), **ADMIN)

    for changed in ("restored_ms = NULL", "restored_ms = restored_ms + 1", "due_ms = 0", *_FIXED):
        statement = f"UPDATE {_table(database)} SET {changed.format(blob=database.blob('00' * 16))}"
        with pytest.raises(StoreConflict):
            core.store.transaction(lambda it, statement=statement: it.execute(text(statement)))  # type: ignore[misc]
    assert await core.destructions() == []
    assert await core.disbelieved_destructions() == []


_FIXED = tuple(f"{name} = {{blob}}" for name in ("destruction_id", "request", "signature", "signer_id"))


def _table(database: Database) -> str:
    return "keytrail.destruction" if database.postgres else "destruction"


async def test_what_was_asked_is_fixed_before_it_is_called_off_too(core: CoreUnderTest, database: Database) -> None:
    await asked(core)

    with pytest.raises(StoreConflict):
        core.store.transaction(lambda it: it.execute(text(f"UPDATE {_table(database)} SET due_ms = 0")))


@pytest.mark.servers
async def test_an_admin_of_the_database_cannot_use_it_again(postgres_url: str) -> None:
    database = postgres_database(postgres_url)
    with user(database, "keytrail_admin") as url:
        async with testing.core(store_url=url, approvers=APPROVERS) as core:
            destruction_id = await asked(core)
            await core.restore(destruction_id, **ADMIN)
            for table in ("destruction SET restored_ms = NULL", "statement SET revision = 2"):
                with pytest.raises((StoreConflict, KeyUnavailable)):
                    core.store.transaction(lambda it, table=table: it.execute(text(f"UPDATE keytrail.{table}")))  # type: ignore[misc]

            assert await core.destructions() == []
            with pytest.raises(InvalidTransition, match="called off"):
                await core.restore(destruction_id, **ADMIN)


async def test_the_owner_of_the_database_who_sets_the_mark_back_meets_the_signed_statement(
    core: CoreUnderTest, database: Database
) -> None:
    destruction_id = await asked(core)
    await core.restore(destruction_id, **ADMIN)
    with database.unguarded() as connection:
        connection.execute(update(DESTRUCTION).values(restored_ms=None))

    with pytest.raises(InvalidTransition, match="called off"):
        await core.restore(destruction_id, **ADMIN)
    core.clock.advance(8 * DAY_S)
    if not database.postgres:
        await refused(core, destruction_id)


async def test_a_statement_that_is_not_believed_stops_the_destruction_as_well(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    async with testing.core(store_url=database.url, approvers=APPROVERS) as core:
        destruction_id = await asked(core)
        await core.restore(destruction_id, **ADMIN)
        with database.unguarded() as connection:
            connection.execute(update(DESTRUCTION).values(restored_ms=None))
            connection.execute(update(STATEMENT).values(signature=bytes(64)))
        core.clock.advance(8 * DAY_S)

        with pytest.raises(KeyUnavailable):
            await core.destroy(destruction_id, **ADMIN)
        assert core.events.only(Operation.DESTROY)[-1].reason is Reason.RECORD_INVALID


async def test_a_file_made_before_gets_the_trigger_at_its_next_use(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    async with testing.core(store_url=database.url, approvers=APPROVERS) as core:
        destruction_id = await asked(core)
        await core.restore(destruction_id, **ADMIN)
        database.run("DROP TRIGGER destruction_final")
    store = database.store()

    with pytest.raises(StoreConflict):
        store.transaction(lambda it: it.execute(update(DESTRUCTION).values(restored_ms=None)))
    store.close()


async def test_a_signed_request_whose_time_is_none_is_named_and_hides_no_other(
    core: CoreUnderTest, database: Database
) -> None:
    destruction_id = await asked(core)
    document = msgspec.json.decode(core.store.transaction(_request))
    raw = msgspec.json.encode(document | {"due_at": "soon", "id": "00" * 16})

    def write(connection: Connection) -> None:
        signature = core.parts.signer.sign(REQUEST, raw)
        row = dict(connection.execute(DESTRUCTION.select()).mappings().one())
        changed = {"destruction_id": bytes(16), "request": raw, "signature": signature}
        connection.execute(DESTRUCTION.insert().values(**row | changed))

    core.store.transaction(write)

    assert [one.id for one in await core.destructions()] == [destruction_id]
    assert [one.id for one in await core.disbelieved_destructions()] == ["00" * 16]


def _request(connection: Connection) -> bytes:
    return bytes(connection.execute(DESTRUCTION.select()).mappings().one()["request"])
