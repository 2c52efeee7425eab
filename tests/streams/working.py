"""A worker in the test's own loop, over counting steps and an index in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.index.port import EventIndex
from streams.log import topics
from streams.log.topics import INPUTS
from streams.messages import Step
from streams.running.app import WorkerApp
from streams.running.process import Application, Worker
from streams.settings import Settings
from tests.streams.counting import CountingStep, totals


async def fresh(kafka: str, folder: Path, *, partitions: int = 2) -> Settings:
    """Settings of a deployment of this test's own, its topics made."""
    settings = Settings(
        kafka_bootstrap=kafka,
        topic_prefix=f"t{uuid4().hex[:8]}.",
        partitions=partitions,
        kafka_session_timeout_s=6,
        web_port=0,
        data_dir=folder,
    )
    assert await topics.ensure(settings) == []
    return settings


def counting_steps() -> dict[str, Callable[[int], Step]]:
    return {topic: lambda _, topic=topic: CountingStep(topic) for topic in INPUTS}  # type: ignore[misc]


class Died(Exception):
    """The worker would have ended its process."""


@asynccontextmanager
async def working(
    settings: Settings,
    index: EventIndex,
    deaths: list[str],
    application: Callable[..., Application] = WorkerApp,
) -> AsyncIterator[Worker]:
    def die(reason: str) -> NoReturn:
        deaths.append(reason)
        raise Died(reason)

    worker = Worker(settings, counting_steps(), index, die=die, application=application)
    await worker.web.start()
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


async def send(settings: Settings, topic: str, values: Sequence[bytes], partition: int = 0) -> None:
    producer = AIOKafkaProducer(**settings.kafka_connection())
    await producer.start()
    for value in values:
        await producer.send(settings.topic(topic), value, partition=partition)
    await producer.stop()


async def until(true: Callable[[], bool], *, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - a test looks
            await asyncio.sleep(0.05)


def counted(worker: Worker, topic: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for (name, _), owner in worker.shell.owners.items():
        for value, total in totals(owner.state.dump()).items() if name == topic else ():
            found[value] = found.get(value, 0) + total
    return found


async def committed(settings: Settings, topic: str) -> list[bytes]:
    """All committed values of a topic's first partition; a commit's marker may come a moment after the commit."""
    place = TopicPartition(settings.topic(topic), 0)
    async with AIOKafkaConsumer(**settings.kafka_connection()) as uncommitted:
        end = (await uncommitted.end_offsets([place]))[place]
    values: list[bytes] = []
    async with AIOKafkaConsumer(
        **settings.kafka_connection(), isolation_level="read_committed", auto_offset_reset="earliest"
    ) as consumer:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [record.value for record in records]
    return values
