import asyncio
import logging
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, make_url, select, text, update
from sqlalchemy.exc import IntegrityError

from cryptocore import testing
from cryptocore.batch import SealedBatch
from cryptocore.care.terms import ThreatLevel
from cryptocore.context import acting
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import (
    AccessDenied,
    ConfigurationError,
    CoreError,
    DecryptionFailed,
    InvalidTransition,
    KeyUnavailable,
    TokenInvalid,
)
from cryptocore.events import AuditEvent, Operation, Outcome, Reason, decode_line, encode_line
from cryptocore.keys import KeyReason
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore, StoreConflict, database_ms
from cryptocore.store.token_tables import TOKEN
from cryptocore.testing import CoreUnderTest
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.cleanup import clean_up, token_cleanup
from cryptocore.tokens.endings import CHUNK
from cryptocore.tokens.life import MAX_VALUE, token_record
from cryptocore.tokens.moving import reencrypt_tokens
from cryptocore.tokens.rows import Ended, Reach, TokenInfo, TokenRow
from cryptocore.tokens.vault import TokenVault
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.stores import Database, postgres_database, sqlite_database

CRM = Owner.tenant("t-88", "crm")
MAIL = Owner.tenant("t-88", "mail")
OTHER = Owner.tenant("t-99", "crm")
PLANTED = b"planted-token-8f3c-0123456789abcdef"
HOUR_MS = 3_600_000
WRAPPER = LocalKeyWrapper(testing.ALIAS, clock=testing.ManualClock())
"""One KEK for all tests: drawing one takes longer than most of them."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return postgres_database(str(request.getfixturevalue("postgres_url")))


@pytest.fixture
def store_url(database: Database) -> str:
    return database.url


@pytest.fixture
async def core(store_url: str) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=store_url, wrapper=WRAPPER) as tested:
        with acting(actor="user:4711", purpose="crm-sync"):
            yield tested


@pytest.fixture
async def sqlite_core(tmp_path: Path) -> AsyncIterator[CoreUnderTest]:
    """For what the database has no part in."""
    async with testing.core(store_url=sqlite_database(tmp_path).url, wrapper=WRAPPER) as tested:
        with acting(actor="user:4711", purpose="crm-sync"):
            yield tested


@pytest.fixture
def vault(core: CoreUnderTest) -> TokenVault:
    return TokenVault(core)


def now_ms(core: CoreUnderTest) -> int:
    """The database's time: the clock of the test on SQLite, the server's on PostgreSQL."""
    return core.store.transaction(database_ms)


async def kept(
    core: CoreUnderTest, vault: TokenVault, owner: Owner = CRM, token_id: str = "access", **told: Any
) -> Any:
    expires_at_ms = told.pop("expires_at_ms", now_ms(core) + HOUR_MS)
    return await vault.store(
        owner, token_id, told.pop("value", PLANTED), expires_at_ms=expires_at_ms, create_missing=True, **told
    )


async def pass_time(core: CoreUnderTest, ms: int) -> None:
    """Let the database's time go by."""
    core.clock.advance(ms / 1000)
    if core.store.transaction(lambda connection: connection.dialect.name) != "sqlite":
        await asyncio.sleep(ms / 1000)


def outbox(core: CoreUnderTest) -> list[AuditEvent]:
    lines = [decode_line(row.line) for row in core.store.outbox(testing.SERVICE, 10_000) if row.vouched]
    return [line for line in lines if isinstance(line, AuditEvent)]


def told(core: CoreUnderTest, operation: Operation) -> list[AuditEvent]:
    return [event for event in outbox(core) if event.operation is operation]


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128),
    st.integers(1, 2**62),
    st.integers(1, 2**47),
)
def test_the_place_of_a_token_names_it_without_doubt(token_id: str, generation: int, expires_ms: int) -> None:
    info = TokenInfo(
        owner=CRM,
        token_id=token_id,
        generation=generation,
        key_id="ab" * 16,
        key_version=1,
        stored_ms=1,
        expires_ms=expires_ms,
    )
    head, number, word, until = token_record(info).rsplit("/", 3)

    assert (head.removeprefix("tokens/"), int(number), word, int(until)) == (token_id, generation, "exp", expires_ms)


# --- one token


async def test_a_token_comes_back_and_each_act_names_it_in_its_event(core: CoreUnderTest, vault: TokenVault) -> None:
    info = await kept(core, vault)

    assert await vault.use(CRM, "access") == PLANTED
    assert (info.generation, info.ended_ms) == (1, None)
    (stored,) = told(core, Operation.TOKEN_STORE)
    (used,) = core.events.only(Operation.TOKEN_USE)
    for event in (stored, used):
        assert (event.token_id, event.owner, event.outcome) == ("access", CRM.ref(), Outcome.SUCCEEDED)
        assert event.key is not None
        assert (event.key.id, event.key.version) == (info.key_id, 1)


async def test_the_event_of_a_stored_token_reaches_the_log_through_the_relay(
    core: CoreUnderTest, vault: TokenVault
) -> None:
    await kept(core, vault)
    await core.relay()

    (event,) = core.events.only(Operation.TOKEN_STORE)
    assert (event.token_id, event.actor, event.purpose) == ("access", "user:4711", "crm-sync")


async def test_a_token_is_not_stored_twice(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault)

    with pytest.raises(InvalidTransition, match="regenerate"):
        await kept(core, vault, value=b"another")
    assert await vault.use(CRM, "access") == PLANTED
    (denied,) = core.events.only(Operation.TOKEN_STORE)
    assert (denied.outcome, denied.reason, denied.token_id) == (Outcome.DENIED, Reason.KEY_STATE, "access")


async def test_tokens_of_owners_do_not_meet(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault)

    with pytest.raises(AccessDenied, match="no such token"):
        await vault.use(OTHER, "access")
    (denied,) = core.events.only(Operation.TOKEN_USE)
    assert (denied.outcome, denied.reason) == (Outcome.DENIED, Reason.UNKNOWN_KEY)


async def test_a_token_cannot_be_used_once_its_time_is_over(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault, expires_at_ms=now_ms(core) + 1_000)
    assert await vault.use(CRM, "access") == PLANTED
    await pass_time(core, 1_100)

    with pytest.raises(AccessDenied, match="past its expiry"):
        await vault.use(CRM, "access")
    assert core.events.only(Operation.TOKEN_USE)[-1].reason is Reason.KEY_STATE


async def test_a_token_that_expired_and_is_still_there_makes_way_for_a_new_one(
    core: CoreUnderTest, vault: TokenVault
) -> None:
    await kept(core, vault, expires_at_ms=now_ms(core) + 1_000)
    await pass_time(core, 1_100)

    assert (await kept(core, vault, value=b"new")).generation == 2
    assert await vault.use(CRM, "access") == b"new"
    assert [one.ended_as for one in await vault.tokens(ended=True)] == [Ended.EXPIRED]
    assert len(told(core, Operation.TOKEN_EXPIRE)) == 1


async def test_a_token_whose_time_is_over_is_not_stored(core: CoreUnderTest, vault: TokenVault) -> None:
    with pytest.raises(InvalidTransition, match="over already"):
        await kept(core, vault, expires_at_ms=now_ms(core))
    assert await vault.tokens() == []


@pytest.mark.parametrize(
    ("token_id", "value", "expires_at_ms"),
    [
        ("", b"", 2**46),
        ("a b", b"", 2**46),
        ("t" * 129, b"", 2**46),
        ("t", bytes(MAX_VALUE + 1), 2**46),
        ("t", b"", 2**47),
    ],
)
async def test_what_is_beyond_the_limits_is_refused(
    sqlite_core: CoreUnderTest, token_id: str, value: bytes, expires_at_ms: int
) -> None:
    with pytest.raises(TokenInvalid):
        await TokenVault(sqlite_core).store(CRM, token_id, value, expires_at_ms=expires_at_ms)


async def test_the_largest_token_with_the_longest_name_comes_back(core: CoreUnderTest, vault: TokenVault) -> None:
    value = bytes(range(256)) * (MAX_VALUE // 256)
    await kept(core, vault, token_id="/" * 128, value=value)

    assert await vault.use(CRM, "/" * 128) == value


# --- the database is not trusted


async def test_a_row_whose_expiry_was_moved_on_does_not_open(
    core: CoreUnderTest, vault: TokenVault, database: Database
) -> None:
    await kept(core, vault)
    database.run("DROP TRIGGER token_name" + (" ON token" if database.postgres else ""))
    database.run("UPDATE token SET expires_ms = expires_ms + 1")

    with pytest.raises(DecryptionFailed):
        await vault.use(CRM, "access")
    assert core.events.only(Operation.TOKEN_USE) == []
    assert core.events.only(Operation.DECRYPT)[-1].reason is Reason.BAD_TAG


async def test_the_ciphertext_of_an_earlier_generation_does_not_open_as_a_later_one(
    core: CoreUnderTest, vault: TokenVault, database: Database
) -> None:
    expires_at_ms = now_ms(core) + HOUR_MS
    await kept(core, vault, expires_at_ms=expires_at_ms)
    with database.behind() as engine, engine.begin() as connection:
        old = connection.execute(select(TOKEN.c.ciphertext, TOKEN.c.key_version)).one()
    await vault.regenerate(CRM, "access", b"new", expires_at_ms=expires_at_ms)
    with database.behind() as engine, engine.begin() as connection:
        connection.execute(
            update(TOKEN).where(TOKEN.c.generation == 2).values(ciphertext=old.ciphertext, key_version=old.key_version)
        )

    with pytest.raises(DecryptionFailed):
        await vault.use(CRM, "access")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE token SET ended_ms = NULL, ended_as = NULL, ciphertext = {blob} WHERE ended_ms IS NOT NULL",
        "UPDATE token SET expires_ms = expires_ms + 1",
        "UPDATE token SET ciphertext = NULL WHERE ended_ms IS NULL",
        "DELETE FROM token",
    ],
)
async def test_the_tables_refuse_what_must_not_happen(
    core: CoreUnderTest, vault: TokenVault, database: Database, statement: str
) -> None:
    await kept(core, vault)
    await kept(core, vault, token_id="refresh")
    await vault.invalidate(CRM, "access")

    with pytest.raises(IntegrityError, match="token"):
        database.run(statement.format(blob=database.blob("00")))


# --- what is left of a value


async def test_an_ended_token_leaves_no_ciphertext_in_its_row(
    core: CoreUnderTest, vault: TokenVault, database: Database
) -> None:
    await kept(core, vault)
    await kept(core, vault, token_id="refresh")
    await vault.invalidate(CRM, "access")
    await vault.regenerate(CRM, "refresh", b"new", expires_at_ms=now_ms(core) + HOUR_MS)

    with database.behind() as engine, engine.begin() as connection:
        rows = connection.execute(select(TOKEN.c.token_id, TOKEN.c.generation, TOKEN.c.ciphertext)).all()
    assert {(name, number) for name, number, ciphertext in rows if ciphertext is not None} == {("refresh", 2)}


async def test_after_a_checkpoint_sqlite_keeps_no_ciphertext_of_an_ended_token(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    async with testing.core(store_url=database.url, wrapper=WRAPPER) as core:
        with acting("user:1", "setup"):
            vault = TokenVault(core)
            await kept(core, vault, value=bytes(MAX_VALUE))
            with database.behind() as engine, engine.begin() as connection:
                ciphertext = connection.execute(select(TOKEN.c.ciphertext)).scalar_one()
            await vault.invalidate(CRM, "access")
    with database.behind() as engine, engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    kept_bytes = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    places = [at for at in range(0, len(ciphertext) - 32, 32) if ciphertext[at : at + 32] in kept_bytes]
    assert places == []


async def test_no_value_and_no_ciphertext_is_in_an_error_a_log_or_an_event(
    core: CoreUnderTest, vault: TokenVault, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await kept(core, vault)
    with database.behind() as engine, engine.begin() as connection:
        ciphertext = bytes(connection.execute(select(TOKEN.c.ciphertext)).scalar_one())
    over_ms, far_ms = now_ms(core), now_ms(core) + HOUR_MS

    async def broken() -> None:
        with database.behind() as engine, engine.begin() as connection:
            connection.execute(update(TOKEN).values(ciphertext=ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])))
        await vault.use(CRM, "access")

    async def without_its_table() -> None:
        database.run("DROP TABLE token")
        await vault.use(CRM, "access")

    failing: list[Callable[[], Awaitable[object]]] = [
        lambda: vault.store(CRM, "access", PLANTED, expires_at_ms=far_ms),
        lambda: vault.store(CRM, "other", PLANTED, expires_at_ms=over_ms),
        lambda: vault.store(MAIL, "none", PLANTED, expires_at_ms=far_ms),
        lambda: vault.store(CRM, PLANTED.decode() + " ", PLANTED, expires_at_ms=far_ms),
        lambda: vault.store(CRM, "large", PLANTED * 4_096, expires_at_ms=far_ms),
        lambda: vault.regenerate(CRM, "unknown", PLANTED, expires_at_ms=far_ms),
        lambda: vault.regenerate(OTHER, "access", PLANTED, expires_at_ms=far_ms),
        broken,
        without_its_table,
        lambda: vault.store(CRM, "again", PLANTED, expires_at_ms=far_ms),
        lambda: vault.regenerate(CRM, "access", PLANTED, expires_at_ms=far_ms),
        lambda: vault.invalidate(CRM, "access"),
    ]
    said = ""
    for fails in failing:
        with pytest.raises(CoreError) as caught:
            await fails()
        said += _all_that_is_said(caught.value)
    await core.relay()
    said += caplog.text + "".join(encode_line(event).decode() for event in core.events)

    for secret in (PLANTED, ciphertext, ciphertext[47:]):
        for shown in (secret.decode("latin-1"), repr(secret)[2:-1], secret.hex(), b64encode(secret).decode()):
            assert shown not in said
    assert "planted" not in said


def _all_that_is_said(error: BaseException | None) -> str:
    """What an error and everything that hangs on it shows, the variables of its frames' errors included."""
    said, seen = "", set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        said += f"{one!s} {one!r} {one.args!r} {vars(one)!r} " + "".join(traceback.format_exception(one))
        waiting += [one.__cause__, one.__context__]
    return said


# --- regenerate


async def test_regenerating_rotates_the_dek_and_erases_the_old_value(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault)

    info = await vault.regenerate(CRM, "access", b"new value", expires_at_ms=now_ms(core) + HOUR_MS)

    assert (info.generation, info.key_version) == (2, 2)
    assert await vault.use(CRM, "access") == b"new value"
    (old,) = await vault.tokens(ended=True)
    assert (old.generation, old.ended_as, old.ended_by) == (1, Ended.REGENERATED, "user:4711")
    (event,) = told(core, Operation.TOKEN_REGENERATE)
    assert event.reason is Reason.TOKEN_REGENERATED
    rotated = told(core, Operation.ROTATE)
    assert [one.reason for one in rotated] == [Reason.TOKEN_REGENERATED]


async def test_an_expired_token_can_be_regenerated_and_an_invalidated_one_cannot(
    core: CoreUnderTest, vault: TokenVault
) -> None:
    await kept(core, vault)
    await vault.expire(CRM, "access")
    again = await vault.regenerate(CRM, "access", b"second", expires_at_ms=now_ms(core) + HOUR_MS)
    await vault.invalidate(CRM, "access", reason=KeyReason.COMPROMISE_SUSPECTED)

    assert again.generation == 2
    with pytest.raises(InvalidTransition, match="was invalidated"):
        await vault.regenerate(CRM, "access", b"third", expires_at_ms=now_ms(core) + HOUR_MS)
    stored = await kept(core, vault, value=b"a new start")
    assert stored.generation == 3
    assert await vault.use(CRM, "access") == b"a new start"


async def test_invalidating_an_expired_token_holds_against_regenerate(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault)
    await vault.expire(CRM, "access")

    info = await vault.invalidate(CRM, "access")

    assert (info.generation, info.ended_as) == (2, Ended.INVALIDATED)
    with pytest.raises(InvalidTransition):
        await vault.regenerate(CRM, "access", b"second", expires_at_ms=now_ms(core) + HOUR_MS)
    assert len(told(core, Operation.TOKEN_INVALIDATE)) == 1


async def test_ending_a_token_twice_tells_of_it_once(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault)
    first = await vault.invalidate(CRM, "access")
    again = await vault.invalidate(CRM, "access")
    expired = await vault.expire(CRM, "access")

    assert first == again == expired
    assert len(told(core, Operation.TOKEN_INVALIDATE)) == 1
    assert told(core, Operation.TOKEN_EXPIRE) == []


async def test_ending_a_token_that_never_was_is_refused_and_recorded(core: CoreUnderTest, vault: TokenVault) -> None:
    with pytest.raises(InvalidTransition, match="no such token"):
        await vault.invalidate(CRM, "access")
    (event,) = told(core, Operation.TOKEN_INVALIDATE)
    assert (event.outcome, event.token_id) == (Outcome.DENIED, "access")


async def test_racing_regenerate_use_and_invalidate_never_bring_a_token_back(
    core: CoreUnderTest, vault: TokenVault
) -> None:
    for number in range(6):
        name = f"raced-{number}"
        await kept(core, vault, token_id=name)
        expires_at_ms = now_ms(core) + HOUR_MS
        racing = [
            vault.regenerate(CRM, name, b"one", expires_at_ms=expires_at_ms),
            vault.use(CRM, name),
            vault.invalidate(CRM, name),
            vault.regenerate(CRM, name, b"two", expires_at_ms=expires_at_ms),
            vault.use(CRM, name),
        ]
        await asyncio.gather(*racing[number % 5 :], *racing[: number % 5], return_exceptions=True)

        with pytest.raises(AccessDenied, match="was invalidated"):
            await vault.use(CRM, name)
        assert await vault.tokens(Reach(owner=CRM, token_id=name)) == []


async def test_the_other_tokens_of_an_owner_move_to_the_new_version(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault)
    await kept(core, vault, token_id="refresh", value=b"refresh me")
    await kept(core, vault, MAIL)
    await vault.regenerate(CRM, "access", b"new", expires_at_ms=now_ms(core) + HOUR_MS)

    moved = await reencrypt_tokens(core, CRM)
    again = await reencrypt_tokens(core, CRM)

    assert (moved.progress.done, again.progress.done) == (1, 0)
    assert {token.token_id: token.key_version for token in await vault.tokens(Reach(owner=CRM))} == {
        "access": 2,
        "refresh": 2,
    }
    assert await vault.use(CRM, "refresh") == b"refresh me"
    assert await vault.use(MAIL, "access") == PLANTED


def test_of_threads_that_end_a_row_at_once_one_does(database: Database) -> None:
    store = database.store()
    info = TokenInfo(
        owner=CRM, token_id="raced", generation=1, key_id="ab" * 16, key_version=1, stored_ms=1, expires_ms=2
    )
    row = TokenRow(info, b"ciphertext")
    store.transaction(lambda connection: token_rows.write(connection, row))
    ended = replace(info, ended_ms=3, ended_as=Ended.INVALIDATED, ended_by="user:1")
    later = TokenRow(replace(info, generation=2), b"regenerated")
    together = Barrier(4)

    def invalidate(connection: Connection) -> bool:
        return token_rows.erase(connection, row, ended)

    def regenerate(connection: Connection) -> bool:
        if not token_rows.erase(connection, row, replace(ended, ended_as=Ended.REGENERATED)):
            raise StoreConflict
        token_rows.write(connection, later)
        return True

    def run(act: Callable[[Connection], bool]) -> bool:
        together.wait()
        try:
            return store.transaction(act)
        except (StoreConflict, KeyUnavailable):
            return False

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(run, [invalidate, regenerate, invalidate, regenerate]))
    left = store.transaction(lambda connection: token_rows.live(connection, Reach(owner=CRM), limit=9))
    store.close()

    assert sum(done) == 1
    assert len(left) == (done[1] or done[3]), "alive only if the regenerate came first"


async def test_a_service_with_the_role_that_uses_keys_can_keep_tokens_but_not_rotate(postgres_url: str) -> None:
    database = postgres_database(postgres_url)
    signer = Signer.generate()
    async with testing.core(store_url=database.url, wrapper=WRAPPER, signer=signer) as admin:
        with acting("user:1", "setup"):
            await kept(admin, admin.tokens, token_id="first")
    as_role = make_url(database.url).update_query_dict({"options": "-c role=keytrail_use"})
    url = as_role.render_as_string(hide_password=False)
    async with testing.core(store_url=url, wrapper=WRAPPER, signer=signer) as core:
        with acting("user:4711", "crm-sync"):
            vault = core.tokens
            await vault.store(CRM, "second", PLANTED, expires_at_ms=now_ms(core) + HOUR_MS)
            assert await vault.use(CRM, "second") == PLANTED
            await vault.expire(CRM, "second")
            assert (await vault.invalidate(CRM, "first")).ended_as is Ended.INVALIDATED
            with pytest.raises(KeyUnavailable, match="keytrail_admin"):
                await vault.regenerate(CRM, "second", b"new", expires_at_ms=now_ms(core) + HOUR_MS)
            with pytest.raises(KeyUnavailable, match="keytrail_admin"):
                await core.threats.set(ThreatLevel.NORMAL, reason="x")


# --- many tokens


@pytest.mark.parametrize(
    ("reach", "left"),
    [
        (Reach(tenant_id="t-88"), {(OTHER, "access")}),
        (Reach(integration_id="crm"), {(MAIL, "access")}),
        (Reach(tenant_id="t-88", integration_id="mail"), {(CRM, "access"), (CRM, "refresh"), (OTHER, "access")}),
    ],
)
async def test_an_emergency_ends_all_that_it_reaches_and_nothing_else(
    core: CoreUnderTest, vault: TokenVault, reach: Reach, left: set[tuple[Owner, str]]
) -> None:
    for owner, name in ((CRM, "access"), (CRM, "refresh"), (MAIL, "access"), (OTHER, "access")):
        await kept(core, vault, owner, name)

    ended = await vault.invalidate_all(reach, reason=KeyReason.COMPROMISE_SUSPECTED)

    assert {(token.owner, token.token_id) for token in await vault.tokens()} == left
    events = told(core, Operation.TOKEN_INVALIDATE)
    assert len(events) == ended == 4 - len(left)
    assert {event.reason for event in events} == {Reason.COMPROMISE_SUSPECTED}


async def test_an_emergency_of_more_than_one_transaction_ends_all(sqlite_core: CoreUnderTest) -> None:
    vault = TokenVault(sqlite_core)
    for number in range(CHUNK + 5):
        await kept(sqlite_core, vault, token_id=f"token-{number}")

    assert await vault.invalidate_all(Reach(owner=CRM), reason=KeyReason.OPERATOR) == CHUNK + 5
    assert await vault.tokens() == []
    assert len(told(sqlite_core, Operation.TOKEN_INVALIDATE)) == CHUNK + 5


async def test_an_emergency_can_name_a_key(core: CoreUnderTest, vault: TokenVault) -> None:
    info = await kept(core, vault)
    await kept(core, vault, MAIL)

    assert await vault.invalidate_all(Reach(key_id=bytes.fromhex(info.key_id)), reason=KeyReason.OPERATOR) == 1
    assert [token.owner for token in await vault.tokens()] == [MAIL]


async def test_an_emergency_that_names_nothing_ends_nothing(sqlite_core: CoreUnderTest) -> None:
    vault = TokenVault(sqlite_core)
    await kept(sqlite_core, vault)

    with pytest.raises(ConfigurationError):
        await vault.invalidate_all(Reach(token_id="access"), reason=KeyReason.OPERATOR)
    assert len(await vault.tokens()) == 1


async def test_invalidation_needs_the_database_only(store_url: str) -> None:
    """Vault, log and spool are away: a process that never opened acts all the same."""
    async with testing.core(store_url=store_url, wrapper=WRAPPER) as living:
        with acting("user:1", "setup"):
            await kept(living, TokenVault(living))
        registry, signer = living.registry, living.parts.signer
    core = cut_off(store_url, registry, signer)

    with acting("user:1001", "emergency"):
        assert (
            await TokenVault(core).invalidate_all(Reach(tenant_id="t-88"), reason=KeyReason.COMPROMISE_SUSPECTED) == 1
        )
        with pytest.raises(InvalidTransition):
            await TokenVault(core).invalidate(CRM, "unknown")
    rows = core.parts.store.outbox(testing.SERVICE, 100)
    acts = [decode_line(row.line) for row in rows if row.vouched]
    assert [
        act.outcome for act in acts if isinstance(act, AuditEvent) and act.operation is Operation.TOKEN_INVALIDATE
    ] == [
        Outcome.SUCCEEDED,
        Outcome.DENIED,
    ]
    core.parts.store.close()


# --- purge


async def test_a_purge_lists_first_and_erases_when_told(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault, expires_at_ms=now_ms(core) + 1_000)
    await kept(core, vault, token_id="refresh")
    await pass_time(core, 1_100)

    found = await vault.purge_expired()
    assert [token.token_id for token in found.tokens] == ["access"]
    assert told(core, Operation.TOKEN_EXPIRE) == []
    done = await vault.purge_expired(dry_run=False)

    assert [(token.token_id, token.ended_as) for token in done.tokens] == [("access", Ended.EXPIRED)]
    assert [token.token_id for token in await vault.tokens()] == ["refresh"]
    (event,) = told(core, Operation.TOKEN_EXPIRE)
    assert event.reason is Reason.SCHEDULED
    assert (await vault.purge_expired(dry_run=False)).tokens == ()


async def test_of_all_processes_one_cleans_up_in_a_period(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault, expires_at_ms=now_ms(core) + 1_000)
    await pass_time(core, 1_100)

    first, second = await asyncio.gather(clean_up(core, 3600), clean_up(core, 3600))

    assert {first, second} == {1, None}
    (event,) = told(core, Operation.TOKEN_EXPIRE)
    assert event.actor == "process:token-cleanup"


async def test_the_scheduled_clean_up_goes_on_until_it_is_cancelled(core: CoreUnderTest, vault: TokenVault) -> None:
    await kept(core, vault, expires_at_ms=now_ms(core) + 1_000)
    await pass_time(core, 1_100)

    task = asyncio.create_task(token_cleanup(core, 0.05))
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not await vault.tokens():
            break
    task.cancel()

    assert await vault.tokens() == []
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("tampered", [{"ciphertext": b""}, {"key_id": b"short"}, {"key_version": 0}], ids=str)
async def test_no_row_that_somebody_wrote_keeps_tokens_alive(core: CoreUnderTest, tampered: dict[str, Any]) -> None:
    later_ms = core.store.transaction(database_ms) + HOUR_MS
    for owner in (CRM, MAIL):
        await core.tokens.store(owner, "access", PLANTED, expires_at_ms=later_ms, create_missing=True)
    columns = {"integration_id": "crm", "key_id": bytes(16), "key_version": 1, "stored_ms": 1, "expires_ms": 1}
    strangers = [
        {"owner": CRM.encode() + b"?", "token_id": "access"},
        *({"owner": CRM.encode(), "token_id": f"a {number}"} for number in range(CHUNK + 1)),
    ]

    def tamper(connection: Connection) -> None:
        connection.execute(update(TOKEN).where(TOKEN.c.owner == CRM.encode()).values(**tampered))
        for row in strangers:
            connection.execute(insert(TOKEN).values(**columns, **row, generation=1, ciphertext=b"?"))

    core.store.transaction(tamper)

    assert (await core.tokens.purge_expired(dry_run=False)).tokens == ()
    assert len(await core.tokens.tokens()) == 2
    assert await core.tokens.invalidate_all(Reach(tenant_id="t-88"), reason=KeyReason.COMPROMISE_SUSPECTED) == 2
    assert await core.tokens.tokens() == []
    await core.relay()
    assert len(core.events.only(Operation.TOKEN_INVALIDATE)) == 2


def cut_off(store_url: str, registry: Registry, signer: Signer) -> CryptoCore:
    """Make a core that reaches its database and nothing else."""

    class Away:
        async def send(self, partition: int, batch: SealedBatch) -> None:
            raise ConnectionError

        async def close(self) -> None: ...

    emitter = Emitter(
        spool_dir=Path("/proc/no/such/folder"),
        signer=signer,
        deployment=registry.deployment,
        service=testing.SERVICE,
        transport=Away(),
        partitions=2,
    )
    return CryptoCore(
        service=testing.SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(store_url, registry=registry, clock=testing.ManualClock()),
        wrappers={},
        kek_alias=testing.ALIAS,
        emitter=emitter,
        key_signer=signer,
    )
