"""What only a server does: refuses, waits, restarts, takes no writes; and what the store says of it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import create_engine, make_url, text

from cryptocore.envelope import Owner
from cryptocore.errors import ConfigurationError, KeyUnavailable
from cryptocore.keys import KeyState
from cryptocore.store.check import GUARDS, check
from cryptocore.store.engine import StoreOptions, engine_of
from cryptocore.store.key_store import Change, StoreConflict
from cryptocore.store.migration import migrate
from cryptocore.store.schema import REVISIONS, metadata
from tests.conftest import database_on
from tests.cryptocore.stores import KEY, OWNER, Database, change, postgres_database, record
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.servers

QUICK = StoreOptions(
    connect_s=2, statement_ms=1_500, lock_ms=300, idle_ms=1_000, pool_size=2, pool_more=0, pool_wait_s=0.5
)


@pytest.fixture(scope="module")
def server_database(postgres_server_url: str) -> Iterator[Database]:
    with database_on(postgres_server_url) as url:
        yield postgres_database(url)


@pytest.fixture
def database(server_database: Database) -> Database:
    server_database.empty()
    return server_database


@contextmanager
def user(database: Database, role: str | None) -> Iterator[str]:
    """The URL of a user who owns nothing and has one of our roles."""
    name = f"svc_{os.urandom(4).hex()}"
    database.run(f"CREATE ROLE {name} LOGIN")
    if role is not None:
        database.run(f"GRANT {role} TO {name}")
    yield make_url(database.url).set(username=name).render_as_string(hide_password=False)
    database.run(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def use_url(database: Database) -> Iterator[str]:
    with user(database, "keytrail_use") as url:
        yield url


@pytest.fixture
def admin_url(database: Database) -> Iterator[str]:
    with user(database, "keytrail_admin") as url:
        yield url


def of_another(event_id: str, key_id: bytes = b"o" * 16) -> Change:
    """A key of an owner of its own."""
    owner = Owner.tenant(key_id.hex(), "crm")
    return change(record(key_id=key_id, owner=owner), event_id, owner=owner)


def refused(work: Callable[[], object]) -> KeyUnavailable:
    with pytest.raises(KeyUnavailable) as caught:
        work()
    return caught.value


# --- schema ----------------------------------------------------------------------------------------------------------


def test_the_store_makes_no_tables_and_names_the_command_that_does(postgres_url: str) -> None:
    store = Database(postgres_url, postgres=True).store()

    error = refused(lambda: store.newest(OWNER))
    assert "keytrail store migrate" in str(error)
    assert not error.retryable
    migrate(postgres_url)
    assert store.newest(OWNER) is None
    store.close()


def test_an_older_schema_is_refused_and_a_newer_one_taken(postgres_url: str) -> None:
    database = postgres_database(postgres_url)
    store = database.store()
    database.run(f"UPDATE keytrail_migration SET version_num = '{REVISIONS[0]}'")

    error = refused(lambda: store.newest(OWNER))
    assert REVISIONS[0] in str(error)
    assert "keytrail store migrate" in str(error)
    database.run("UPDATE keytrail_migration SET version_num = '9999_later'")
    assert store.newest(OWNER) is None
    with pytest.raises(ConfigurationError, match="newer"):
        migrate(postgres_url)
    store.close()


def test_migrating_again_changes_nothing(database: Database) -> None:
    assert migrate(database.url) == []


def test_what_the_migrations_make_is_what_the_code_works_with(database: Database) -> None:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415

    with database.behind() as engine, engine.connect() as connection:
        connection.execute(text("SET search_path = keytrail"))
        context = MigrationContext.configure(connection, opts={"version_table": "keytrail_migration"})
        differences = compare_metadata(context, metadata)

    assert differences == []


def test_every_guard_of_sqlite_is_one_of_postgresql(database: Database) -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        query = text("SELECT tbl_name, COUNT(*) FROM sqlite_master WHERE type = 'trigger' GROUP BY tbl_name")
        counts = {row[0]: row[1] for row in connection.execute(query)}
    engine.dispose()

    assert counts == {table: sum(not name.endswith("_truncate") for name in names) for table, names in GUARDS.items()}


# --- rights ----------------------------------------------------------------------------------------------------------


def test_who_uses_keys_reads_them_and_cannot_change_them(database: Database, use_url: str, admin_url: str) -> None:
    admin, use = database.store(url=admin_url), database.store(url=use_url)
    first = change(record(), "one")
    admin.apply([first])

    assert use.version(KEY, 1) is not None
    error = refused(lambda: use.apply([change(record(state=KeyState.REVOKED, previous=first.version), "two")]))
    assert "keytrail_use or keytrail_admin" in str(error)
    assert not error.retryable
    claim = use.claim("billing", 10)
    assert len(claim.rows) == 1
    claim.sent(1)
    admin.close()
    use.close()


@pytest.mark.parametrize("table", ["key_version", "key_history", "audit_outbox", "token", "rotation", "statement"])
def test_nobody_deletes(database: Database, admin_url: str, table: str) -> None:
    store = database.store(url=admin_url)

    for act in (f"DELETE FROM keytrail.{table}", f"TRUNCATE keytrail.{table}"):
        error = refused(lambda act=act: store.transaction(lambda it: it.execute(text(act))))  # type: ignore[misc]
        assert "may not do this" in str(error)
    store.close()


def test_a_check_is_well_for_a_user_and_tells_what_is_wrong(postgres_url: str) -> None:
    database = postgres_database(postgres_url)
    with user(database, "keytrail_use") as url:
        assert [look for look in check(url) if look.well is False] == []

        database.run("ALTER TABLE key_history DISABLE TRIGGER key_history_delete")
        database.run("DROP INDEX key_version_newest")
        database.run("GRANT DELETE ON token TO keytrail_admin")
        database.run("GRANT UPDATE (state) ON key_version TO keytrail_use")
        wrong = {look.subject: look.says for look in check(url) if look.well is False}

    assert set(wrong) == {"triggers", "one key per owner", "grants"}
    assert "key_history_delete" in wrong["triggers"]
    assert "keytrail_admin DELETE on token" in wrong["grants"]
    assert "keytrail_use UPDATE on key_version" in wrong["grants"]


def test_a_check_tells_of_an_owner_and_of_a_user_without_a_role(database: Database) -> None:
    owner = {look.subject: look for look in check(database.url)}
    assert owner["user"].well is False
    assert "superuser" in owner["user"].says

    with user(database, None) as url:
        assert [look.subject for look in check(url) if look.well is False]


# --- outbox ----------------------------------------------------------------------------------------------------------


def test_two_relays_are_never_given_the_same_row_at_once(database: Database) -> None:
    one, other = database.store(), database.store()
    one.apply([change(record(), "one")])
    one.apply([of_another("two")])
    first = one.claim("billing", 1)

    second = other.claim("billing", 10)

    assert [row.line for row in first.rows] == [b"one"]
    assert [row.line for row in second.rows] == [b"two"]
    assert one.claim("billing", 10).rows == []
    second.sent(1)
    first.release()
    again = other.claim("billing", 10)
    assert [row.line for row in again.rows] == [b"one"]
    again.sent(1)
    one.close()
    other.close()


def test_a_relay_that_hangs_loses_its_rows_to_another(database: Database) -> None:
    hangs, other = database.store(QUICK), database.store()
    hangs.apply([change(record(), "one")])
    held = hangs.claim("billing", 10)
    time.sleep(1.5)

    taken = other.claim("billing", 10)
    assert len(taken.rows) == 1
    taken.sent(1)
    error = refused(lambda: held.sent(1))
    assert error.retryable
    hangs.close()
    other.close()


async def test_relays_of_many_threads_take_each_row_once(database: Database) -> None:
    store = database.store()
    for number in range(30):
        store.apply([of_another(f"{number}", bytes([number]) * 16)])

    def relay() -> list[bytes]:
        taken: list[bytes] = []
        while rows := (claim := store.claim("billing", 3)).rows:
            taken += [row.line for row in rows]
            claim.sent(1)
        return taken

    lines = await asyncio.gather(*(asyncio.to_thread(relay) for _ in range(4)))

    assert sorted(line for taken in lines for line in taken) == sorted(f"{number}".encode() for number in range(30))
    store.close()


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_lock_that_is_not_given_up_is_worth_another_try(database: Database) -> None:
    store = database.store(QUICK)
    first = change(record(), "one")
    store.apply([first])
    with database.behind() as engine, engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM keytrail.key_version FOR UPDATE"))

        error = refused(lambda: store.apply([change(record(state=KeyState.REVOKED, previous=first.version), "two")]))
    assert error.retryable
    assert "another transaction holds" in str(error)
    store.close()


def test_a_statement_that_takes_too_long_is_worth_another_try(database: Database) -> None:
    store = database.store(QUICK)

    error = refused(lambda: store.transaction(lambda it: it.execute(text("SELECT pg_sleep(10)"))))
    assert error.retryable
    assert "too long" in str(error)
    store.close()


def test_of_two_transactions_that_wait_for_each_other_one_may_try_again(database: Database) -> None:
    store = database.store()
    for name in (b"a" * 16, b"b" * 16):
        store.apply([of_another(name.decode(), name)])
    met, errors = threading.Barrier(2), []

    def crosswise(*names: bytes) -> None:
        def work(it: object) -> None:
            for turn, name in enumerate(names):
                it.execute(text("SELECT 1 FROM keytrail.key_version WHERE key_id = :k FOR UPDATE"), {"k": name})  # type: ignore[attr-defined]
                if turn == 0:
                    met.wait(10)

        try:
            store.transaction(work)
        except KeyUnavailable as error:
            errors.append(error)

    threads = [
        threading.Thread(target=crosswise, args=names) for names in ((b"a" * 16, b"b" * 16), (b"b" * 16, b"a" * 16))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [error.retryable for error in errors] == [True]
    store.close()


def test_a_serialization_failure_is_worth_another_try(database: Database) -> None:
    store = database.store()
    raise_it = text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'serialization_failure'; END $$")

    assert refused(lambda: store.transaction(lambda it: it.execute(raise_it))).retryable
    store.close()


def test_a_server_that_takes_no_writes_is_worth_another_try_on_a_new_connection(database: Database) -> None:
    store = database.store()
    store.outbox("billing", 1)
    name = make_url(database.url).database
    database.run(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database.run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )

    error = refused(lambda: store.apply([change(record(), "one")]))
    assert error.retryable
    assert "read-only" in str(error)
    with database.behind() as engine, engine.begin() as connection:
        connection.execute(text("SET TRANSACTION READ WRITE"))
        connection.execute(text(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'))
    store.apply([change(record(), "one")])
    store.close()


def test_more_threads_than_connections_wait_and_then_may_try_again(database: Database) -> None:
    store = database.store(QUICK)
    store.apply([change(record(), "one"), of_another("two")])
    held = [store.claim("billing", 1), store.claim("billing", 1)]

    error = refused(lambda: store.newest(OWNER))
    assert error.retryable
    assert "connections are in use" in str(error)
    for claim in held:
        claim.release()
    assert store.newest(OWNER) is not None
    store.close()


def test_a_server_that_is_not_there_is_worth_another_try_and_a_database_that_is_not_is_not(database: Database) -> None:
    away = Database("postgresql://127.0.0.1:1/x", postgres=True).store(QUICK)
    wrong = make_url(database.url).set(database="nowhere").render_as_string(hide_password=False)
    nobody = make_url(database.url).set(username="nobody_here").render_as_string(hide_password=False)

    assert refused(lambda: away.newest(OWNER)).retryable
    for url in (wrong, nobody):
        error = refused(lambda url=url: Database(url, postgres=True).store(QUICK).newest(OWNER))  # type: ignore[misc]
        assert not error.retryable
        assert "nowhere" not in str(error)
        assert "nobody_here" not in str(error)


def test_a_store_outlives_restarts_pauses_and_crashes_of_its_server(own_postgres: PostgresServer) -> None:
    database = postgres_database(own_postgres.address)
    store = database.store(QUICK)
    first = change(record(), "one")
    store.apply([first])

    own_postgres.kill()
    assert refused(lambda: store.newest(OWNER)).retryable
    own_postgres.start()
    assert store.newest(OWNER) is not None

    def dies(_: object) -> None:
        own_postgres.kill()

    lost = change(record(state=KeyState.REVOKED, previous=first.version), "two")
    assert refused(lambda: store.apply([lost], beside=[dies])).retryable
    own_postgres.start()
    version = store.version(KEY, 1)
    assert version is not None
    assert version.record.state is KeyState.ACTIVE
    store.apply([change(record(state=KeyState.REVOKED, previous=first.version), "three")])
    with pytest.raises(StoreConflict):
        store.apply([lost])
    store.close()


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.example/x",
        "postgresql://db.example/x?sslmode=require",
        "postgresql://db.example/x?sslmode=verify-ca",
        "postgresql:///x?host=127.0.0.1&host=db.example",
        "postgresql://127.0.0.1/x?hostaddr=10.0.0.1",
        "postgresql:///x?service=prod",
        "postgresql://db.example/x?sslmode=verify-full&ssl_min_protocol_version=TLSv1",
        "mysql://127.0.0.1/x",
        "no url",
    ],
)
def test_what_would_not_be_protected_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        engine_of(url.replace("://db", "://me:hidden@db"))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1/x",
        "postgresql://localhost:5432/x",
        "postgresql://[::1]/x",
        "postgresql:///x",
        "postgresql:///x?host=/var/run/postgresql",
        "postgresql://db.example/x?sslmode=verify-full",
    ],
)
def test_this_machine_and_verified_tls_are_taken(url: str) -> None:
    engine_of(url).dispose()


def test_plaintext_elsewhere_is_taken_when_it_is_allowed() -> None:
    engine_of("postgresql://db.example/x", StoreOptions(allow_plaintext=True)).dispose()


def certificate(name: str) -> tuple[bytes, bytes]:
    """A certificate for an IP address or a name, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), private


def test_tls_is_verified_and_a_certificate_that_does_not_hold_is_refused(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    database = postgres_database(own_postgres.address)
    data = own_postgres.folder / "data"
    owner = data.stat()
    for name, content in zip(("server.crt", "server.key"), certificate("127.0.0.1"), strict=True):
        (data / name).write_bytes(content)
        (data / name).chmod(0o600)
        os.chown(data / name, owner.st_uid, owner.st_gid)
    trusted, stranger = tmp_path / "ca.pem", tmp_path / "other.pem"
    trusted.write_bytes((data / "server.crt").read_bytes())
    stranger.write_bytes(certificate("127.0.0.1")[0])
    with psycopg.connect(own_postgres.address.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET ssl = on")
    own_postgres.restart()

    verified = database.store(url=f"{database.url}?sslmode=verify-full&sslrootcert={trusted}")
    assert verified.newest(OWNER) is None
    assert any(
        "TLSv1" in look.says
        for look in check(f"{database.url}?sslmode=verify-full&sslrootcert={trusted}")
        if look.subject == "transport"
    )
    refusing = database.store(url=f"{database.url}?sslmode=verify-full&sslrootcert={stranger}")
    error = refused(lambda: refusing.newest(OWNER))
    assert not error.retryable
    assert "certificate does not hold" in str(error)
    verified.close()
    refusing.close()
