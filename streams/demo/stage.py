"""Where the story is played: what an act may use, and how it is told. Which acts there are is story.py's."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from azure.keyvault.keys.aio import KeyClient

from cryptocore.envelope import Owner
from streams.demo.fleet import Process, Rows
from streams.demo.world import Tape, World

ROWS = 14


@dataclass(frozen=True, slots=True)
class Stage:
    """What an act may use: the world, the rows, the processes that run right now, and time, which they live through."""

    world: World
    tape: Tape
    rows: Rows
    processes: Sequence[Process]
    wait: Callable[[float], Awaitable[None]]

    def owner(self, service: str) -> Owner:
        """Return the owner that the story is about when it speaks of this service."""
        mine = self.world.company.of_service(service)
        return next(each.owner for each in mine if each.kek_alias == "tenant-kek")

    async def stock(self, process: Process, owner: Owner) -> list[tuple[str, bytes]]:
        """Return `ROWS` rows of an owner; what is missing is encrypted first."""
        for number in range(ROWS - len(self.rows.by_owner.get(owner, ()))):
            record = f"tokens/{number:04d}/refresh"
            ciphertext = await process.core.encrypt(
                b"a simulated token", owner=owner, record=record, actor=process.actor(), purpose="store-token"
            )
            self.rows.put(owner, record, ciphertext)
        return self.rows.by_owner[owner][:ROWS]

    def process(self, service: str) -> Process:
        return next(each for each in self.processes if each.service == service)

    def client(self, identity: str, host: str) -> KeyClient:
        return KeyClient(
            self.world.server.url(host),
            self.world.server.directory.credential(self.world.company.identities[identity]),
            transport=self.world.server.transport(),
            retry_total=0,
        )


@dataclass(frozen=True, slots=True)
class Act:
    """One act of the story, played in the first wave after `at_us`. `services` must be running then."""

    at_us: int
    title: str
    services: tuple[str, ...]
    play: Callable[[Stage], Awaitable[str | None]]
