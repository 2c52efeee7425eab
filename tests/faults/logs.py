"""What the log of a deployment holds, and the states that its workers committed."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from cryptocore.batch import OpenedBatch, SealedBatch, open_batch
from cryptocore.errors import BatchRejected
from cryptocore.registry import Registry
from streams.log.statelog_kafka import KafkaStateLog
from streams.log.topics import INPUTS
from streams.messages import Message
from streams.running.rereading import message_of
from streams.settings import Settings
from streams.state import State


async def messages_of(settings: Settings, topic: str) -> list[Message]:
    """Everything of a topic, partition by partition."""
    places = [TopicPartition(settings.topic(topic), number) for number in range(settings.topic_partitions[topic])]
    messages: list[Message] = []
    async with AIOKafkaConsumer(
        **settings.kafka_connection(), auto_offset_reset="earliest", isolation_level="read_committed"
    ) as consumer:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.seek_to_beginning(*places)
        for place in places:
            while await consumer.position(place) < ends[place]:
                records = await consumer.getmany(place, timeout_ms=200)
                messages += [message_of(topic, record) for record in records.get(place, ())]
    return messages


def honest(log: list[Message], registry: Registry) -> Iterator[tuple[Message, OpenedBatch]]:
    """What a receiver takes of a log, opened."""
    for message in log:
        with suppress(BatchRejected):
            batch = SealedBatch.from_headers(message.value, message.headers)
            partition, append_ms = message.partition, message.append_ms
            yield message, open_batch(batch, registry, generation=1, partition=partition, append_ms=append_ms)


def events_of(opened: list[OpenedBatch]) -> list[dict[str, Any]]:
    """Key events of batches, as they were sent."""
    lines = (msgspec.json.decode(line) for batch in opened for line in batch.raw_lines)
    return [line for line in lines if line["type"] == "key"]


async def ends_of(settings: Settings) -> dict[TopicPartition, int]:
    """Where each partition of the workers' inputs ends."""
    numbers = settings.topic_partitions
    places = [TopicPartition(settings.topic(name), number) for name in INPUTS for number in range(numbers[name])]
    async with AIOKafkaConsumer(**settings.kafka_connection(), isolation_level="read_committed") as consumer:
        return dict(await consumer.end_offsets(places))


async def state_of(settings: Settings, topic: str, partition: int) -> dict[bytes, bytes]:
    """The state that was committed of one partition; fences whoever still owns it."""
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
