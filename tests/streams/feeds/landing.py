"""Where feeds write in these tests: a deployment of the test's own, and what the vault agent makes of it."""

import asyncio
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition

from alerts.thresholds import Limits
from streams.index.port import DocKind
from streams.log import topics
from streams.messages import VAULT_ACCESS, Effects, Message
from streams.settings import Settings
from streams.state import State
from streams.vaultlogs.vault import VaultStep

PARTITIONS = 2


async def deployment(kafka: str, folder: Path) -> Settings:
    """Settings of fresh topics on this broker."""
    settings = Settings(
        kafka_bootstrap=kafka, topic_prefix=f"t{uuid4().hex[:8]}.", partitions=PARTITIONS, data_dir=folder
    )
    assert await topics.ensure(settings) == []
    return settings


async def landed(settings: Settings, *, wait_for: int = 0, within_s: float = 60) -> list[Message]:
    """All messages of vault-access, once there are at least `wait_for`."""
    topic = settings.topic(VAULT_ACCESS)
    places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(**settings.kafka_connection())
    await consumer.start()
    try:
        consumer.assign(places)
        found: list[Message] = []
        async with asyncio.timeout(within_s):
            while True:
                for place in places:
                    await consumer.seek_to_beginning(place)
                ends = await consumer.end_offsets(places)
                found = []
                while any([await consumer.position(place) < ends[place] for place in places]):
                    for place, records in (await consumer.getmany(*places, timeout_ms=200)).items():
                        found += [
                            Message(VAULT_ACCESS, place.partition, each.offset, each.timestamp, each.key, each.value)
                            for each in records
                        ]
                if len(found) >= wait_for:
                    return found
                await asyncio.sleep(0.1)
    finally:
        await consumer.stop()


def accesses(messages: list[Message]) -> list[str]:
    """Ids of the documents that the vault agent makes of the messages: each access once."""
    found = []
    for partition in range(PARTITIONS):
        step, state, effects = VaultStep(limits=Limits()), State(), Effects()
        step.restore(state)
        for message in messages:
            if message.partition == partition:
                step.apply(message, message.append_ms, state, effects)
        found += [document.id for document in effects.documents if document.kind is DocKind.VAULT_ACCESS]
    return found
