"""Two workers and two services, killed, paused and rebalanced; then nothing is missing and nothing is there twice."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cryptocore.clock import SystemClock
from cryptocore.development import make_registry
from cryptocore.registry import Registry
from streams import topics
from streams.index.elastic import ElasticIndex
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind
from streams.messages import KEY_EVENTS, Message
from streams.rereading import message_of
from streams.settings import Settings
from streams.state import State
from streams.statelog_kafka import KafkaStateLog
from tests.faults.calm import calm_run, comparable
from tests.faults.processes import Processes
from tests.faults.service import SERVICE, Job

PARTITIONS = 3
SESSION_S = 6
STOP_S = 10
EVENTS = 10_000


@pytest.mark.faults
@pytest.mark.timeout(280)
async def test_kills_pauses_and_rebalances_lose_nothing_and_double_nothing(
    kafka: str, elasticsearch_url: str, tmp_path: Path
) -> None:
    settings = _deployment(kafka, elasticsearch_url, tmp_path)
    assert await topics.ensure(settings) == []
    index = ElasticIndex.connect([elasticsearch_url], prefix=settings.index_prefix, replicas=0)
    with Processes(tmp_path, _environment(settings)) as processes:
        await _storm(processes, settings, tmp_path)
        log = await _key_events(settings)
        emitted = Counter(_event_ids(log))
        assert len(emitted) >= EVENTS
        await _wait(processes, lambda: _indexed(index), set(emitted))
        expected = _expected_alerts(log)
        await _wait(processes, lambda: _alert_set(index), expected)
        await _calmly(processes, 5)  # what the last lines set off goes through two more topics, a second each
        end_ms = SystemClock().now_us() // 1000
        ended = processes.stop_workers(STOP_S + 2)

    documents = [document["event"]["id"] for document in await index.find(DocKind.EVENT)]
    by_actor = Counter(document["user"]["id"] for document in await index.find(DocKind.EVENT))
    acknowledged = [line for path in tmp_path.glob("*.acknowledged") for line in path.read_text().split()]
    assert sorted(documents) == sorted(emitted)
    assert len(acknowledged) > EVENTS * 0.9
    assert [actor for actor in acknowledged if by_actor[actor] != 1] == []
    assert sorted(await _alerts(index)) == sorted(expected)
    assert set(ended.values()) == {0}, ended
    assert len(processes.given_up) <= 2

    calm_index = EmbeddedIndex(tmp_path / "calm.sqlite")
    await calm_index.ensure()
    registry = Registry.load(settings.sources_file)
    calm = await calm_run(log, registry, calm_index, partitions=settings.topic_partitions, end_ms=end_ms)
    assert len(await calm_index.find(DocKind.EVENT)) == len(emitted)
    await calm_index.close()
    await index.close()
    assert sum(len(comparable(state)) for (topic, _), state in calm.items() if topic == KEY_EVENTS) > PARTITIONS * 20
    for topic, partition in calm:
        stormy = comparable(await _state(settings, topic, partition))
        assert stormy == comparable(calm[topic, partition]), (topic, partition)


async def _storm(processes: Processes, settings: Settings, folder: Path) -> None:
    """Two workers and two services; about a minute in which each of them suffers something."""

    def job(name: str, operations: int, seconds: float, *, scenes: bool = False) -> Job:
        topic = settings.topic(KEY_EVENTS)
        return Job(
            name=name,
            kafka=settings.kafka_bootstrap,
            topic=topic,
            partitions=PARTITIONS,
            folder=str(folder),
            operations=operations,
            seconds=seconds,
            scenes=scenes,
        )

    first, second = processes.worker(), processes.worker()
    await _until(processes, lambda: processes.takeovers(first) > 0 and processes.takeovers(second) > 0)
    processes.service(job("a", 20_000, 60))
    processes.service(job("b", 5_000, 25, scenes=True))
    await _calmly(processes, 5)

    processes.workers[first].send_signal(signal.SIGKILL)
    await _calmly(processes, 4)

    processes.services["a"].send_signal(signal.SIGKILL)
    processes.service(job("c", 5_000, 25, scenes=True))  # adopts what a left in its spool
    await _until(processes, lambda: processes.takeovers(second) > 1)

    third = processes.worker()
    await _until(processes, lambda: processes.takeovers(third) > 0)
    await _calmly(processes, 2)

    processes.workers[second].send_signal(signal.SIGSTOP)
    await _calmly(processes, SESSION_S + 4)
    processes.workers[second].send_signal(signal.SIGCONT)
    await _until(processes, lambda: processes.services["b"].poll() == 0 and processes.services["c"].poll() == 0)


def _deployment(kafka: str, elasticsearch_url: str, folder: Path) -> Settings:
    make_registry(folder, [SERVICE], now_ms=SystemClock().now_us() // 1000 - 60_000, days=1)
    kek = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "kek.pem").write_bytes(kek.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    unique = uuid4().hex[:8]
    return Settings(
        kafka_bootstrap=kafka,
        kafka_session_timeout_s=SESSION_S,
        topic_prefix=f"f{unique}.",
        partitions=PARTITIONS,
        app_id=f"faults-{unique}",
        elasticsearch_url=elasticsearch_url,  # type: ignore[arg-type]
        index_prefix=f"faults-{unique}",
        index_replicas=0,
        sources_file=folder / "sources.json",
        stop_s=STOP_S,
        web_port=0,
    )


def _environment(settings: Settings) -> dict[str, str]:
    names = (
        "kafka_bootstrap kafka_session_timeout_s topic_prefix partitions app_id elasticsearch_url index_prefix "
        "index_replicas sources_file stop_s web_port"
    )
    return {f"KEYTRAIL_{name.upper()}": str(getattr(settings, name)) for name in names.split()}


async def _until(processes: Processes, true: Callable[[], bool], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            processes.tend()
            await asyncio.sleep(0.1)


async def _calmly(processes: Processes, seconds: float) -> None:
    end = time.monotonic() + seconds
    await _until(processes, lambda: time.monotonic() >= end)


async def _wait(processes: Processes, look: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait for the index to show what is wanted; the assertions that follow say what is not as it must be."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and await look() != wanted:
        processes.tend()
        await asyncio.sleep(0.5)


async def _indexed(index: ElasticIndex) -> set[str]:
    return {document["event"]["id"] for document in await index.find(DocKind.EVENT)}


async def _alerts(index: ElasticIndex) -> list[tuple[str, str]]:
    return [(document["rule_id"], document["key"]) for document in await index.find(DocKind.ALERT)]


async def _alert_set(index: ElasticIndex) -> set[tuple[str, str]]:
    return set(await _alerts(index))


async def _key_events(settings: Settings) -> list[Message]:
    """Everything that the services have sent, as the log holds it."""
    places = [TopicPartition(settings.topic(KEY_EVENTS), number) for number in range(PARTITIONS)]
    messages: list[Message] = []
    async with AIOKafkaConsumer(**settings.kafka_connection(), auto_offset_reset="earliest") as consumer:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.seek_to_beginning(*places)
        for place in places:
            while await consumer.position(place) < ends[place]:
                records = await consumer.getmany(place, timeout_ms=200)
                messages += [message_of(KEY_EVENTS, record) for record in records.get(place, ())]
    return messages


def _lines(log: list[Message]) -> Iterator[dict[str, Any]]:
    for message in log:
        yield from (msgspec.json.decode(line) for line in message.value.splitlines())


def _event_ids(log: list[Message]) -> list[str]:
    return list(dict.fromkeys(line["id"] for line in _lines(log) if line["type"] == "key"))


def _expected_alerts(log: list[Message]) -> set[tuple[str, str]]:
    """One for each key that was revoked and then refused, one for each that failed ten times; b and c have both."""
    expected = set()
    for line in _lines(log):
        if line["type"] == "key" and line["operation"] == "decrypt" and line["actor"] == "job:scene":
            rule = "revoked_key_decrypt" if line["outcome"] == "denied" and line.get("reason") == "key_state" else ""
            expected.add((rule or "crypto_failures", line["key"]["id"]))
    assert len(expected) == 4, expected
    return expected


async def _state(settings: Settings, topic: str, partition: int) -> dict[bytes, bytes]:
    log = KafkaStateLog(
        transactional_id=f"{settings.topic_prefix}{settings.app_id}.{topic}.{partition}",
        topic=settings.state_topic(topic),
        partition=partition,
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )
    state = State()
    await log.open(state)
    await log.close()
    return state.dump()
