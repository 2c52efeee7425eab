"""What must be so before a new generation of the topics can take over: said exactly, one sentence a thing.

Work of the old generation is done (applied, in the index), and nothing more of it can come.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code

from cryptocore.clock import rfc3339_ms
from streams.log.consumers import reading
from streams.log.statelog import Position
from streams.presence.instances import Instance, Status
from streams.settings import GROWING, Settings
from streams.state import Kind, State

_WAIT_MS: Final = 500
_NAMED: Final = 10
"""Instances that are named one by one."""
_HOW: Final = {
    Status.LIVE: "is live: stop its process, or start it anew on the new generation",
    Status.CLOSING: "has ended, and batches of it are missing",
    Status.SILENT: "fell silent: send what is in its spool with `keytrail drain`",
    Status.UNCLOSED: "ended without a word: send what is in its spool with `keytrail drain`",
}

Positions = Mapping[tuple[str, int], Position | None]


async def members(settings: Settings) -> list[str]:
    """Name the workers that are in the group now.

    Raises:
        KafkaError: the broker refused, or did not answer.
    """
    admin = AIOKafkaAdminClient(**settings.kafka_connection())
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([settings.app_id])
    finally:
        await admin.close()
    found = []
    for code, _, _, _, _, group_members, *_ in answer.groups:
        if code:
            raise for_code(code)(f"group {settings.app_id}")
        found += [f"{client} on {host}" for _, client, host, *_ in group_members]
    return found


class Left(NamedTuple):
    """What is left to do of each partition, one sentence each."""

    unapplied: list[str]
    unindexed: list[str]


async def unread(settings: Settings, positions: Positions) -> Left:
    """Say for each input partition what of it is not in the state, or not in the index.

    A position stands at the last message, and a commit leaves a marker behind that: what counts is whether a message
    is left to read.
    """
    left = Left([], [])
    async with reading(
        **settings.kafka_connection(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    ) as consumer:
        places = {TopicPartition(settings.topic(topic), number): (topic, number) for topic, number in positions}
        consumer.assign(list(places))
        starts, ends = await consumer.beginning_offsets(list(places)), await consumer.end_offsets(list(places))
        for place, key in places.items():
            position = positions[key]
            applied = starts[place] if position is None else position.applied
            name = f"{place.topic}/{place.partition}"
            if await _has_message(consumer, place, applied, ends[place]):
                left.unapplied.append(f"{name}: messages from {applied} on are not applied: start the workers again")
            elif position is not None and position.indexed < applied:
                left.unindexed.append(f"{name}: documents from {position.indexed} on may not be in the index")
    return left


async def _has_message(consumer: AIOKafkaConsumer, place: TopicPartition, since: int, end: int) -> bool:
    if since >= end:
        return False
    others = [other for other in consumer.assignment() if other != place]
    consumer.pause(*others)
    consumer.resume(place)
    consumer.seek(place, since)
    while await consumer.position(place) < end:
        if (await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=1)).get(place):
            return True
    return False


def open_chains(sources: State, generation: int) -> list[str]:
    """Name the processes from which something of this generation may still come."""
    found = [(ident, sources.get(Kind.SOURCE, ident, Instance)) for ident in sources.idents(Kind.SOURCE)]
    said = [
        f"{instance.source}, instance {ident.hex()}, {_HOW[instance.status]} (last heard {_time(instance.heard_ms)})"
        for ident, instance in found
        if instance is not None and instance.status is not Status.CLOSED and _is_of(instance, generation)
    ]
    more = len(said) - _NAMED
    return said if more <= 0 else [*said[:_NAMED], f"and {more} more processes"]


def _is_of(instance: Instance, generation: int) -> bool:
    return not instance.chains or any(chain.generation <= generation for chain in instance.chains)


def _time(ms: int) -> str:
    return rfc3339_ms(ms)[:19] + "Z"


def inputs(settings: Settings) -> list[tuple[str, int]]:
    """The input partitions that a generation has of its own."""
    return [(topic, number) for topic in GROWING for number in range(settings.partitions)]
