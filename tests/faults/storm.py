"""The faults, one method each; a campaign plays them by a seeded schedule."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from cryptocore.batch import OpenedBatch, Seal, SealedBatch, seal_batch
from cryptocore.clock import SystemClock
from cryptocore.envelope import Owner
from cryptocore.signing import Signer
from streams.messages import KEY_EVENTS, VAULT_ACCESS, Message
from tests.faults.deployment import PARTITIONS, SESSION_S, Deployment
from tests.faults.logs import events_of, honest, messages_of
from tests.faults.loopback import Mode, Told
from tests.faults.processes import DEAD, PATIENT_S, Processes
from tests.faults.service import OWNERS, SERVICE

MAIN = "main"
"""The family of owners that most processes work for."""
MARKED_S = 4.0
"""From the first worker's word that its index is silent until all of them have found the same."""
IN_TIME_S = 10.0
"""From a planted attack to its notification, at most, on a machine that runs everything at once."""
QUOTA = 256 * 1024
LATELY = 20
"""A batch so near to its chain's head is remembered there: another one in its place is a fork, and not merely old."""
YEAR_1970, YEAR_2099 = 0, 4_071_000_000 * 1_000_000


class Planted(NamedTuple):
    """An attack that must be found: a rule, and the key or the principal of its alert."""

    rule: str
    key: str = ""
    principal: str = ""


class Storm:
    """Breaks things of a deployment, and keeps what it did."""

    def __init__(self, deployment: Deployment, processes: Processes) -> None:
        self.deployment = deployment
        self.processes = processes
        self.planted: list[Planted] = []
        self.withheld: dict[str, list[str]] = {}
        """Actors of the batches that never reach Kafka, by the instance that sealed them."""
        self.thefts_s: list[float] = []
        self.poisoned = self.repeated = 0
        self.delays_s: dict[str, list[float]] = {"calm": [], "no index": []}
        self.unavailable_s: float | None = None
        self.filled: list[int] = []
        self._draw = deployment.draw
        self._number = 0
        self._steady = self._next()

    def _next(self, kind: str = "service") -> str:
        self._number += 1
        return f"{kind}{self._number}"

    async def begin(self) -> None:
        """Two workers, two services, the feed; go on when all have something to do."""
        first, second = self.processes.worker(), self.processes.worker()
        self.processes.feed_from(self.deployment.vault.logs)
        job = self.deployment.job(self._steady, family=MAIN)
        self.processes.service(job)
        self.processes.service(self.deployment.job(self._next()))
        await self.processes.until(
            lambda: self.processes.takeovers(first) > 0 and self.processes.takeovers(second) > 0, "both workers begin"
        )
        made = job.file("acknowledged")
        await self.processes.until(
            lambda: made.exists() and len(made.read_text().splitlines()) > OWNERS, "the keys that others use are made"
        )

    # --- processes ---

    async def worker_killed(self) -> None:
        self.processes.kill(self._draw.choice(self.processes.living()))
        await self.processes.calmly(self._draw.uniform(0, 2))
        self.processes.worker()
        await self.processes.calmly(SESSION_S + 3)

    async def worker_stopped(self) -> None:
        """For longer than its session; then it goes on as if nothing had been."""
        name = self._draw.choice(self.processes.living())
        process = self.processes.workers[name]
        process.send_signal(signal.SIGSTOP)
        await self.processes.calmly(SESSION_S + self._draw.uniform(2, 5))
        process.send_signal(signal.SIGCONT)
        await self.processes.calmly(3)

    async def worker_added(self) -> None:
        added = name = self.processes.worker()
        await self.processes.until(
            lambda: added not in self.processes.workers or self.processes.takeovers(added) > 0, "one more worker begins"
        )
        await self.processes.calmly(1)
        begun = self.processes.begun()  # only these are ready to be told to stop
        if begun and len(self.processes.living()) > PARTITIONS:
            name = self._draw.choice(begun)
        await self._removed(name)

    async def _removed(self, name: str) -> None:
        process = self.processes.workers.pop(name, None)
        if process is None:  # it gave up meanwhile, and another is there in its place
            return
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, PATIENT_S)
        if code == DEAD:  # it gave up in the moment in which it was told
            self.processes.given_up[code] += 1
        assert code in {0, DEAD}, f"{name} ended with {code} when told to stop:\n{self.processes.tail(name)}"

    async def service_killed(self) -> None:
        """Another process adopts its spool and goes on with its owners' keys."""
        self.processes.kill(self._steady)
        self._steady = self._next()
        self.processes.service(self.deployment.job(self._steady, family=MAIN))
        await self.processes.calmly(4)

    async def feed_killed(self) -> None:
        assert self.processes.feed is not None
        self.processes.feed.kill()
        await self.processes.calmly(1)

    # --- servers ---

    async def broker_killed(self) -> None:
        kafka = self.deployment.servers.kafka
        await asyncio.to_thread(kafka.kill)
        await self.processes.calmly(self._draw.uniform(0, 3))
        await asyncio.to_thread(kafka.start)
        await self.processes.calmly(8)

    async def quota_filled(self) -> None:
        """The broker stands still until a service's spool is full and refuses; then everything goes on."""
        job = replace(self.deployment.job(self._next("full"), per_s=400), quota_bytes=QUOTA)
        self.processes.service(job)
        await self.processes.until(lambda: len(job.owners_done()) == OWNERS, "a service begins")
        self.deployment.servers.kafka.pause()
        try:
            await self.processes.until(lambda: job.file("refused").exists(), "its spool is full")
        finally:
            self.deployment.servers.kafka.resume()
        before = job.file("acknowledged").stat().st_size
        await self.processes.until(lambda: job.file("acknowledged").stat().st_size > before, "it goes on")
        job.file("enough").touch()
        self.filled.append(len(job.file("refused").read_text().splitlines()))

    async def store_restarted(self) -> None:
        await asyncio.to_thread(self.deployment.servers.postgres.restart)
        await self.processes.calmly(1)

    async def store_killed(self) -> None:
        """While a service makes its keys; once the store is back it has a key for each owner."""
        job = self.deployment.job(self._next("keys"))
        self.processes.service(job)
        await self.processes.until(lambda: len(job.owners_done()) > 2, "keys are made")
        postgres = self.deployment.servers.postgres
        await asyncio.to_thread(postgres.kill)
        await self.processes.calmly(self._draw.uniform(0, 2))
        await asyncio.to_thread(postgres.start)
        await self.processes.until(lambda: len(job.owners_done()) == OWNERS, "every owner gets its key")
        job.file("enough").touch()

    async def index_killed(self) -> None:
        await asyncio.to_thread(self.deployment.servers.elasticsearch.kill)
        await asyncio.to_thread(self.deployment.servers.elasticsearch.start)
        await self.processes.calmly(2)

    async def _index_in_mode(self, mode: Mode) -> None:
        proxy = self.deployment.proxy
        before, proxy.mode = proxy.broken, mode
        try:
            await self.processes.calmly(self._draw.uniform(3, 5))
            await self.processes.until(lambda: proxy.broken > before, f"somebody meets an index in mode {mode}")
        finally:
            proxy.mode = "pass"

    async def index_429(self) -> None:
        await self._index_in_mode("429")

    async def index_503(self) -> None:
        await self._index_in_mode("503")

    async def index_partial(self) -> None:
        await self._index_in_mode("partial")

    async def index_unheard(self) -> None:
        await self._index_in_mode("unheard")

    async def index_away(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Nobody listens; an attack in that time is told in its usual time, and says that its evidence is missing."""
        await self.deployment.proxy.stop()
        began_s = time.time()
        await meanwhile()
        self.unavailable_s = (await self.told("index_unavailable")).at_s - began_s
        await self.processes.calmly(MARKED_S)
        new_ones = self.processes.given_up.total()
        for told in await self.attack("no index"):  # a worker that was started meanwhile knows the silence since then
            said = not told.indexed or self.processes.given_up.total() > new_ones
            assert said, f"{told.rule} does not say that its evidence is not indexed yet"
        await self.processes.calmly(max(0.0, began_s + seconds - time.time()))
        await self.deployment.proxy.start()
        await self.processes.calmly(1)

    # --- what comes in ---

    async def _honest(self) -> list[tuple[Message, OpenedBatch]]:
        """What services sent, each batch once: poison, repeats and forks of earlier lie in the same log."""
        log = await messages_of(self.deployment.settings, KEY_EVENTS)
        first: dict[tuple[bytes, int, int], tuple[Message, OpenedBatch]] = {}
        for message, opened in honest(log, self.deployment.registry):
            seal = opened.seal
            first.setdefault((seal.instance, seal.partition, seal.sequence), (message, opened))
        return list(first.values())

    async def _lately(self) -> list[Message]:
        """What services sent that their chains remember: events alone, no control line."""
        batches = await self._honest()
        heads: dict[tuple[bytes, int], int] = {}
        for _, opened in batches:
            place = opened.seal.instance, opened.seal.partition
            heads[place] = max(opened.seal.sequence, heads.get(place, 0))
        return [
            message
            for message, opened in batches
            if opened.seal.sequence > heads[opened.seal.instance, opened.seal.partition] - LATELY
            and len(events_of([opened])) == opened.seal.count
        ]

    async def delivered_twice(self) -> None:
        """Batches of the log once more, as a producer does that did not hear of its success."""
        log = [message for message, _ in await self._honest()]
        again = self._draw.sample(log, min(20, len(log)))
        await self._send(again)
        self.repeated += len(again)

    async def poison(self) -> None:
        """Noise, batches without seals, and cut ones, into both topics that are written from outside."""
        real, _ = self._draw.choice(await self._honest())
        noise = self._draw.randbytes(200)
        bad = [
            real._replace(value=noise),
            real._replace(value=b""),
            real._replace(value=real.value[: len(real.value) // 2]),
            real._replace(headers=()),
            real._replace(headers=(*real.headers, ("more", b"1"))),
            real._replace(partition=(real.partition + 1) % PARTITIONS),
            *(real._replace(topic=VAULT_ACCESS, headers=(), value=value) for value in (noise, b"", b"{}", b'{"v":1}')),
        ]
        await self._send(bad)
        self.poisoned += len(bad)

    async def tampered(self) -> None:
        """A changed line under an honest seal, and a second batch at the place of one in its chain."""
        signer = Signer.from_file(self.deployment.folder / f"{SERVICE}.key")
        victim, other = self._draw.sample(await self._lately(), 2)
        changed = bytearray(victim.value)
        changed[self._draw.randrange(len(changed) - 1)] ^= 1
        seal = Seal.decode(SealedBatch.from_headers(other.value, other.headers).seal)
        first, _, _ = other.value.partition(b"\n")
        forked = seal_batch(
            first + b"\n",
            count=1,
            deployment=seal.deployment,
            instance=seal.instance,
            generation=seal.generation,
            partition=seal.partition,
            sequence=seal.sequence,
            previous=seal.previous,
            sealed_at_ms=seal.sealed_at_ms + 1,
            signer=signer,
        )
        await self._send(
            [
                victim._replace(value=bytes(changed)),
                other._replace(value=forked.value, headers=tuple(forked.headers())),
            ]
        )
        self.planted += [Planted("seal_invalid"), Planted("chain_fork", seal.instance.hex())]

    async def batch_withheld(self) -> None:
        """A batch that its service sealed and believes sent never reaches Kafka."""
        job = replace(self.deployment.job(self._next("withholds")), withholds=True)
        self.processes.service(job)
        await self.processes.until(lambda: job.file("withheld").exists(), "a batch is withheld")
        await self.processes.calmly(1)
        job.file("enough").touch()
        instance, *lines = job.file("withheld").read_bytes().splitlines()
        self.withheld[instance.decode()] = [msgspec.json.decode(line)["actor"] for line in lines]
        self.planted.append(Planted("audit_gap", instance.decode()))

    async def clock_1970(self) -> None:
        await self._skewed(YEAR_1970)

    async def clock_2099(self) -> None:
        await self._skewed(YEAR_2099)

    async def _skewed(self, year_us: int) -> None:
        """A service whose machine is wrong about the year: its signer may make no keys then, and others' it may use."""
        job = self.deployment.job(self._next("skewed"), family=MAIN, seconds=3)
        job = replace(job, skew_us=year_us - SystemClock().now_us())
        self.processes.service(job)
        await self.processes.until(lambda: self.processes.services[job.name].poll() == 0, "it ends")
        assert job.owners_done(), self.processes.tail(job.name)

    async def _send(self, messages: list[Message]) -> None:
        settings = self.deployment.settings
        async with AIOKafkaProducer(**settings.kafka_connection(), acks="all", max_request_size=2**21) as producer:
            for message in messages:
                await producer.send_and_wait(
                    settings.topic(message.topic),
                    message.value,
                    key=message.key,
                    partition=message.partition,
                    headers=list(message.headers),
                )

    # --- attacks ---

    async def attack(self, when: str = "calm") -> list[Told]:
        """A service's key is revoked and used all the same, ten ciphertexts are broken; wait until people are told."""
        job = replace(self.deployment.job(self._next("scene")), scene=True)
        self.processes.service(job)
        await self.processes.until(lambda: self.processes.services[job.name].poll() == 0, "the scene is played")
        told = []
        for line in job.file("planted").read_text().splitlines():
            rule, key, at_s = line.split()
            self.planted.append(Planted(rule, key))
            told.append(await self.told(rule, key))
            self.delays_s[when].append(told[-1].at_s - float(at_s))
        return told

    async def told(self, rule: str, key: str = "", within_s: float = PATIENT_S) -> Told:
        """Wait for a notification, and tend processes meanwhile."""
        waiting = asyncio.create_task(self.deployment.webhook.first(rule, key, within_s=within_s))
        await self.processes.until(waiting.done, f"{rule} of {key} is told", within_s + 5)
        return waiting.result()

    async def stolen(self) -> None:
        """The key table is stolen: a stranger asks the vault, and the service's identity under a copied call id."""
        vault, draw = self.deployment.vault, self._draw
        url, registry = self.deployment.servers.postgres.address, self.deployment.registry
        for copy in (False, True):
            owner = Owner.tenant(f"{MAIN}-{draw.randrange(20)}", "crm")
            await vault.steal(url, registry, owner, copy=copy)
        self.thefts_s.append(time.monotonic())
        who = (vault.thief.object_id, vault.service.object_id)
        self.planted += [Planted("unaccounted_kek_access", principal=oid) for oid in who]

    async def end(self) -> None:
        """Let services come to their end, and everything arrive; what is missing is told while others go on."""
        for instance in self.withheld:
            await self.told("audit_gap", instance)
        (self.deployment.folder / "enough").touch()
        await self.processes.until(
            lambda: all(process.poll() is not None for process in self.processes.services.values()), "services end"
        )
        vault = self.deployment.vault
        vault.step()
        vault.step(all_of_it=True)


Fault = Callable[[Storm], Awaitable[None]]
FAULTS: dict[str, Fault] = {
    "worker: SIGKILL": Storm.worker_killed,
    "worker: SIGSTOP past its session, SIGCONT": Storm.worker_stopped,
    "worker: one more, one less": Storm.worker_added,
    "service: SIGKILL, spool adopted": Storm.service_killed,
    "vault feed: SIGKILL": Storm.feed_killed,
    "Kafka: SIGKILL, started again": Storm.broker_killed,
    "Kafka: stands still until a spool is full": Storm.quota_filled,
    "PostgreSQL: restarted": Storm.store_restarted,
    "PostgreSQL: SIGKILL, started again": Storm.store_killed,
    "Elasticsearch: SIGKILL, started again": Storm.index_killed,
    "Elasticsearch: answers 429": Storm.index_429,
    "Elasticsearch: answers 503": Storm.index_503,
    "Elasticsearch: refuses part of each bulk": Storm.index_partial,
    "Elasticsearch: writes, answer lost": Storm.index_unheard,
    "batches delivered twice": Storm.delivered_twice,
    "poison in both inputs": Storm.poison,
    "service's clock: 1970": Storm.clock_1970,
    "service's clock: 2099": Storm.clock_2099,
    "changed line, forked chain": Storm.tampered,
    "sealed batch that never arrives": Storm.batch_withheld,
    "stolen key table: stranger, copied call id": Storm.stolen,
}
