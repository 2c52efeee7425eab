"""Rewrap beside the vault alone: the same client, the same three calls for each DEK, without events and key store.

The local vault runs in a process of its own and does real RSA over TLS; the client is the Azure SDK. A rewrap is an
unwrap, a wrap, and the unwrap that compares (docs/formats.md), so the baseline is calls of this mix, by as many callers
as a rewrap has DEKs under way. SQLite on disk, spool with an fsync before each call and after. Measured in turns,
medians compared.

`rewrap` is against the local vault as fast as it goes, which is faster than any real one: what it shows is our own cost
in one process. `rewrap_at_limit` is against the rate that Azure allows a vault (cryptocore/throttle.py): there the
calls are held to that rate, for both.
"""

import asyncio
import multiprocessing
import os
import random
import ssl
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from azure.core.credentials import AccessToken

from bench.bench_core import Sink
from bench.result import Result
from cryptocore.azure import AzureKeyWrapper
from cryptocore.clock import SystemClock
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.life.rewrap import CONCURRENCY
from cryptocore.signing import Signer
from cryptocore.store.cursors import Pace
from cryptocore.store.key_store import KeyStore
from cryptocore.testing import register
from cryptocore.wrapping import Unwrapped, Wrapped, build_blob
from streams.demo.identities import Identity
from streams.demo.loopback import LOOPBACK, transport
from streams.demo.vault import VaultServer

HOST = "kv-bench.vault.azure.net"
KEY = "tokens"
KEYS = 384
CALLERS = CONCURRENCY
ROUNDS = 3
CALLS = 3
LIMIT_PER_S = 200
"""2,000 operations with HSM-backed RSA-2048 keys in 10 s, from all callers together."""


def serve(pipe: Connection) -> None:
    """Run the vault until the other end of the pipe closes; `rotate` makes a new KEK version."""

    async def run() -> None:
        server = VaultServer([HOST], clock=SystemClock(), ids=os.urandom, jitter=random.Random(1))
        keys = server.vault(HOST).keys
        keys.create(KEY, SystemClock().now_us())
        await server.start()
        permissions = frozenset({"get", "wrapKey", "unwrapKey"})
        token = server.directory.issue(Identity("bench", "oid", "app", "10.1.2.3", permissions))
        pipe.send((server.port, token))
        while await asyncio.to_thread(pipe.recv):
            keys.create(KEY, SystemClock().now_us())
            pipe.send(None)
        await server.stop()

    asyncio.run(run())


class Limited(AzureKeyWrapper):
    """A vault that takes LIMIT_PER_S calls a second when `limited`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limited = False
        self._pace = Pace(LIMIT_PER_S, SystemClock())

    async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
        await self._turn()
        return await super().wrap(blob, version=version, call_ids=call_ids)

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        await self._turn()
        return await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)

    async def _turn(self) -> None:
        if self.limited:
            await self._pace.turn()


class _Token:
    """The one token that the vault gave out."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get_token(self, *scopes: str, **options: object) -> AccessToken:
        del scopes, options  # the vault looks at the token only
        return AccessToken(self._token, 4_102_444_800)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def bare(wrapper: Limited) -> float:
    """Calls a second of unwrap, wrap, unwrap by CALLERS, with nothing around them."""
    version = await wrapper.current_version()
    blob = build_blob(bytes(32), 1, bytes(16), 1, Owner.secret("bench"))  # type: ignore[arg-type]
    wrapped = (await wrapper.wrap(blob, version=version, call_ids=wrapper.draw_call_ids())).wrapped_dek

    async def caller() -> None:
        for _ in range(KEYS // CALLERS):
            await wrapper.unwrap(wrapped, version=version, call_ids=wrapper.draw_call_ids())
            new = await wrapper.wrap(blob, version=version, call_ids=wrapper.draw_call_ids())
            await wrapper.unwrap(new.wrapped_dek, version=version, call_ids=wrapper.draw_call_ids())

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return KEYS // CALLERS * CALLERS * CALLS / (time.perf_counter() - started)


async def rewrap(core: CryptoCore) -> float:
    """Calls a second of a whole rewrap."""
    started = time.perf_counter()
    progress = await core.rewrap(actor="user:1", purpose="bench")
    assert progress.done == KEYS, progress
    return progress.done * CALLS / (time.perf_counter() - started)


async def measure(pipe: Connection, port: int, token: str, folder: Path) -> list[Result]:
    trusted = ssl.create_default_context(cadata=ssl.get_server_certificate((LOOPBACK, port)))
    wrapper = Limited(
        "kek", vault_url=f"https://{HOST}", key_name=KEY, credential=_Token(token), transport=transport(trusted, port)
    )
    signer = Signer.generate()
    registry = register(signer)
    core = CryptoCore(
        service="tested",
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(f"sqlite:///{folder / 'keys.sqlite'}", registry=registry),
        wrappers={"kek": wrapper},
        kek_alias="kek",
        emitter=Emitter(
            spool_dir=folder / "spool",
            signer=signer,
            deployment=registry.deployment,
            service="tested",
            transport=Sink(),
            partitions=8,
        ),
        key_signer=signer,
    )
    ours, vault = [], []
    async with core:
        for number in range(KEYS):
            await core.create_key(Owner.tenant(f"t-{number}", "crm"), actor="user:1", purpose="bench")
        for turn in range(ROUNDS + 1):
            wrapper.limited = turn == ROUNDS
            pipe.send(True)
            pipe.recv()
            vault.append(await bare(wrapper))
            ours.append(await rewrap(core))
    await wrapper.close()
    free, beside = statistics.median(ours[:ROUNDS]), statistics.median(vault[:ROUNDS])
    return [
        Result("rewrap", free, "vault calls/s", KEYS * CALLS, "the vault's own calls", beside),
        Result("rewrap_at_limit", ours[-1], "vault calls/s", KEYS * CALLS, "the vault's own calls", vault[-1]),
    ]


def run() -> list[Result]:
    """Measure `rewrap` and `rewrap_at_limit`; the aim is 80 % of what the vault does alone."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        port, token = ours.recv()
        with TemporaryDirectory() as folder:
            return asyncio.run(measure(ours, port, token, Path(folder)))
    finally:
        ours.send(False)
        process.join(10)


if __name__ == "__main__":
    for result in run():
        print(result)
