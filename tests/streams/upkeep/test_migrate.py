"""Two generations of the topics on a real Kafka: what was known before is known after, with more partitions."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from alerts.thresholds import Limits
from cryptocore.clock import rfc3339_ms
from cryptocore.events import KekRef, Operation, Phase, VaultAttempt
from cryptocore.partitions import partition_of as key_partition
from cryptocore.registry import Registry
from streams.feeds.records import key_of
from streams.index.port import DocKind
from streams.log import topics
from streams.log.generations import LATE_MS, MARK_KEY, mark_of, sent_late
from streams.log.rejects import requeue
from streams.log.statelog import partition_of
from streams.log.statelog_kafka import read
from streams.messages import CORRELATE, KEY_EVENTS, SOURCES, VAULT_ACCESS, Effects, Message
from streams.pipeline import steps
from streams.presence.instances import Instance, Status
from streams.presence.sources import Reach
from streams.rejected import Rejected, decode, reject
from streams.running.process import Worker
from streams.settings import GROWING, Settings
from streams.state import Kind, State
from streams.upkeep.migrate import Done, Refused, migrate, next_generation
from streams.vaultlogs.messages import wrap
from tests.streams.builders import DEPLOYMENT, Sender, Sent, event, fresh_id, registered, revoked
from tests.streams.commands.test_commands import environment, run
from tests.streams.counting import DictIndex
from tests.streams.vaultlogs.records import VERSION, WORKLOAD, record
from tests.streams.working import Died, fresh, until

OLD, NEW = 2, 4
REVOKED, LATE = "01" * 16, "02" * 16
"""Keys: one is revoked before the change, the other's revocation is told after it."""
KEK = KekRef(vault="kt-prod", name="tokens-kek", version=VERSION)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Deployment:
    """A service, its monitor on Kafka with the real steps, and an index in memory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sender = Sender()
        self.index = DictIndex()
        self.deaths: list[str] = []
        signer = replace(registered("billing", self.sender.signer), vault_principals=(WORKLOAD["oid"].lower(),))
        self.registry = Registry(DEPLOYMENT, (signer,))

    def grown(self) -> None:
        """Go on with the next generation, as a new process does."""
        self.settings = next_generation(self.settings, NEW)
        self.sender = Sender(signer=self.sender.signer, instance=b"\xbb" * 16, generation=self.settings.generation)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        def die(reason: str) -> NoReturn:
            self.deaths.append(reason)
            raise Died(reason)

        pipeline = steps(self.registry, Limits(), generation=self.settings.generation)
        worker = Worker(self.settings, pipeline, self.index, die=die)
        await worker.web.start()
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()

    async def send(self, *sent: Sent) -> None:
        async with AIOKafkaProducer(**self.settings.kafka_connection()) as producer:
            for one in sent:
                await producer.send_and_wait(
                    self.settings.topic(KEY_EVENTS),
                    one.batch.value,
                    partition=one.partition,
                    headers=list(one.batch.headers()),
                )

    async def does(self, key_id: str, *lines: Any) -> None:
        place = key_partition(bytes.fromhex(key_id), self.settings.partitions)
        await self.send(self.sender.seal(*lines, partition=place, sealed_ms=now_ms()))

    async def logs(self, request_id: str, at_ms: int) -> None:
        """The vault's record of an unwrap, as its feed sends it."""
        logged = record("KeyUnwrap", 200) | {"time": f"{rfc3339_ms(at_ms)[:-1]}0Z", "correlationId": request_id}
        value = wrap(logged, feed="test", resource_id=None, fetched_us=at_ms * 1000)
        async with AIOKafkaProducer(**self.settings.kafka_connection()) as producer:
            await producer.send_and_wait(self.settings.topic(VAULT_ACCESS), value, key=key_of(logged))

    def documents(self, kind: DocKind) -> list[dict[str, Any]]:
        return [msgspec.json.decode(one.body) for (of, _), one in self.index.kept.items() if of is kind]

    def alerts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for alert in self.documents(DocKind.ALERT):
            assert alert["rule_id"] not in found, "one cause is one alert"
            found[alert["rule_id"]] = alert["count"]
        return found

    async def state(self, topic: str, number: int) -> State:
        state = State()
        await read(self.settings.state_topic(topic), number, state, connection=self.settings.kafka_connection())
        return state


def unwrapped(request_id: str) -> Any:
    at = rfc3339_ms(now_ms())
    attempt = VaultAttempt(call_id=fresh_id(), request_id=request_id, http_status=200, started_at=at, ended_at=at)
    about: dict[str, Any] = {"kek": KEK, "phase": Phase.OUTCOME, "intent_id": fresh_id(), "vault_attempts": (attempt,)}
    return event(Operation.UNWRAP, at_ms=now_ms(), key_id=LATE, **about)


def idle(worker: Worker) -> bool:
    """Everything that was read is committed and in the index."""
    return all(
        not owner.dirty and not owner.cutting and owner.indexed == owner.applied
        for owner in worker.shell.owners.values()
    )


async def everything(settings: Settings) -> dict[str, list[tuple[bytes | None, bytes | None]]]:
    """All messages of a generation's own topics, to compare."""
    found: dict[str, list[tuple[bytes | None, bytes | None]]] = {}
    names = [name for topic in GROWING for name in (settings.topic(topic), settings.state_topic(topic))]
    async with AIOKafkaConsumer(**settings.kafka_connection(), auto_offset_reset="earliest") as consumer:
        for name in names:
            places = [TopicPartition(name, number) for number in range(settings.partitions)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            for place in places:
                while await consumer.position(place) < ends[place]:
                    for records in (await consumer.getmany(place, timeout_ms=200)).values():
                        found.setdefault(name, []).extend((one.key, one.value) for one in records)
    return found


async def test_a_generation_with_more_partitions_knows_what_the_one_before_knew(kafka: str, tmp_path: Path) -> None:
    company = Deployment(await fresh(kafka, tmp_path, partitions=OLD))
    explained, request_id = fresh_id(), fresh_id()
    start_ms = now_ms()
    async with company.worker() as worker:
        await until(lambda: len(worker.shell.owners) == 4 * OLD + 2)
        await company.send(company.sender.open(at_ms=start_ms))
        await company.does(REVOKED, event(key_id=REVOKED, at_ms=start_ms), revoked(key_id=REVOKED, at_ms=now_ms()))
        await asyncio.sleep(0.02)
        await company.does(REVOKED, event(key_id=REVOKED, at_ms=now_ms(), revision=3))
        looked_back = event(key_id=LATE, at_ms=now_ms())
        await company.does(LATE, looked_back, unwrapped(explained), unwrapped(request_id))
        await company.logs(explained, start_ms)
        await company.send(company.sender.close(at_ms=now_ms()))
        await until(lambda: company.alerts() == {"revoked_key_decrypt": 1})
        await until(lambda: [one["status"] for one in company.documents(DocKind.KEK_USE)] == ["matched"])
        await until(lambda: idle(worker))
    old, before = company.settings, await everything(company.settings)

    assert await topics.ensure(next_generation(old, NEW)) == []
    company.grown()
    await company.send(company.sender.open(at_ms=now_ms()))
    found = await topics.differences(company.settings)
    assert [one.problem for one in found] == ["generation 2 has no state yet: keytrail topics migrate"]
    assert await migrate(old, NEW, now_ms=now_ms()) is Done.MIGRATED

    assert await everything(old) == before
    assert await topics.differences(company.settings) == []
    assert [one.fatal for one in await topics.differences(old)] == [True]
    assert await migrate(old, NEW, now_ms=now_ms()) is Done.BEFORE
    async with company.worker() as worker:
        await until(lambda: len(worker.shell.owners) == 4 * NEW + 2)
        await company.does(REVOKED, event(key_id=REVOKED, at_ms=now_ms(), revision=3))
        await company.does(LATE, revoked(key_id=LATE, at_ms=start_ms))
        await company.logs(explained, start_ms)  # a copy, which the old generation has taken
        await company.logs(request_id, now_ms())
        await until(lambda: len(company.documents(DocKind.ALERT)) == 2)
        alerts = {alert["key"]: alert for alert in company.documents(DocKind.ALERT)}
        assert {alert["rule_id"] for alert in alerts.values()} == {"revoked_key_decrypt"}
        assert looked_back.id in [proof["id"] for proof in alerts[LATE]["evidence"]]
        await until(lambda: [one["status"] for one in company.documents(DocKind.KEK_USE)] == ["matched"] * 2)

        company.sender.heads.clear()
        await company.send(company.sender.open(at_ms=now_ms()))
        await until(lambda: "chain_fork" in {alert["rule_id"] for alert in company.documents(DocKind.ALERT)})
        await until(lambda: idle(worker))
        owners = worker.shell.owners
        reach = owners[SOURCES, 0].state.get(Kind.METER, b"reach", Reach)
        assert reach is not None
        assert (reach.generation, sorted(reach.reached)) == (2, list(range(NEW)))
        for key_id in (REVOKED, LATE):
            home = key_partition(bytes.fromhex(key_id), NEW)
            assert [
                number
                for number in range(NEW)
                if bytes.fromhex(key_id) in owners[KEY_EVENTS, number].state.idents(Kind.KEY)
            ] == [home]
        kek = partition_of(f"{KEK.vault}/{KEK.name}".encode(), NEW)
        assert [number for number in range(NEW) if owners[CORRELATE, number].state.count(Kind.USE)] == [kek]

    assert company.deaths == []
    assert await everything(old) == before
    await _say_late(company, old)
    assert len(company.documents(DocKind.VAULT_ACCESS)) == 2


async def test_what_is_missing_is_said_at_once_and_nothing_is_done(kafka: str, tmp_path: Path) -> None:
    company = Deployment(await fresh(kafka, tmp_path, partitions=OLD))
    async with company.worker() as worker:
        await until(lambda: len(worker.shell.owners) == 4 * OLD + 2)
        await company.send(company.sender.open(at_ms=now_ms()))
        company.sender.seal(event(key_id=LATE), partition=0)
        await company.send(company.sender.beat(at_ms=now_ms()))
        await until(lambda: worker.shell.owners[SOURCES, 0].state.count(Kind.SOURCE) == 1)
        with pytest.raises(Refused, match="stop all workers of keytrail"):
            await migrate(company.settings, NEW, now_ms=now_ms())
        await until(lambda: idle(worker))
    await company.does(LATE, event(key_id=LATE, at_ms=now_ms()))

    with pytest.raises(Refused) as refused:
        await migrate(company.settings, NEW, now_ms=now_ms())
    with pytest.raises(Refused, match="more than 2 partitions"):
        await migrate(company.settings, OLD, now_ms=now_ms())
    with pytest.raises(Refused) as forced:
        await migrate(company.settings, NEW, now_ms=now_ms(), give_up=True)

    lag, chain = refused.value.missing
    place = key_partition(bytes.fromhex(LATE), OLD)
    assert f"key-events/{place}: messages from" in lag
    assert chain.startswith(f"billing, instance {'aa' * 16}, is live: stop its process")
    assert forced.value.missing == (lag,)
    state = await company.state(SOURCES, 0)
    assert MARK_KEY not in state.dump()
    assert await topics.differences(company.settings) == []


async def test_chains_are_given_up_on_request_and_what_an_interrupted_run_left_is_done_again(
    kafka: str, tmp_path: Path
) -> None:
    company = Deployment(await fresh(kafka, tmp_path, partitions=OLD))
    async with company.worker() as worker:
        await until(lambda: len(worker.shell.owners) == 4 * OLD + 2)
        await company.send(company.sender.open(at_ms=now_ms()))
        lost = company.sender.seal(event(key_id=LATE), partition=0)
        await company.send(company.sender.beat(at_ms=now_ms()))
        await company.does(REVOKED, revoked(key_id=REVOKED, at_ms=now_ms()))
        await until(lambda: worker.shell.owners[SOURCES, 0].state.count(Kind.SOURCE) == 1)
        await until(lambda: len(company.documents(DocKind.EVENT)) == 1)
        await until(lambda: idle(worker))
    old, new = company.settings, next_generation(company.settings, NEW)
    assert await topics.ensure(new) == []
    await _leave(new, KEY_EVENTS, 3, b"\x01" + b"\x07" * 16, b"\x01not of this run")

    assert await migrate(old, NEW, now_ms=now_ms(), give_up=True) is Done.MIGRATED

    company.grown()
    assert b"\x01" + b"\x07" * 16 not in (await company.state(KEY_EVENTS, 3)).dump()
    async with company.worker() as worker:
        await until(lambda: len(worker.shell.owners) == 4 * NEW + 2)
        await company.send(replace(lost, partition=0))
        await until(lambda: len(company.documents(DocKind.REJECTED)) == 1)
        (rejected,) = company.documents(DocKind.REJECTED)
        assert (rejected["finding"], rejected["field"]) == ("seal_invalid", "seal.partition")
        assert company.index.ids(DocKind.REJECTED) == ["key-events.g2/0/0"]
        instance = worker.shell.owners[SOURCES, 0].state.get(Kind.SOURCE, b"\xaa" * 16, Instance)
        assert instance is not None
        assert instance.status is Status.LIVE
    assert company.deaths == []


async def _say_late(company: Deployment, old: Settings) -> None:
    """What is sent into an old topic after the change is told."""
    mark = await mark_of(company.settings)
    assert mark is not None
    assert (mark.generation, mark.partitions) == (2, NEW)
    earlier = msgspec.structs.replace(mark, at_ms=mark.at_ms - LATE_MS)
    names = {old.topic(VAULT_ACCESS), old.topic(KEY_EVENTS)}
    assert await sent_late(company.settings, earlier, names) == []
    async with AIOKafkaProducer(**old.kafka_connection()) as producer:
        await producer.send_and_wait(old.topic(VAULT_ACCESS), b"{}", partition=1)

    assert await sent_late(company.settings, earlier, names) == [old.topic(VAULT_ACCESS)]


async def _leave(settings: Settings, topic: str, number: int, key: bytes, value: bytes) -> None:
    async with AIOKafkaProducer(**settings.kafka_connection()) as producer:
        await producer.send_and_wait(settings.state_topic(topic), value, key=key, partition=number)


async def test_of_what_was_rejected_before_only_vault_records_are_sent_on_by_their_key(
    kafka: str, tmp_path: Path
) -> None:
    settings = next_generation(await fresh(kafka, tmp_path, partitions=OLD), NEW)
    assert await topics.ensure(settings) == []
    kept: list[tuple[int, Rejected]] = []
    for topic, key in ((KEY_EVENTS, None), (VAULT_ACCESS, b"kt-prod/tokens-kek"), (VAULT_ACCESS, None)):
        effects = Effects()
        reject(Message(topic, 1, 0, now_ms(), key, b"x"), "rejected", "value", "is none", now_ms(), effects)
        kept.append((len(kept), decode(effects.out[0].value)))

    outcomes = [outcome async for _, _, outcome in requeue(settings, kept)]

    assert [str(one) for one in outcomes if not isinstance(one, int)] == [
        "is of generation 1 of its topic, which is not read any more"
    ] * 2
    found = await everything(settings)
    assert found == {settings.topic(VAULT_ACCESS): [(b"kt-prod/tokens-kek", b"x")]}


def test_the_command_says_what_is_missing_and_what_to_start_with(kafka: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    told = environment(settings)

    fewer = run("topics", "migrate", "--partitions", "2", **told)
    done = run("topics", "migrate", "--partitions", "3", **told)
    again = run("topics", "migrate", "--partitions", "3", **told)
    other = run("topics", "migrate", "--partitions", "5", **told)
    more = run("topics", "migrate", "--partitions", "65", **told)

    assert (fewer.exit_code, fewer.stderr) == (1, "a new generation has more than 2 partitions, and at most 64\n")
    assert (more.exit_code, more.stderr) == (fewer.exit_code, fewer.stderr)
    assert done.exit_code == 0
    assert "KEYTRAIL_GENERATION=2 KEYTRAIL_PARTITIONS=3" in done.stdout
    assert (again.exit_code, "was already that of generation 2" in again.stdout) == (0, True)
    assert (other.exit_code, "the state is of generation 2 with 3 partitions" in other.stderr) == (1, True)
