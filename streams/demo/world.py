"""The simulated world between the company and the monitor: vault, key store, log, and how records travel.

Everything that production has is here once: a signer for every service, one key store, vaults that log late and
sometimes twice, and the pipeline over its in-memory log. Time is `SimClock`; ids come from the seed, keys and nonces
never do.
"""

import heapq
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptocore.azure import AzureKeyWrapper
from cryptocore.batch import SealedBatch
from cryptocore.envelope import Owner
from cryptocore.events import AuditEvent, decode_lines
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from streams.demo.company import HOSTS, KEEPERS, KEKS, LENA, PROD, SERVICES, TOM, Company, found
from streams.demo.simclock import WEEK_END_US, WEEK_START_US, SimClock
from streams.demo.vault import VaultServer
from streams.messages import KEY_EVENTS, VAULT_ACCESS
from streams.running.memory import MemoryShell
from streams.simulated import DEPLOYMENT
from streams.vaultlogs.files import file_key, wrap

_YEAR_MS = 366 * 24 * 3600 * 1000
# A vault record is usually in the log after 20 s to 3 min, sometimes after more (vault-logs.md, "Delivery").
USUAL_DELAY_S = (20, 180)
LATE_DELAY_S = (200, 660)
LATE_SHARE = 0.02
DUPLICATE_SHARE = 0.02


class Tape:
    """A Transport that appends to the in-memory log and keeps every sealed batch with its append time."""

    def __init__(self, shell: MemoryShell, clock: SimClock) -> None:
        self._shell = shell
        self._clock = clock
        self.batches: list[tuple[int, int, SealedBatch]] = []

    async def send(self, partition: int, batch: SealedBatch) -> None:
        append_ms = self._clock.now_ms()
        self.batches.append((partition, append_ms, batch))
        self._shell.append(
            KEY_EVENTS,
            key=None,
            value=batch.value,
            headers=tuple(batch.headers()),
            partition=partition,
            append_ms=append_ms,
        )

    async def close(self) -> None:
        """Nothing is held open."""

    def last_call_id(self, host: str) -> str:
        """Return the call id of the latest unwrap at a vault that a live event of ours tells of."""
        vault = host.partition(".")[0]
        for _, _, batch in reversed(self.batches):
            for line in reversed(decode_lines(batch.value)[0]):
                if isinstance(line, AuditEvent) and line.vault_attempts and line.kek and line.kek.vault == vault:
                    return line.vault_attempts[-1].call_id
        raise LookupError(f"no event of ours names {vault}")


class Post:
    """Brings vault records to the monitor as late, and as often, as the real service does."""

    def __init__(self, server: VaultServer, shell: MemoryShell, clock: SimClock, draw: random.Random) -> None:
        self._server = server
        self._shell = shell
        self._clock = clock
        self._draw = draw
        self._taken = dict.fromkeys(HOSTS, 0)
        self._way: list[tuple[int, int, dict[str, Any]]] = []
        self._number = 0
        self.delivered: list[dict[str, Any]] = []

    def collect(self) -> None:
        """Take what the vaults have written since, and decide when it arrives."""
        for host in HOSTS:
            records = self._server.vault(host).log.records
            for record in records[self._taken[host] :]:
                copies = 2 if self._draw.random() < DUPLICATE_SHARE else 1
                for _ in range(copies):
                    late = self._draw.random() < LATE_SHARE
                    seconds = self._draw.uniform(*(LATE_DELAY_S if late else USUAL_DELAY_S))
                    self._number += 1
                    heapq.heappush(self._way, (self._clock.now_us() + round(seconds * 1e6), self._number, record))
            self._taken[host] = len(records)

    def deliver(self) -> None:
        """Append what has arrived by now."""
        now_us = self._clock.now_us()
        while self._way and self._way[0][0] <= now_us:
            arrived_us, _, record = heapq.heappop(self._way)
            self.delivered.append(record)
            value = wrap(record, feed="demo", resource_id=record["resourceId"], fetched_us=arrived_us)
            self._shell.append(VAULT_ACCESS, key=file_key(record), value=value, append_ms=now_us // 1000)


class World:
    """What a run of the demo holds.

    Args:
        work: folder for spools and the key store, below --out; removed at the end.
        seed: decides who lives here, what they do and every id; the same seed tells the same story.
    """

    def __init__(self, work: Path, *, seed: int) -> None:
        self.draw = random.Random(seed)
        self.clock = SimClock()
        self.ids: Callable[[int], bytes] = random.Random(seed + 1).randbytes
        self.company: Company = found(seed)
        self.work = work
        self.signers = {name: Signer.generate() for name in SERVICES}
        self.approvers = {person: Signer.generate() for person in (LENA, TOM)}
        self.registry = self._register()
        self.server = VaultServer(list(HOSTS), clock=self.clock, ids=self.ids, jitter=random.Random(seed + 2))
        self.server.vault(PROD).correlation = "client"
        self.store = KeyStore(f"sqlite:///{work / 'keys.sqlite'}", registry=self.registry, clock=self.clock)
        self.revoked: set[Owner] = set()  # owners whose key is out of service
        self.destructions: list[str] = []
        self._wrappers: dict[str, dict[str, AzureKeyWrapper]] = {}

    def _register(self) -> Registry:
        start_ms, end_ms = WEEK_START_US // 1000 - _YEAR_MS, WEEK_END_US // 1000 + _YEAR_MS
        people = {signer: person for person, signer in self.approvers.items()}
        names = {signer: name for name, signer in self.signers.items()}
        entries = [
            RegisteredSigner(
                signer_id=signer.signer_id,
                public_key=signer.public_key,
                source=names.get(signer, "people"),
                roles=_roles(names.get(signer)),
                vault_principals=(self.company.identities[names[signer]].object_id,) if signer in names else (),
                person=people.get(signer),
                valid_from_ms=start_ms,
                valid_until_ms=end_ms,
                compromised_from_ms=None,
            )
            for signer in (*names, *people)
        ]
        return Registry(deployment=DEPLOYMENT, signers=tuple(entries))

    def wrappers(self, service: str) -> dict[str, AzureKeyWrapper]:
        """Return the service's way to each KEK; made once, as a process keeps its clients."""
        if service not in self._wrappers:
            credential = self.server.directory.credential(self.company.identities[service])
            self._wrappers[service] = {
                alias: AzureKeyWrapper(
                    alias,
                    vault_url=self.server.url(host),
                    key_name=name,
                    credential=credential,
                    clock=self.clock,
                    ids=self.ids,
                    transport=self.server.transport(),
                )
                for alias, (host, name) in KEKS.items()
            }
        return self._wrappers[service]

    def wrapped_deks(self, kek_alias: str) -> list[tuple[str, bytes]]:
        """Return (KEK version, wrapped DEK) of every key under a KEK: what a stolen copy of the key table holds."""
        newest = (self.store.newest(each.owner) for each in self.company.owned if each.kek_alias == kek_alias)
        return [(each.record.kek_version, each.wrapped_dek) for each in newest if each and each.wrapped_dek]

    async def close(self) -> None:
        for wrappers in self._wrappers.values():
            for wrapper in wrappers.values():
                await wrapper.close()
        await self.server.stop()


def _roles(service: str | None) -> frozenset[Role]:
    """Services tell of events, some of them look after keys or tokens, and people approve."""
    if service is None:
        return frozenset({Role.APPROVE})
    return frozenset({Role.EVENTS, Role.KEYS} if service in KEEPERS else {Role.EVENTS})
