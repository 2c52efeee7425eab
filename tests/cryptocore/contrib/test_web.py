"""The examples for FastAPI and Flask, with requests of real clients."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cryptocore import KeyReason, Owner, acting, testing
from cryptocore.contrib.asgi import ActorMiddleware
from cryptocore.errors import MissingActor
from cryptocore.events import Operation, Outcome
from examples import fastapi_app, flask_app

USER = {"X-User": "4711"}
TOKEN = "/tenants/t-88/tokens/17"


async def test_the_fastapi_example_encrypts_and_decrypts_as_the_user_of_each_request() -> None:
    async with testing.core() as core:
        app = fastapi_app.make_app(core)
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as web:
            saved = await web.put(TOKEN, json={"token": "refresh-me"}, headers=USER)
            loaded = await web.get(TOKEN, headers={"X-User": "4712"})

        assert (saved.status_code, loaded.json()) == (204, {"token": "refresh-me"})
        [encrypt], [decrypt] = core.events.only(Operation.ENCRYPT), core.events.only(Operation.DECRYPT)
        assert (encrypt.actor, encrypt.purpose) == ("user:4711", "store-token")
        assert (decrypt.actor, decrypt.purpose) == ("user:4712", "crm-sync")


async def test_a_request_of_nobody_uses_no_key_and_a_revoked_key_is_a_conflict() -> None:
    async with testing.core() as core:
        app = fastapi_app.make_app(core)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
            nobody = await web.put(TOKEN, json={"token": "refresh-me"})
            await web.put(TOKEN, json={"token": "refresh-me"}, headers=USER)
            with acting(actor="user:1", purpose="offboarding"):
                key = await core.describe(Owner.tenant("t-88", "crm"))
                await core.revoke(key.key_id, reason=KeyReason.OFFBOARDED)
            revoked = await web.get(TOKEN, headers=USER)

        assert (nobody.status_code, nobody.json()) == (500, {"error": "MissingActor"})
        assert (revoked.status_code, revoked.json()) == (409, {"error": "AccessDenied"})


async def test_the_middleware_lets_go_of_who_acted_around_it_and_of_the_purpose_it_set() -> None:
    seen = []

    async def app(scope: object, receive: object, send: object) -> None:
        async with testing.core() as core:
            await core.encrypt(b"x", owner=Owner.secret("s"), record="r", create_missing=True)
            [event] = core.events.only(Operation.ENCRYPT)
            seen.append((event.actor, event.purpose))

    web = ActorMiddleware(app, actor=lambda scope: scope["who"], purpose=lambda scope: scope["path"])
    await web({"type": "websocket", "who": "user:1", "path": "sync"}, None, None)  # type: ignore[arg-type]
    with acting(actor="user:outer", purpose="outer"), pytest.raises(MissingActor):
        await web({"type": "http", "who": None, "path": "sync"}, None, None)  # type: ignore[arg-type]

    assert seen == [("user:1", "sync")]


async def test_the_middleware_passes_on_the_lifespan() -> None:
    scopes = []

    async def app(scope: object, receive: object, send: object) -> None:
        scopes.append(scope)

    await ActorMiddleware(app, actor=lambda scope: scope["nothing"])({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert scopes == [{"type": "lifespan"}]


@pytest.fixture
def core() -> Iterator[testing.CoreUnderTest]:
    with testing.blocking_core() as core:
        yield core


def test_the_flask_example_encrypts_and_decrypts_as_the_user_of_each_request(core: testing.CoreUnderTest) -> None:
    web = flask_app.make_app(core).test_client()

    saved = web.put(TOKEN, json={"token": "refresh-me"}, headers=USER)
    loaded = web.get(TOKEN, headers={"X-User": "4712"})

    assert (saved.status_code, loaded.json) == (204, {"token": "refresh-me"})
    [encrypt], [decrypt] = core.events.only(Operation.ENCRYPT), core.events.only(Operation.DECRYPT)
    assert (encrypt.actor, encrypt.purpose) == ("user:4711", "store-token")
    assert (decrypt.actor, decrypt.outcome) == ("user:4712", Outcome.SUCCEEDED)


def test_a_flask_thread_does_not_carry_one_user_into_the_next_request(core: testing.CoreUnderTest) -> None:
    web = flask_app.make_app(core).test_client()
    web.put(TOKEN, json={"token": "refresh-me"}, headers=USER)

    nobody = web.get(TOKEN)

    assert (nobody.status_code, nobody.json) == (500, {"error": "MissingActor", "retryable": False})
    assert core.events.only(Operation.DECRYPT) == []


def test_many_flask_threads_act_each_as_their_own_user(core: testing.CoreUnderTest, tmp_path: Path) -> None:
    app = flask_app.make_app(core)
    app.test_client().put(TOKEN, json={"token": "refresh-me"}, headers=USER)

    def get(user: str) -> None:
        assert app.test_client().get(TOKEN, headers={"X-User": user}).json == {"token": "refresh-me"}

    threads = [threading.Thread(target=get, args=(str(number),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(event.actor for event in core.events.only(Operation.DECRYPT)) == sorted(
        f"user:{number}" for number in range(16)
    )
