"""100,000 keys beside 1,000: does encryption stay as fast, and what a process remembers as small?

Signed key versions are written to SQLite in bulk, each with a DEK wrapped by real RSA. Then, on the small store and on
the large one, eight callers encrypt: nine of ten uses for 100 busy owners, one for an owner drawn from all, so that
store and KEK are asked as often on both. Memory is what Python holds after 2,000 and after 8,000 owners, with a cache
of 50 entries: by then everything that is bounded is full.
"""

import asyncio
import gc
import os
import random
import time
import tracemalloc
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, insert

from bench.bench_core import Sink
from bench.result import Result
from cryptocore.cache import CacheLimits
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner, Suite
from cryptocore.keys import KeyReason, KeyState
from cryptocore.records import NO_PREVIOUS, KeyRecord, sign_record
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.store.tables import KEY_HISTORY, KEY_VERSION
from cryptocore.testing import register
from cryptocore.wrapping import LocalKeyWrapper, WrapAlgorithm, build_blob, commitment

SMALL, LARGE = 1_000, 100_000
USES, CALLERS, BUSY = 4_000, 8, 100
ENTRIES = 50
REMEMBERED = (2_000, 8_000)
BULK = 5_000
SIGNER = Signer.generate()
REGISTRY = register(SIGNER)
KEK = LocalKeyWrapper("kek")


def owner_of(number: int) -> Owner:
    return Owner.tenant(f"t-{number}", "crm")


async def made(number: int) -> tuple[dict[str, object], dict[str, object]]:
    """A key version as the store keeps it, and its history."""
    owner, key_id, dek = owner_of(number), number.to_bytes(16, "big"), os.urandom(32)
    blob = build_blob(dek, Suite.XAES_256_GCM, key_id, 1, owner)
    wrapped = (await KEK.wrap(blob, version="1", call_ids=("bench",))).wrapped_dek
    record = KeyRecord(
        deployment=REGISTRY.deployment,
        key_id=key_id,
        key_version=1,
        revision=1,
        state=KeyState.ACTIVE,
        reason=KeyReason.NONE,
        suite=Suite.XAES_256_GCM,
        owner_sha256=owner.digest(),
        kek_alias="kek",
        kek_version="1",
        wrap_alg=WrapAlgorithm.LOCAL,
        wrapped_dek_sha256=sha256(wrapped).digest(),
        commitment=commitment(dek, Suite.XAES_256_GCM, key_id, 1),
        changed_at_ms=time.time_ns() // 1_000_000,
        superseded_by=0,
        retire_at_ms=0,
        previous_record_sha256=NO_PREVIOUS,
        event_sha256=bytes(32),
        signer_id=SIGNER.signer_id,
    )
    signed = sign_record(record, SIGNER)
    name = {"key_id": key_id, "version": 1, "revision": 1, "record": signed.record, "signature": signed.signature}
    columns = {"state": "active", "owner": owner.encode(), "superseded_by": 0, "retire_at_ms": 0}
    return name | columns | {"kek_alias": "kek", "kek_version": "1", "wrapped_dek": wrapped}, name


async def fill(store: KeyStore, count: int) -> None:
    for begin in range(0, count, BULK):
        rows = [await made(number) for number in range(begin, min(begin + BULK, count))]

        def write(connection: Connection, rows: list[tuple[dict[str, object], dict[str, object]]] = rows) -> None:
            connection.execute(insert(KEY_VERSION), [version for version, _ in rows])
            connection.execute(insert(KEY_HISTORY), [history for _, history in rows])

        store.transaction(write)


def core_of(folder: Path, store: KeyStore, limits: CacheLimits) -> CryptoCore:
    emitter = Emitter(
        spool_dir=folder / "spool",
        signer=SIGNER,
        deployment=REGISTRY.deployment,
        service="tested",
        transport=Sink(),
        partitions=8,
    )
    return CryptoCore(
        service="tested",
        deployment=REGISTRY.deployment,
        registry=REGISTRY,
        store=store,
        wrappers={"kek": KEK},
        kek_alias="kek",
        emitter=emitter,
        key_signer=SIGNER,
        limits=limits,
    )


async def p99_ms(core: CryptoCore, keys: int) -> float:
    drawn, took = random.Random(keys), []

    async def caller() -> None:
        for use in range(USES // CALLERS):
            number = drawn.randrange(BUSY, keys) if use % 10 == 0 else drawn.randrange(BUSY)
            begun = time.perf_counter()
            await core.encrypt(b"x" * 1024, owner=owner_of(number), record="row", actor="user:1", purpose="bench")
            took.append(time.perf_counter() - begun)

    async with core:
        for number in range(BUSY):
            await core.encrypt(b"x", owner=owner_of(number), record="row", actor="user:1", purpose="bench")
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return sorted(took)[round(len(took) * 0.99) - 1] * 1000


async def remembered_kib(core: CryptoCore) -> tuple[float, float]:
    """What Python holds more than at the beginning, after few owners and after many."""
    tracemalloc.start()
    begun, held = tracemalloc.get_traced_memory()[0], []
    number = 0
    for target in REMEMBERED:
        while number < target:
            assert await core.parts.keyring.newest(owner_of(number)) is not None
            number += 1
        gc.collect()
        held.append((tracemalloc.get_traced_memory()[0] - begun) / 1024)
    tracemalloc.stop()
    return held[0], held[1]


def run() -> list[Result]:
    with TemporaryDirectory() as name:
        folder, p99 = Path(name), {}
        for keys in (SMALL, LARGE):
            place = folder / str(keys)
            place.mkdir()
            store = KeyStore(f"sqlite:///{place / 'keys.sqlite'}", registry=REGISTRY)
            asyncio.run(fill(store, keys))
            p99[keys] = asyncio.run(p99_ms(core_of(place, store, CacheLimits()), keys))
            if keys == LARGE:
                core = core_of(folder / "memory", store, CacheLimits(dek_max_entries=ENTRIES))
                few, many = asyncio.run(remembered_kib(core))
            store.close()
    return [
        Result("keys_100k_encrypt_p99", p99[LARGE], "ms", USES, "with 1,000 keys", p99[SMALL]),
        Result("keys_100k_cache_memory", many, "KiB", REMEMBERED[1], f"after {REMEMBERED[0]:,} owners", few),
    ]
