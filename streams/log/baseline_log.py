"""Baselines on Kafka: the last commit of the who agent is read, a person's decision is appended to its topic."""

from typing import Final

from aiokafka import AIOKafkaProducer

from cryptocore.errors import ConfigurationError
from streams.conduct import baseline_commands
from streams.conduct.baselines import Profile
from streams.conduct.observations import principal_key
from streams.log import statelog_kafka, topics
from streams.log.statelog import partition_of
from streams.messages import WHO
from streams.settings import Settings
from streams.state import Kind, State

CLIENT: Final = "keytrail-baselines"


async def read(settings: Settings, principal: str) -> dict[str, Profile]:
    """Return what is usual for a principal, by its id; of several where the start or the short form fits several.

    A whole id says where its state is; for a part of one all partitions are read, one after the other.

    Raises:
        ConfigurationError: the state topic is missing or has another number of partitions.
        KafkaError: the broker does not answer, or refuses.
    """
    ident = principal_key(principal)
    await _check(settings, settings.state_topic(WHO))
    own = partition_of(ident.encode(), settings.partitions)
    found: dict[str, Profile] = {}
    for partition in sorted(range(settings.partitions), key=lambda number: number != own):
        state = State()
        await statelog_kafka.read(settings.state_topic(WHO), partition, state, connection=settings.kafka_connection())
        whole = state.get(Kind.PRINCIPAL, ident.encode(), Profile)
        if whole is not None:
            return {ident: whole}
        found |= baseline_commands.profiles(state, principal)
    return found


async def send(settings: Settings, key: bytes, value: bytes) -> None:
    """Append a command of `baseline_commands.command`; on return all in-sync replicas have it.

    Raises:
        ConfigurationError: the topic is missing or has another number of partitions.
        KafkaError: the broker did not take it.
    """
    topic = settings.topic(WHO)
    await _check(settings, topic)
    producer = AIOKafkaProducer(**settings.kafka_connection(), client_id=CLIENT, acks="all", enable_idempotence=True)
    try:
        await producer.start()
        await producer.send_and_wait(topic, value, key=key, partition=partition_of(key, settings.partitions))
    finally:
        await producer.stop()


async def _check(settings: Settings, topic: str) -> None:
    """A topic that is not there would be waited for, and a wrong count would name the wrong partition."""
    for difference in await topics.differences(settings):
        if difference.topic == topic and difference.fatal:
            raise ConfigurationError(f"topic {difference}; see `keytrail topics ensure`")
