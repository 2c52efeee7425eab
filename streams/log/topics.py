"""The topics that keytrail needs: made where they are missing, compared where they exist, never changed.

Partition counts are a fixed property of a topic: whoever sends and whoever reads must agree on them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
from msgspec import Struct

from streams.log import generations
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, SOURCES, VAULT_ACCESS, WHO
from streams.settings import Settings

KEY_STATE: Final = "key-state"
INPUTS: Final = (KEY_EVENTS, VAULT_ACCESS, CORRELATE, WHO, SOURCES, FINDINGS)
"""Topics that an agent reads, each with a state topic of its own."""

_DAY_MS: Final = 24 * 3_600_000
_EVERY: Final = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(2 * 1024 * 1024)}
_DELETED: Final = _EVERY | {"cleanup.policy": "delete", "retention.ms": str(14 * _DAY_MS)}
_COMPACTED: Final = _EVERY | {"cleanup.policy": "compact"}
_STATE: Final = _COMPACTED | {"segment.bytes": str(64 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.2"}
_DO_ENSURE: Final = "keytrail topics ensure makes what is missing"
_DO_MIGRATE: Final = "keytrail topics migrate carries the state over (docs/operations.md, More partitions)"
_DO_COUNT: Final = "KEYTRAIL_PARTITIONS as it has, or a new generation (docs/operations.md, More partitions)"
_DO_SET: Final = "set it with Kafka's own tools; docs/operations.md has why"


class Topic(Struct, frozen=True):
    """One topic as it must be."""

    name: str
    partitions: int
    config: Mapping[str, str]
    exact: bool = True
    """Whoever sends to it or reads it relies on the number of partitions."""


class Difference(Struct, frozen=True):
    """Where the log is not as it must be, and what mends it; `fatal` = a worker would lose or misplace messages."""

    topic: str
    problem: str
    fatal: bool
    do: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.problem}"


def wanted(settings: Settings) -> list[Topic]:
    """List every topic, the state topics included."""
    counts = settings.topic_partitions
    everywhere = {"min.insync.replicas": str(max(1, settings.topic_replication - 1))}
    topics = [Topic(settings.topic(name), count, _DELETED | everywhere) for name, count in counts.items()]
    topics.append(Topic(settings.topic(KEY_STATE), settings.partitions, _COMPACTED | everywhere, exact=False))
    return topics + [Topic(settings.state_topic(name), counts[name], _STATE | everywhere) for name in INPUTS]


APPEAR_WITHIN_S: Final = 10.0
"""How long `ensure` waits for new topics to be listed; the metadata of a broker follow its controller's."""
_LOOK_AGAIN_S: Final = 0.1


async def ensure(settings: Settings) -> list[Difference]:
    """Make the topics that are missing and say how existing ones differ.

    Raises:
        KafkaError: the broker refused, or did not answer.
    """
    topics = wanted(settings)
    admin = AIOKafkaAdminClient(**settings.kafka_connection())
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        missing = [topic for topic in topics if topic.name not in existing]
        if missing:
            existing |= await _create(admin, missing, settings.topic_replication)
            await _appear(admin, {topic.name for topic in missing})
        return await _differences(admin, [topic for topic in topics if topic.name in existing])
    finally:
        await admin.close()


async def differences(settings: Settings) -> list[Difference]:
    """Compare without making anything, and look whether the state is of this generation."""
    topics = wanted(settings)
    admin = AIOKafkaAdminClient(**settings.kafka_connection())
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        mark = await generations.mark_of(settings) if settings.state_topic(SOURCES) in existing else None
        problem = generations.problem(settings, mark, existing)
        use = f"use generation {mark.generation}, KEYTRAIL_PARTITIONS={mark.partitions}" if problem and mark else ""
        missing = [topic.name for topic in topics if topic.name not in existing]
        found = [Difference(name, "is missing", fatal=True, do=use or _DO_ENSURE) for name in missing]
        if problem:
            found.append(Difference(settings.topic(KEY_EVENTS), problem, fatal=True, do=use or _DO_MIGRATE))
        elif mark is not None:
            found += await _left_behind(settings, mark, existing)
        return found + await _differences(admin, [topic for topic in topics if topic.name in existing])
    finally:
        await admin.close()


async def _left_behind(settings: Settings, mark: generations.Mark, existing: set[str]) -> list[Difference]:
    """Look whether somebody still sends into the generation before."""
    said = f"messages still come, and nobody reads them: generation {mark.generation} is in use"
    do = f"start who sends there anew on generation {mark.generation}, and take the right to write there away"
    late = await generations.sent_late(settings, mark, existing)
    return [Difference(name, said, fatal=False, do=do) for name in late]


async def _appear(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """Wait until the broker lists what it has just made: the next command may ask for it at once."""
    for _ in range(round(APPEAR_WITHIN_S / _LOOK_AGAIN_S)):
        if names <= set(await admin.list_topics()):
            return
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[Topic], replication: int) -> set[str]:
    """Make topics; returns the names of those that somebody else made in the meantime."""
    new = [NewTopic(topic.name, topic.partitions, replication, topic_configs=dict(topic.config)) for topic in topics]
    answer = await admin.create_topics(new)
    others = set()
    for name, code, *rest in answer.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            others.add(name)
        elif code:
            raise error(f"{name}: {rest[0] if rest else ''}")
    return others


async def _differences(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[Difference]:
    if not topics:
        return []
    counts = {
        described["topic"]: len(described["partitions"])
        for described in await admin.describe_topics([topic.name for topic in topics])
    }
    configs = await _configs(admin, topics)
    found = [
        Difference(
            topic.name, f"has {counts[topic.name]} partitions, {topic.partitions} needed", fatal=True, do=_DO_COUNT
        )
        for topic in topics
        if topic.exact and counts[topic.name] != topic.partitions
    ]
    for topic in topics:
        actual = configs.get(topic.name, {})
        found += [
            Difference(
                topic.name, f"{key} is {actual.get(key)}, {value} needed", fatal=key == "cleanup.policy", do=_DO_SET
            )
            for key, value in topic.config.items()
            if actual.get(key) != value
        ]
    return found


async def _configs(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> dict[str, dict[str, Any]]:
    asked = [
        ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=dict.fromkeys(topic.config)) for topic in topics
    ]
    answers = await admin.describe_configs(asked)
    return {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for answer in answers
        for resource in answer.resources
    }
