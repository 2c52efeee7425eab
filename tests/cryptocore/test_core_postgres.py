"""A whole core on PostgreSQL, as users who own nothing: what a service does goes with the rights of its role."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import make_url, text

from cryptocore import testing
from cryptocore.audit import StoreAway
from cryptocore.cache import CacheLimits, KeyCache
from cryptocore.context import acting
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, KeyUnavailable
from cryptocore.events import Operation
from cryptocore.keyring import Keyring
from cryptocore.keys import KeyReason
from cryptocore.signing import Signer
from cryptocore.tokens.vault import TokenVault
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.stores import Database, postgres_database
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.servers
OWNER = Owner.tenant("t-88", "crm")
HOUR_MS = 3_600_000


@contextmanager
def user(database: Database, role: str) -> Iterator[str]:
    name = f"svc_{os.urandom(4).hex()}"
    database.run(f"CREATE ROLE {name} LOGIN")
    database.run(f"GRANT {role} TO {name}")
    yield make_url(database.url).set(username=name).render_as_string(hide_password=False)
    database.run(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture(autouse=True)
def somebody() -> Iterator[None]:
    with acting("user:1", "x"):
        yield


async def test_each_role_can_do_its_work_and_no_more(postgres_url: str) -> None:
    database, signer = postgres_database(postgres_url), Signer.generate()
    wrapper = LocalKeyWrapper(testing.ALIAS, clock=testing.ManualClock())
    with user(database, "keytrail_admin") as admin_url, user(database, "keytrail_use") as use_url:
        async with (
            testing.core(store_url=admin_url, signer=signer, wrapper=wrapper) as admin,
            testing.core(store_url=use_url, signer=signer, wrapper=wrapper) as use,
        ):
            before = await admin.encrypt(b"one", owner=OWNER, record="row", create_missing=True)
            assert await use.decrypt(before, owner=OWNER, record="row") == b"one"
            await admin.rotate(OWNER, reason=KeyReason.SCHEDULED)
            use.clock.advance(16)
            after = await use.encrypt(b"two", owner=OWNER, record="row")
            assert await admin.decrypt(after, owner=OWNER, record="row") == b"two"
            assert await use.decrypt(before, owner=OWNER, record="row") == b"one"

            tokens = TokenVault(use)
            expires_ms = use.clock.now_us() // 1000 + 10 * 365 * 24 * HOUR_MS
            await tokens.store(OWNER, "access", b"token", expires_at_ms=expires_ms)
            assert await tokens.use(OWNER, "access") == b"token"
            await tokens.invalidate(OWNER, "access")

            key_id = (await admin.describe(OWNER)).key_id
            with pytest.raises(KeyUnavailable):
                await use.revoke(key_id, reason=KeyReason.OPERATOR)
            await admin.revoke(key_id, reason=KeyReason.COMPROMISE_SUSPECTED)
            use.clock.advance(16)
            with pytest.raises(AccessDenied):
                await use.decrypt(after, owner=OWNER, record="row")

            await use.relay()
            await admin.relay()
            assert use.store.outbox(testing.SERVICE, 10) == []
            told = {event.operation for core in (use, admin) for event in core.events.only(Operation.REVOKE)}
            assert told == {Operation.REVOKE}


async def test_a_server_that_hangs_keeps_nobody_waiting(own_postgres: PostgresServer) -> None:
    database = postgres_database(own_postgres.address)
    async with testing.core(store_url=database.url) as core:
        cache = KeyCache(CacheLimits(store_wait_s=0.5, failure_s=0))
        keyring = Keyring(core.store, cache, core.parts.calls, {}, clock=core.clock, threads=True)
        backend = core.store.transaction(lambda it: it.execute(text("SELECT pg_backend_pid()")).scalar_one())
        os.kill(backend, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(StoreAway) as caught:
                await keyring.newest(OWNER)
            waited = time.monotonic() - begun
        finally:
            os.kill(backend, signal.SIGCONT)

        assert caught.value.public().retryable
        assert waited < 15  # the default is 20
        assert await keyring.newest(OWNER) is None
