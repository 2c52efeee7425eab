"""What one worker takes: sealed batches through all rules and state, on a real broker.

`worker_stub` stubs the index, beside a plain Faust agent that decodes one JSON event per message and does nothing with
it: 500 events a message and 2,000 keys. `worker_stub_50`, `_5`, `_1` have fewer events a message, `worker_stub_1m_…` a
million keys whose state the worker has read back before (`worker_restore_1m`: how long that took).
`worker_elasticsearch` writes every document into a real Elasticsearch, beside ready-made bulks of the same documents
into the same server, warmed. Broker, server and worker share the machine. Both of these are measured in turns with what
they are beside, and the medians compared.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple, NoReturn
from uuid import uuid4

import faust
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from elasticsearch import AsyncElasticsearch

from alerts.thresholds import Limits
from bench.result import Result
from bench.sealed_load import PARTITIONS, Load
from bench.worker_process import StubIndex
from bench.workers import deployment, remember_keys, send, serving, until
from cryptocore.clock import SystemClock
from streams.index.elastic import ElasticIndex
from streams.index.port import Document, EventIndex
from streams.messages import KEY_EVENTS, Effects, Message
from streams.pipeline import steps
from streams.running.process import Worker
from streams.state import State
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.kafka import KafkaServer

BATCHES = 960
TURNS = 5
KEYS = 2_000
SMALL = {50: 2_000, 5: 6_000, 1: 8_000}
"""Events a message, and how many messages."""
MANY_KEYS = 1_000_000
MANY_BATCHES = 200
BASELINE_MESSAGES = 60_000
BULK = 2_000


def run() -> list[Result]:
    """Measure all; needs Java and the servers' jars (tests/servers)."""
    load = Load(batches=BATCHES, keys=KEYS)
    plains, stubs, readies, indexed = [], [], [], []
    with serving(KafkaServer) as kafka:
        for _ in range(TURNS):
            plains.append(asyncio.run(plain_agent(kafka, load.lines[:BASELINE_MESSAGES])))
            stubs.append(asyncio.run(worker(kafka, load, StubIndex())).events_s)
        plain = median(plains)
        others = [*_small_messages(kafka, plain), *_many_keys(kafka, plain)]
        with serving(ElasticsearchServer) as url:
            for turn in range(TURNS):
                readies.append(asyncio.run(ready_bulks(url, load, turn)))
                index = ElasticIndex.connect([url], prefix=f"worker{turn}", replicas=0)
                indexed.append(asyncio.run(worker(kafka, load, index)).events_s)
    ready, name = median(readies), "ready bulks, same documents"
    return [
        _beside_plain("worker_stub", median(stubs), load.events * TURNS, plain),
        *others,
        Result("worker_elasticsearch", median(indexed), "events/s", load.events * TURNS, name, ready),
    ]


def _small_messages(kafka: str, plain: float) -> Iterator[Result]:
    for size, batches in SMALL.items():
        load = Load(batches=batches, keys=KEYS, events_a_batch=size)
        rate = asyncio.run(worker(kafka, load, StubIndex())).events_s
        yield _beside_plain(f"worker_stub_{size}", rate, load.events, plain)


def _many_keys(kafka: str, plain: float) -> Iterator[Result]:
    for name, zipf in (("uniform", False), ("zipf", True)):
        load = Load(batches=MANY_BATCHES, keys=MANY_KEYS, told=False, zipf=zipf)
        measured = asyncio.run(worker(kafka, load, StubIndex()))
        yield _beside_plain(f"worker_stub_1m_{name}", measured.events_s, load.events, plain)
    yield Result("worker_restore_1m", measured.restore_s, "s", MANY_KEYS)


def _beside_plain(name: str, events_s: float, events: int, plain: float) -> Result:
    return Result(name, events_s, "events/s", events, "plain Faust agent, one JSON event a message", plain)


class Measured(NamedTuple):
    """One run of a worker: its rate, and how long it took over its partitions."""

    events_s: float
    restore_s: float


async def worker(kafka: str, load: Load, index: EventIndex) -> Measured:
    """Run one worker from its first batch to the last document."""
    async with deployment(kafka) as settings:
        if not load.told:
            await remember_keys(settings, load)
        await send(
            kafka,
            settings.topic(KEY_EVENTS),
            [(number, batch.value, batch.headers()) for number, batch in load.batches],
        )
        await index.ensure()
        began = time.monotonic()
        running = Worker(settings, steps(load.registry, Limits()), index, die=_die)
        await running.start()
        shell = running.shell

        def applied() -> int:
            return sum(owner.applied for (topic, _), owner in shell.owners.items() if topic == KEY_EVENTS)

        taken_over = await until(lambda: bool(shell.owners))
        first = await until(lambda: applied() > 0)
        skipped = applied()
        end = await until(lambda: applied() == len(load.batches) and not running.writer.held)
        await running.stop()
    return Measured(load.events * (1 - skipped / len(load.batches)) / (end - first), taken_over - began)


async def plain_agent(kafka: str, lines: Sequence[bytes]) -> float:
    """Events a second of a Faust agent as its documentation writes one."""
    topic = f"b{uuid4().hex[:8]}.plain"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    await send(kafka, topic, [(number % PARTITIONS, line, []) for number, line in enumerate(lines)])
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        app = faust.App(
            topic,
            broker=f"kafka://{kafka}",
            datadir=folder,
            web_enabled=False,
            autodiscover=False,
            topic_partitions=PARTITIONS,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
        )

        @app.agent(app.topic(topic))  # type: ignore[untyped-decorator]
        async def agent(stream: Any) -> None:
            nonlocal seen
            async for event in stream:  # Faust has decoded it
                seen += "operation" in event

        app.finalize()
        await app.start()
        first = await until(lambda: seen > 0)
        skipped = seen
        end = await until(lambda: seen == len(lines))
        await app.stop()
    return (len(lines) - skipped) / (end - first)


async def ready_bulks(url: str, load: Load, turn: int = 0) -> float:
    """Documents a second of a client that does nothing but send; before the first turn as many to warm the server."""
    bodies = [_bulk(documents) for documents in documents_of(load)]
    prefixes = [f"ready{turn}"] if turn else ["warm", "ready0"]
    for prefix in prefixes:
        index = ElasticIndex.connect([url], prefix=prefix, replicas=0)
        await index.ensure()
        await index.close()
    async with AsyncElasticsearch([url], max_retries=0, request_timeout=60) as client:
        for prefix in prefixes:
            waiting = [body.replace(b"%PREFIX%", prefix.encode()) for body in bodies]
            began = time.perf_counter()

            async def send(waiting: list[bytes] = waiting) -> None:
                while waiting:
                    answer = await client.bulk(operations=waiting.pop(), filter_path=["errors"])  # type: ignore[arg-type]
                    assert answer["errors"] is False

            await asyncio.gather(send(), send())
            took = time.perf_counter() - began
    return load.events / took


def documents_of(load: Load) -> Iterator[list[Document]]:
    """The documents a worker makes of the load, in bulks."""
    make = steps(load.registry, Limits())[KEY_EVENTS]
    made = {number: make(number) for number in range(PARTITIONS)}
    states = {number: State() for number in made}
    waiting: list[Document] = []
    for offset, (number, batch) in enumerate(load.batches):
        effects = Effects()
        now_ms = SystemClock().now_us() // 1000
        message = Message(KEY_EVENTS, number, offset, now_ms, None, batch.value, tuple(batch.headers()))
        made[number].apply(message, now_ms, states[number], effects)
        waiting += effects.documents
        while len(waiting) >= BULK:
            yield waiting[:BULK]
            del waiting[:BULK]
    if waiting:
        yield waiting


def _bulk(documents: Sequence[Document]) -> bytes:
    return b"".join(
        b'{"create":{"_index":"%%PREFIX%%-events-2026.01.01","_id":"%s"}}\n%s\n' % (document.id.encode(), document.body)
        for document in documents
    )


def _die(reason: str) -> NoReturn:
    raise RuntimeError(reason)
