"""A core whose KEKs are in the local vault, through the real SDK; its records and its batches are at hand."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptocore.azure import AzureKeyWrapper
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.events import Durability
from cryptocore.life.approvals import Action, Approval, SignedApproval, sign_approval
from cryptocore.life.copies import Copies
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.testing import Events, ManualClock, MemoryTransport, register, with_approvers
from streams.demo.identities import Identity
from streams.demo.vault import VaultServer
from tests.cryptocore.approving import ADA, APPROVERS, BEN, HOUR_MS

HOST: Final = "kv-test.vault.azure.net"
PRINCIPAL: Final = "0b0b0b0b-0000-4000-8000-00000000000b"
ADMINISTRATION: Final = frozenset(
    {"get", "list", "wrapKey", "unwrapKey", "create", "rotate", "update", "delete", "recover", "purge"}
)
NO_COPIES: Final = Copies(complete=True, reviewed="2026-11-01", reviewed_by="user:lena", sha256="00" * 32)
SERVICE: Final = "billing"


@dataclass
class Vaulted:
    """A vault, a store, and cores of one service on both."""

    server: VaultServer
    clock: ManualClock
    registry: Registry
    signer: Signer
    store: KeyStore
    folder: Path
    transport: MemoryTransport
    database_clock: bool = False

    async def passes(self) -> None:
        """Let a moment pass: a second of our clock, or, where the database judges, some of its own milliseconds."""
        if self.database_clock:
            await asyncio.sleep(0.05)
            self.clock.advance(max(0.0, time.time() - 0.02 - self.clock.now_us() / 1_000_000))
        else:
            self.clock.advance(1)

    @property
    def events(self) -> Events:
        return Events(self.transport, self.registry)

    @property
    def now_ms(self) -> int:
        return self.clock.now_us() // 1000

    def vault_records(self) -> list[dict[str, object]]:
        return self.server.vault(HOST).log.records

    @asynccontextmanager
    async def core(
        self, for_new_keys: str, *more: str, permissions: frozenset[str] = ADMINISTRATION
    ) -> AsyncIterator[CryptoCore]:
        """Open a core whose aliases are the names of their keys."""
        who = Identity(SERVICE, PRINCIPAL, "0a0a-app", "10.1.2.3", permissions)
        wrappers = {
            alias: AzureKeyWrapper(
                alias,
                vault_url=self.server.url(HOST),
                key_name=alias,
                credential=self.server.directory.credential(who),
                clock=self.clock,
                transport=self.server.transport(),
            )
            for alias in (for_new_keys, *more)
        }
        with TemporaryDirectory(dir=self.folder) as spool:
            emitter = Emitter(
                spool_dir=Path(spool),
                signer=self.signer,
                deployment=self.registry.deployment,
                service=SERVICE,
                transport=self.transport,
                partitions=1,
                clock=self.clock,
                durability=Durability.BROKER,
                background=False,
            )
            core = CryptoCore(
                service=SERVICE,
                deployment=self.registry.deployment,
                registry=self.registry,
                store=self.store,
                wrappers=wrappers,
                kek_alias=for_new_keys,
                emitter=emitter,
                key_signer=self.signer,
                clock=self.clock,
            )
            async with core:
                yield core
        for wrapper in wrappers.values():
            await wrapper.close()

    def approved(self, action: Action, statement: bytes, *, at_ms: int | None = None) -> list[SignedApproval]:
        """Both people approve the bytes of a statement, for an hour."""
        begin_ms = self.now_ms if at_ms is None else at_ms
        return [
            sign_approval(
                Approval.of_file(
                    action,
                    statement,
                    deployment=self.registry.deployment,
                    not_before_ms=begin_ms - 1_000,
                    expires_ms=begin_ms + HOUR_MS,
                    nonce=os.urandom(16),
                    signer_id=person.signer_id,
                ),
                person,
            )
            for person in (ADA, BEN)
        ]


@asynccontextmanager
async def vaulted(folder: Path, store_url: str, *, database_clock: bool = False) -> AsyncIterator[Vaulted]:
    """Start a vault.

    Args:
        folder: for spools.
        store_url: of the key store.
        database_clock: time is the database's own; else that of the clock.
    """
    clock, signer = ManualClock(), Signer.generate()
    one = register(signer, source=SERVICE).signers[0]
    registry = with_approvers(Registry(bytes(16), (replace(one, vault_principals=(PRINCIPAL,)),)), APPROVERS)
    server = VaultServer([HOST], clock=clock, ids=os.urandom, jitter=random.Random(1))
    store = KeyStore(store_url, registry=registry, clock=None if database_clock else clock)
    await server.start()
    try:
        yield Vaulted(server, clock, registry, signer, store, folder, MemoryTransport(), database_clock)
    finally:
        await server.stop()
        store.close()
