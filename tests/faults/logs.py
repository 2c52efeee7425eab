"""What the log of a deployment holds, and the states that its workers committed."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from cryptocore.batch import OpenedBatch, SealedBatch, open_batch
from cryptocore.errors import BatchRejected
from cryptocore.registry import Registry
from streams.messages import Message
from streams.rereading import message_of
from streams.settings import Settings
from streams.state import State
from streams.statelog_kafka import KafkaStateLog


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


def event_ids(opened: list[bytes]) -> list[str]:
    """Ids of the key events of honest batches, each once."""
    return list(dict.fromkeys(line["id"] for line in lines(opened) if line["type"] == "key"))


def lines(values: list[bytes]) -> Iterator[dict[str, Any]]:
    for value in values:
        yield from (msgspec.json.decode(line) for line in value.splitlines())


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
