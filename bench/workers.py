"""Worker processes on a broker of their own, and what they say of themselves, for the benchmarks of scale."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from aiokafka import AIOKafkaProducer

from bench.sealed_load import PARTITIONS, Load
from bench.worker_process import Delivered, Job, Report
from streams.log import topics
from streams.log.statelog import Change, Position
from streams.log.statelog_kafka import KafkaStateLog
from streams.messages import KEY_EVENTS
from streams.settings import Settings
from streams.state import Kind, State
from tests.servers.process import Server

ROOT = Path(__file__).parent.parent
RECORDS_A_COMMIT = 20_000
WITHIN_S = 180

_decode = msgspec.json.Decoder(Report | Delivered).decode


@contextmanager
def serving(server: type[Server]) -> Iterator[str]:
    with server() as started:
        yield started.address


@asynccontextmanager
async def deployment(kafka: str) -> AsyncIterator[Settings]:
    """Settings of a deployment of this measurement's own, its topics made."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            kafka_bootstrap=kafka, topic_prefix=f"b{uuid4().hex[:8]}.", partitions=PARTITIONS, data_dir=Path(folder)
        )
        await topics.ensure(settings)
        yield settings


class WorkerProcess:
    """One worker as a process; `report` is the newest it has said, `delivered` all it has delivered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.report: Report | None = None
        self.started_s = time.monotonic()
        self.owned_s: float | None = None
        self.most_rss_mib = 0.0
        self.delivered: list[Delivered] = []
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, settings: Settings, load: Load, *, name: str = "worker", closed: bool = False
    ) -> "WorkerProcess":
        folder = settings.data_dir / name
        folder.mkdir()
        registry = folder / "sources.json"
        registry.write_bytes(load.registry.encode())
        told = settings.model_dump(include={"kafka_bootstrap", "topic_prefix", "partitions"})
        job = Job(settings=told | {"data_dir": str(folder)}, registry=str(registry), closed=closed)
        command = [sys.executable, "-m", "bench.worker_process", msgspec.json.encode(job).decode()]
        return cls(await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT))

    @property
    def applied(self) -> int:
        return 0 if self.report is None else self.report.applied.get(KEY_EVENTS, 0)

    @property
    def now(self) -> Report:
        assert self.report is not None, "it has said nothing yet"
        return self.report

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = _decode(line)
            if isinstance(said, Delivered):
                self.delivered.append(said)
            else:
                self.report = said
                self.most_rss_mib = max(self.most_rss_mib, said.rss_mib)
                if said.owned and self.owned_s is None:
                    self.owned_s = said.at_s
        if await self._process.wait():
            raise RuntimeError(f"a worker ended with {self._process.returncode}")

    def check(self) -> None:
        """Raise what ended the worker, if something did."""
        if self._reading.done():
            self._reading.result()


@asynccontextmanager
async def running(
    settings: Settings, load: Load, count: int = 1, *, closed: bool = False
) -> AsyncIterator[list[WorkerProcess]]:
    """So many workers that share all partitions."""
    workers = [
        await WorkerProcess.start(settings, load, name=f"worker{number}", closed=closed) for number in range(count)
    ]
    try:
        await until(lambda: _shared(workers), workers)
        yield workers
    finally:
        for worker in workers:
            await worker.stop()


def _shared(workers: Sequence[WorkerProcess]) -> bool:
    owned = [0 if worker.report is None else worker.report.owned for worker in workers]
    return sum(owned) == PARTITIONS and all(owned)


async def until(true: Callable[[], bool], workers: Sequence[WorkerProcess] = ()) -> float:
    """Wait, at most three minutes; returns the monotonic clock."""
    async with asyncio.timeout(WITHIN_S):
        while not true():
            for worker in workers:
                worker.check()
            await asyncio.sleep(0.002)
    return time.monotonic()


async def applied(worker: WorkerProcess, messages: int) -> None:
    """Wait until a worker has applied so many messages."""
    await until(lambda: worker.applied == messages, [worker])


async def send(kafka: str, topic: str, messages: Sequence[tuple[int, bytes, Any]]) -> None:
    async with sending(kafka) as producer:
        waiting = [
            await producer.send(topic, value, partition=partition, headers=headers)
            for partition, value, headers in messages
        ]
        await asyncio.gather(*waiting)


@asynccontextmanager
async def sending(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, linger_ms=5, max_batch_size=512 * 1024, max_request_size=2 * 1024 * 1024
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def state_log(settings: Settings, partition: int) -> KafkaStateLog:
    return KafkaStateLog(
        transactional_id=f"bench.{settings.topic_prefix}{partition}",
        topic=settings.state_topic(KEY_EVENTS),
        partition=partition,
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )


async def remember_keys(settings: Settings, load: Load, *, share: float = 1.0) -> int:
    """Write the state of keys that the load does not tell of, as a worker before this one would have.

    `share`: of how many keys of each partition, from the first on; above 1, begun anew. Returns how many were written.
    """
    written = 0
    for partition in range(PARTITIONS):
        log = state_log(settings, partition)
        await log.open(State())
        records = islice(_records(load, partition), round(share * len(load.keys[partition])))
        while changes := list(islice(records, RECORDS_A_COMMIT)):
            await log.commit(changes, Position(applied=0, indexed=0, now_ms=0), [])
            written += len(changes)
        await log.close()
    return written


def _records(load: Load, partition: int) -> Iterator[Change]:
    """The records of a partition's keys, for ever; those of a tenant's keys have the same value."""
    values: dict[str, bytes | None] = {}
    while True:
        for ident, history in load.histories(partition):
            value = values.get(history.tenant)
            if value is None:
                state = State()
                state.put(Kind.KEY, ident, history)
                [(_, value)] = state.cut()
                values[history.tenant] = value
            yield bytes((Kind.KEY,)) + ident, value
