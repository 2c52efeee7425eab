"""Whoever may write the outbox's table cannot keep another service's events from being told."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.errors import KeyUnavailable
from cryptocore.events import Operation
from cryptocore.registry import Registry
from cryptocore.relay import LOOK_S
from cryptocore.signing import OUTBOX_CHECKED, OUTBOX_SENT, Signer
from cryptocore.store import cursors, outbox_marks
from cryptocore.store.check import check
from cryptocore.store.key_store import StoreConflict
from cryptocore.store.migration import migrate
from cryptocore.store.outbox_marks import LATE_MS, OutboxMarks
from cryptocore.store.tables import AUDIT_OUTBOX, OUTBOX_MARK
from cryptocore.testing import SERVICE, CoreUnderTest
from tests.cryptocore.stores import Database, postgres_database, sqlite_database
from tests.cryptocore.test_store_postgres import user

OWNER = Owner.tenant("t-88", "crm")
OURS, THEIRS = Signer.generate(), Signer.generate()
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return postgres_database(str(request.getfixturevalue("postgres_url")))


def process(database: Database) -> AbstractAsyncContextManager[CoreUnderTest]:
    """One process of the service: what it remembers is its own, its signer and the store are not."""
    return testing.core(store_url=database.url, signer=OURS)


@pytest.fixture
async def core(database: Database) -> AsyncIterator[CoreUnderTest]:
    async with process(database) as tested:
        yield tested


def known(registry: Registry) -> Registry:
    """The same deployment, in which another service has a signer for keys, too."""
    theirs = replace(testing.register(THEIRS).signers[0], source="other")
    return registry.with_signer(theirs)


def hide(core: CoreUnderTest, *, signature: bytes | None = None) -> None:
    """Mark everything as sent, past the relay, and perhaps with a row that is no mark of the service."""

    def write(connection: Connection) -> None:
        connection.execute(update(AUDIT_OUTBOX).values(sent_ms=1))
        if signature is not None:
            for number in connection.execute(AUDIT_OUTBOX.select()).scalars().all():
                connection.execute(OUTBOX_MARK.insert().values(number=number, signature=signature, sent_ms=1))

    core.store.transaction(write)


async def look(core: CoreUnderTest) -> list[Operation]:
    """Let the next look come, and name what this process has told of keys being made."""
    core.clock.advance(LOOK_S)
    await core.relay()
    return [event.operation for event in core.events.only(Operation.CREATE)]


CREATED = [Operation.CREATE]


# --- whose mark counts


async def test_an_event_that_somebody_marked_as_sent_is_told_all_the_same(core: CoreUnderTest) -> None:
    await core.create_key(OWNER, **ADMIN)
    hide(core)

    assert core.store.outbox(SERVICE, 10) == []
    assert await look(core) == CREATED
    assert await look(core) == CREATED  # once


@pytest.mark.parametrize("made_up", ["random", "another_label", "another_service"])
async def test_a_mark_that_is_none_of_the_service_does_not_count(core: CoreUnderTest, made_up: str) -> None:
    await core.create_key(OWNER, **ADMIN)
    [row] = core.store.outbox(SERVICE, 10)
    theirs = OutboxMarks(SERVICE, known(core.registry), THEIRS)
    said = theirs._sent(row.number, row.line, 1)
    signature = {
        "random": bytes(64),
        "another_label": OURS.sign(OUTBOX_CHECKED, said),
        "another_service": THEIRS.sign(OUTBOX_SENT, said),
    }[made_up]
    hide(core, signature=signature)
    marks = OutboxMarks(SERVICE, known(core.registry), OURS)

    assert core.store.transaction(marks.missing) == [row.number]
    assert await look(core) == CREATED


async def test_a_mark_counts_for_its_own_row_and_time_only(core: CoreUnderTest) -> None:
    for name in ("crm", "mail"):
        await core.create_key(Owner.tenant("t-88", name), **ADMIN)
    one, other = core.store.outbox(SERVICE, 10)
    marks = OutboxMarks(SERVICE, core.registry, OURS)
    copied = OURS.sign(OUTBOX_SENT, marks._sent(one.number, one.line, 7))

    def write(connection: Connection) -> None:
        connection.execute(update(AUDIT_OUTBOX).values(sent_ms=7))
        rows = ((one.number, 8), (other.number, 7))
        connection.execute(
            OUTBOX_MARK.insert(), [{"number": number, "sent_ms": ms, "signature": copied} for number, ms in rows]
        )

    core.store.transaction(write)

    assert core.store.transaction(marks.missing) == [one.number, other.number]
    assert marks._holds(one.number, one.line, 7, copied)
    assert not marks._holds(other.number, one.line, 7, copied)


async def test_the_mark_of_one_process_holds_for_another(core: CoreUnderTest, database: Database) -> None:
    await core.create_key(OWNER, **ADMIN)
    assert await look(core) == CREATED

    async with process(database) as other:
        assert await look(other) == []


async def test_what_was_hidden_before_a_crash_is_found_by_the_next_process(database: Database) -> None:
    async with process(database) as core:
        await core.create_key(OWNER, **ADMIN)
        hide(core)
        core._relay.run = _nothing  # type: ignore[method-assign] # killed: it relays no more

    async with process(database) as other:
        assert await look(other) == CREATED


async def _nothing(*, everything: bool = False) -> None:
    """Relay nothing."""


# --- what is looked at again


async def test_rows_in_order_are_not_looked_at_again_once_no_late_one_can_come(
    core: CoreUnderTest, database: Database
) -> None:
    await core.create_key(OWNER, **ADMIN)
    await look(core)
    marks = OutboxMarks(SERVICE, core.registry, OURS)
    core.store.transaction(marks.missing)
    assert marks._listed == [1]  # young: a row with a lower number may still come

    core.clock.advance(LATE_MS / 1000)
    await look(core)
    core.store.transaction(marks.missing)
    assert marks._listed == []

    await core.create_key(Owner.tenant("t-88", "mail"), **ADMIN)
    hide(core)
    async with process(database) as other:
        assert await look(other) == CREATED


@pytest.mark.parametrize("by", ["nobody", "another_service", "another_label"])
async def test_who_says_that_all_is_in_order_and_is_not_the_service_is_not_believed(
    core: CoreUnderTest, by: str
) -> None:
    await core.create_key(OWNER, **ADMIN)
    marks = OutboxMarks(SERVICE, known(core.registry), OURS)
    said = marks._reached(1_000, 1)
    signature = {
        "nobody": b"",
        "another_service": THEIRS.sign(OUTBOX_CHECKED, said),
        "another_label": OURS.sign(OUTBOX_SENT, said),
    }[by]
    core.store.transaction(cursors.begin(f"outbox/{SERVICE}"))
    core.store.transaction(cursors.move(f"outbox/{SERVICE}", (1_000).to_bytes(8) + (1).to_bytes(8) + signature))
    hide(core)

    assert core.store.transaction(marks.missing) == [1]
    assert await look(core) == CREATED


async def test_a_row_that_is_not_sent_yet_is_not_passed_over_for_later_ones(core: CoreUnderTest) -> None:
    for name in ("crm", "mail"):
        await core.create_key(Owner.tenant("t-88", name), **ADMIN)
    _, later = core.store.outbox(SERVICE, 10)
    marks = OutboxMarks(SERVICE, core.registry, OURS)
    core.store.transaction(marks.writing([later], 5))

    for _ in range(2):  # what waits at two looks is taken, since somebody may keep it locked
        missing = core.store.transaction(marks.missing)
        core.store.transaction(marks.settling(LATE_MS * 2))
        assert marks._after == 0
    assert missing == [1]
    marks.took(core.store.unmarked(marks), 6)
    core.store.transaction(marks.missing)
    core.store.transaction(marks.settling(LATE_MS * 2))
    assert marks._after == later.number


async def test_one_look_verifies_so_many_rows_and_the_next_one_goes_on(
    core: CoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_marks, "VERIFIED", 2)
    for name in ("one", "two", "three"):
        await core.create_key(Owner.tenant("t-88", name), **ADMIN)
    hide(core)

    assert await look(core) == CREATED * 2
    assert await look(core) == CREATED * 3


@pytest.mark.servers
async def test_rows_that_somebody_keeps_locked_are_told_all_the_same(postgres_url: str) -> None:
    database = postgres_database(postgres_url)
    async with process(database) as core:
        await core.create_key(OWNER, **ADMIN)
        with database.behind() as engine, engine.begin() as connection:
            connection.execute(text("SELECT 1 FROM keytrail.audit_outbox FOR UPDATE"))

            assert await look(core) == []
            assert await look(core) == CREATED
            assert await look(core) == CREATED


# --- what the database refuses


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {marks} (number, sent_ms, signature) VALUES (1, 1, {empty})",
        "UPDATE {marks} SET sent_ms = 1",
        "DELETE FROM {marks}",
    ],
)
async def test_marks_are_signed_and_append_only(core: CoreUnderTest, database: Database, statement: str) -> None:
    await core.create_key(OWNER, **ADMIN)
    await look(core)
    marks = "keytrail.outbox_mark" if database.postgres else "outbox_mark"

    with pytest.raises(StoreConflict):
        core.store.transaction(lambda it: it.execute(text(statement.format(marks=marks, empty=database.blob("")))))


@pytest.mark.servers
def test_nobody_chooses_the_number_of_an_event_or_says_at_once_that_it_was_sent(postgres_url: str) -> None:
    database = postgres_database(postgres_url)
    for role in ("keytrail_use", "keytrail_admin"):
        with user(database, role) as url:
            store = database.store(url=url)
            insert = "INSERT INTO keytrail.audit_outbox (event_id, service, line"
            ours = "VALUES (gen_random_uuid()::text, 'billing', ''::bytea"
            store.transaction(lambda it: it.execute(text(f"{insert}) {ours})")))  # noqa: B023 - called at once
            for column in ("number", "sent_ms"):
                with pytest.raises(KeyUnavailable, match="may not do this"):
                    store.transaction(lambda it: it.execute(text(f"{insert}, {column}) {ours}, 99)")))  # noqa: B023
            assert [look for look in check(url) if look.well is False] == []
            database.run(f"GRANT INSERT ON audit_outbox TO {role}")
            assert [look.subject for look in check(url) if look.well is False] == ["grants"]
            database.run(f"REVOKE INSERT ON audit_outbox FROM {role}")
            database.run(f"GRANT INSERT (event_id, service, line, signature) ON audit_outbox TO {role}")
            store.close()


# --- stores of before


_BEFORE = (
    "DROP TABLE outbox_mark",
    "DROP INDEX audit_outbox_service",
)


async def test_what_was_sent_before_there_were_marks_is_not_told_again_and_what_waited_is(database: Database) -> None:
    async with process(database) as core:
        await core.create_key(OWNER, **ADMIN)
        await look(core)
        await core.create_key(Owner.tenant("t-88", "mail"), **ADMIN)
        core._relay.run = _nothing  # type: ignore[method-assign]
    for statement in _BEFORE:
        database.run(statement)
    if database.postgres:
        database.run("DROP TRIGGER destruction_final ON destruction")
        database.run("GRANT INSERT ON audit_outbox TO keytrail_use, keytrail_admin")
        database.run("UPDATE keytrail_migration SET version_num = '0004_incidents'")
        assert migrate(database.url) == ["0005_marks"]
    else:
        store = database.store()
        store.outbox(SERVICE, 1)  # the store makes what is missing
        store.close()

    async with process(database) as core:
        hide(core)
        assert await look(core) == CREATED
        [event] = core.events.only(Operation.CREATE)
    assert event.owner is not None
    assert event.owner.integration_id == "mail"
