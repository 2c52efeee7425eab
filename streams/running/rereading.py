"""Reads messages of the log once more, for documents that the index has not got; never in the agents' way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from cryptocore.errors import ConfigurationError
from streams.index.writer import IndexWriter
from streams.log.consumers import reading
from streams.messages import Message, generation_in
from streams.running.partition_owner import PartitionOwner

WAIT_MS: Final = 500
ROOM: Final = 24 * 1024 * 1024
"""Bytes of room that the writer must have before more is read."""
PAUSE_S: Final = 0.05


async def committed(
    connection: Mapping[str, Any], full_name: str, partition: int, *, end: int | None = None
) -> AsyncIterator[Any]:
    """Read every committed record of a partition from its beginning, in the order of the log.

    Args:
        connection: of an aiokafka client.
        full_name: of the topic.
        partition: which.
        end: the offset to stop before; None for where the partition ends now.

    Raises:
        ConfigurationError: the topic is missing; asked for its end, it would be waited for.
        KafkaError: the log did not answer.
    """
    place = TopicPartition(full_name, partition)
    async with reading(
        **connection, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest"
    ) as consumer:
        if full_name not in await consumer.topics():
            raise ConfigurationError(f"topic {full_name} is missing; see `keytrail topics ensure`")
        consumer.assign([place])
        if end is None:
            end = (await consumer.end_offsets([place]))[place]
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            for record in (await consumer.getmany(place, timeout_ms=WAIT_MS)).get(place, ()):
                if record.offset < end:
                    yield record


class Rereader:
    """One reader, one partition at a time."""

    def __init__(self, *, full_name: Callable[[str], str], connection: Mapping[str, Any]) -> None:
        self.busy = False
        self._full_name = full_name
        self._connection = connection

    async def read(self, owner: PartitionOwner, writer: IndexWriter) -> None:
        """Give the owner what it wants to see again; stops early when the index or the partition is lost."""
        if self.busy or owner.again is None:
            return
        self.busy = True
        try:
            async with reading(
                **self._connection,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            ) as consumer:
                await self._read(consumer, owner, writer)
        finally:
            self.busy = False

    async def _read(self, consumer: AIOKafkaConsumer, owner: PartitionOwner, writer: IndexWriter) -> None:
        topic, partition = owner.key
        place = TopicPartition(self._full_name(topic), partition)
        consumer.assign([place])
        consumer.seek(place, (owner.again or (0, 0))[0])
        while (again := owner.again) is not None and not owner.closed and writer.unavailable_since is None:
            if writer.room() < ROOM:
                await asyncio.sleep(PAUSE_S)
                continue
            fetched = await consumer.getmany(place, timeout_ms=WAIT_MS, max_records=8)
            messages = [message_of(topic, record) for record in fetched.get(place, ())]
            until = min(await consumer.position(place), again[1])
            if not owner.reread(messages, until):
                consumer.seek(place, (owner.again or again)[0])


def message_of(topic: str, record: Any) -> Message:
    """Make our message of what aiokafka or Faust read."""
    return Message(
        topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value or b"",
        tuple(record.headers),
        generation_in(record.topic, topic),
    )
