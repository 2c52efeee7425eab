"""What a service's own tests use: a clock that is set by hand, a log in memory, and a whole core on both.

async with testing.core() as core:
token = await core.encrypt(b"...", owner=OWNER, record="tokens/1", create_missing=True)
assert core.events.only(Operation.ENCRYPT)
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptocore.batch import Seal, SealedBatch, open_batch
from cryptocore.cache import CacheLimits
from cryptocore.clock import parse_rfc3339
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.events import AuditEvent, Durability, Operation
from cryptocore.purposes import Purposes
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.wrapping import LocalKeyWrapper

START: Final = "2026-11-16T08:00:00.000000Z"
"""A Monday morning: when a `ManualClock` starts unless told otherwise."""


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, start: str = START) -> None:
        self._us = parse_rfc3339(start)

    def now_us(self) -> int:
        return self._us

    def monotonic(self) -> float:
        return self._us / 1_000_000

    def advance(self, seconds: float) -> None:
        """Move on; time does not go back."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._us += round(seconds * 1_000_000)


class CountedIds:
    """Ids that are the same in each run; for ids only, never for keys or nonces."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed.encode()
        self._drawn = 0

    def __call__(self, size: int) -> bytes:
        self._drawn += 1
        return sha256(self._seed + self._drawn.to_bytes(8, "big")).digest()[:size]


class MemoryTransport:
    """A log in memory: keeps the batches it took, in order; `down` makes it refuse."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, SealedBatch]] = []
        self.down = False
        self.closed = False

    async def send(self, partition: int, batch: SealedBatch) -> None:
        if self.down:
            raise ConnectionError("the log in memory is down")
        self.batches.append((partition, batch))

    async def close(self) -> None:
        self.closed = True


class Events:
    """What a core recorded, read from its log as a receiver reads it."""

    def __init__(self, transport: MemoryTransport, registry: Registry) -> None:
        self._transport = transport
        self._registry = registry

    def __iter__(self) -> Iterator[AuditEvent]:
        for partition, batch in self._transport.batches:
            sealed_at_ms = Seal.decode(batch.seal).sealed_at_ms
            opened = open_batch(batch, self._registry, generation=1, partition=partition, append_ms=sealed_at_ms)
            yield from (line for line in opened.lines if isinstance(line, AuditEvent))

    def only(self, operation: Operation) -> list[AuditEvent]:
        """List the events of one operation, in the order of the log."""
        return [event for event in self if event.operation is operation]


class CoreUnderTest(CryptoCore):
    """A CryptoCore on a log in memory, a KEK in the process and a clock set by hand; see `core`."""

    clock: ManualClock
    transport: MemoryTransport
    wrapper: LocalKeyWrapper
    store: KeyStore
    emitter: Emitter
    registry: Registry
    events: Events


SERVICE: Final = "tested"
ALIAS: Final = "test-kek"


def register(*signers: Signer, source: str = SERVICE, deployment: bytes = bytes(16)) -> Registry:
    """Register signers for a source, for events and keys, at any time."""
    entries = tuple(
        RegisteredSigner(
            signer_id=signer.signer_id,
            public_key=signer.public_key,
            source=source,
            roles=frozenset({Role.EVENTS, Role.KEYS}),
            vault_principals=(),
            person=None,
            valid_from_ms=0,
            valid_until_ms=_FOR_EVER_MS,
        )
        for signer in signers
    )
    return Registry(deployment, entries)


def with_approvers(registry: Registry, approvers: Mapping[str, Signer]) -> Registry:
    """Register people who approve, each with one key."""
    for person, signer in approvers.items():
        one = register(signer, source="people").signers[0]
        registry = registry.with_signer(replace(one, roles=frozenset({Role.APPROVE}), person=person))
    return registry


def make_core(
    directory: Path,
    *,
    store_url: str = "sqlite://",
    limits: CacheLimits | None = None,
    signer: Signer | None = None,
    approvers: Mapping[str, Signer] | None = None,
    wrapper: LocalKeyWrapper | None = None,
    purposes: Purposes | None = None,
) -> CoreUnderTest:
    """Make a core that is not open yet, with its spool in a folder; `core` and `blocking_core` do the rest."""
    signer, clock, transport = signer or Signer.generate(), ManualClock(), MemoryTransport()
    registry = with_approvers(register(signer), approvers or {})
    store = KeyStore(store_url, registry=registry, clock=clock)
    wrapper = wrapper or LocalKeyWrapper(ALIAS, clock=clock)
    emitter = Emitter(
        spool_dir=directory,
        signer=signer,
        deployment=registry.deployment,
        service=SERVICE,
        transport=transport,
        partitions=2,
        clock=clock,
        durability=Durability.BROKER,
        background=False,
    )
    tested = CoreUnderTest(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=store,
        wrappers={ALIAS: wrapper},
        kek_alias=ALIAS,
        emitter=emitter,
        key_signer=signer,
        clock=clock,
        limits=limits,
        purposes=purposes,
    )
    tested.clock, tested.transport, tested.wrapper, tested.store = clock, transport, wrapper, store
    tested.emitter, tested.registry, tested.events = emitter, registry, Events(transport, registry)
    return tested


@asynccontextmanager
async def core(
    *,
    store_url: str = "sqlite://",
    limits: CacheLimits | None = None,
    signer: Signer | None = None,
    approvers: Mapping[str, Signer] | None = None,
    wrapper: LocalKeyWrapper | None = None,
    purposes: Purposes | None = None,
) -> AsyncIterator[CoreUnderTest]:
    """Open a core for a test. Events are in `events` when a call returns, those of the life cycle after `relay`.

    Args:
        store_url: a database of its own unless told otherwise.
        limits: of what is remembered.
        signer: of the service; two cores on one store share it.
        approvers: people who may approve, by name.
        wrapper: the KEK; two cores on one store share it.
        purposes: the declared ones; any purpose otherwise.
    """
    with TemporaryDirectory(prefix="keytrail-") as directory:
        tested = make_core(
            Path(directory),
            store_url=store_url,
            limits=limits,
            signer=signer,
            approvers=approvers,
            wrapper=wrapper,
            purposes=purposes,
        )
        async with tested:
            yield tested
        tested.store.close()


@contextmanager
def blocking_core(*, store_url: str = "sqlite://") -> Iterator[CoreUnderTest]:
    """Give a core for a test of code that blocks: it calls `core.sync`, which opens the core."""
    with TemporaryDirectory(prefix="keytrail-") as directory:
        tested = make_core(Path(directory), store_url=store_url)
        try:
            yield tested
        finally:
            tested.sync.close()
            tested.store.close()


_FOR_EVER_MS: Final = 2**47
