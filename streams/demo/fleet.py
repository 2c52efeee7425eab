"""The fleet at work: processes of services that start, encrypt and decrypt for a few minutes, and stop in good order.

Services scale to zero between jobs, so a week is a row of waves: a few services at a time, each process with its own
spool, chain and cache, as in production.
"""

import asyncio
from typing import NamedTuple

from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.lines.vocabulary import VAULT_CALLS
from streams.demo.company import ADMIN, KEEPERS, Owned
from streams.demo.world import Tape, World

PARTITIONS = 4
_CALLERS = 16
_PURPOSES = ("nightly-sync", "user-request", "webhook", "export")
_ENCRYPT_SHARE = 0.3
_ROWS_KEPT = 64


class Use(NamedTuple):
    """One use to come: encrypt where there is no ciphertext, else decrypt it."""

    owner: Owner
    record: str
    ciphertext: bytes | None
    actor: str
    purpose: str


class Rows:
    """The company's table of ciphertexts: (record, ciphertext) by owner, the oldest overwritten first."""

    def __init__(self) -> None:
        self.by_owner: dict[Owner, list[tuple[str, bytes]]] = {}

    def put(self, owner: Owner, record: str, ciphertext: bytes) -> None:
        rows = self.by_owner.setdefault(owner, [])
        rows.append((record, ciphertext))
        del rows[:-_ROWS_KEPT]


class Process:
    """One process of a service, from start to orderly stop; `kek_acts` is how often it acted on a KEK."""

    def __init__(self, world: World, tape: Tape, service: str) -> None:
        self.service = service
        self.kek_acts = 0
        self.world = world
        self.emitter = Emitter(
            spool_dir=world.work / "spools",
            signer=world.signers[service],
            deployment=world.registry.deployment,
            service=service,
            transport=tape,
            partitions=PARTITIONS,
            clock=world.clock,
            ids=world.ids,
            background=False,
            host=f"{service}-{world.ids(2).hex()}",
        )
        self.core = CryptoCore(
            service=service,
            deployment=world.registry.deployment,
            registry=world.registry,
            store=world.store,
            wrappers=world.wrappers(service),
            kek_alias="tenant-kek",
            emitter=self.emitter,
            key_signer=world.signers[service if service in KEEPERS else ADMIN],
            clock=world.clock,
            ids=world.ids,
        )

    async def start(self) -> None:
        await self.emitter.open()

    async def step(self) -> None:
        """Do what the emitter's background task does in production."""
        await self.core.relay()
        await self.emitter.step()

    async def stop(self) -> int:
        """Stop in good order; returns how many key events this process has committed.

        The emitter counts single and outcome events; each outcome of a call of a vault has had its intent.
        """
        await self.core.close()
        committed = self.emitter.committed
        await self.emitter.close()
        intents = sum(count for (operation, _), count in committed.items() if operation in VAULT_CALLS)
        return committed.total() + intents + self.kek_acts

    def actor(self) -> str:
        draw = self.world.draw
        return f"user:{draw.randrange(1000, 1400)}" if draw.random() < 0.5 else f"job:{self.service}"  # noqa: PLR2004

    async def work(self, rows: Rows, owned: list[Owned], uses: int) -> None:
        """Encrypt and decrypt for these owners, `_CALLERS` at a time; nothing for those whose key was revoked."""
        owned = [each for each in owned if each.owner not in self.world.revoked]
        if not owned:
            return
        plan = [self._plan(rows, owned) for _ in range(uses)]
        for at in range(0, uses, _CALLERS):
            await asyncio.gather(*(self._use(rows, each) for each in plan[at : at + _CALLERS]))

    def _plan(self, rows: Rows, owned: list[Owned]) -> "Use":
        draw = self.world.draw
        owner = draw.choice(owned).owner
        kept = rows.by_owner.get(owner)
        actor, purpose = self.actor(), draw.choice(_PURPOSES)
        if not kept or draw.random() < _ENCRYPT_SHARE:
            return Use(owner, f"tokens/{draw.randrange(10_000):04d}/access", None, actor, purpose)
        record, ciphertext = draw.choice(kept)
        return Use(owner, record, ciphertext, actor, purpose)

    async def _use(self, rows: Rows, use: "Use") -> None:
        owner, record, ciphertext, actor, purpose = use
        if ciphertext is None:
            token = f"simulated token of {record}".encode()
            rows.put(
                owner, record, await self.core.encrypt(token, owner=owner, record=record, actor=actor, purpose=purpose)
            )
        else:
            await self.core.decrypt(ciphertext, owner=owner, record=record, actor=actor, purpose=purpose)
