"""The state log on Kafka: one compacted topic per input, one transaction per cut, the last to open it owns it.

What it stands on: a producer with a transactional id fences its predecessor and aborts what that left open, so after
`open` nobody else writes; reading `read_committed` to the end then gives the last commit whole. The end that is waited
for is that of all records, so that a commit whose marker is on its way is waited for as well.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, InvalidProducerEpoch, ProducerFenced

from streams.log.consumers import reading
from streams.log.statelog import (
    POSITION_KEY,
    Change,
    Fenced,
    Position,
    check_sizes,
    decode_position,
    encode_position,
    placed,
)
from streams.messages import Out
from streams.state import State

TRANSACTION_TIMEOUT_MS: Final = 15_000
"""A dead worker's open transaction ends after this at the latest; its successor ends it sooner."""
MAX_REQUEST: Final = 2 * 1024 * 1024
"""Bytes of one message at most: the default of aiokafka is below what `rejected` may need."""
BATCH_BYTES: Final = 256 * 1024
_READ_MS: Final = 200
_CANCEL_AGAIN_S: Final = 0.1
Record = tuple[bytes | None, bytes | None]
_FENCED: Final = (ProducerFenced, InvalidProducerEpoch, IllegalOperation)
"""The last is what a producer says that heard of its successor while a transaction was open: it has none any more."""


class KafkaStateLog:
    """The state log of one input partition; `partitions` counts those of every topic that outputs go to."""

    def __init__(
        self,
        *,
        transactional_id: str,
        topic: str,
        partition: int,
        partitions: Mapping[str, int],
        full_name: Callable[[str], str],
        connection: Mapping[str, Any],
    ) -> None:
        self._transactional_id = transactional_id
        self._topic = topic
        self._partition = partition
        self._partitions = partitions
        self._full_name = full_name
        self._connection = connection
        self._producer: AIOKafkaProducer | None = None
        self._committing: asyncio.Task[None] | None = None

    async def open(self, state: State) -> Position | None:
        """Fence first, then read to the end: in this order nothing can be committed behind what was read."""
        producer = AIOKafkaProducer(
            **self._connection,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            max_request_size=MAX_REQUEST,
            max_batch_size=BATCH_BYTES,
        )
        self._producer = producer  # first: what is cancelled while it starts is closed, too
        await producer.start()
        return await read(self._topic, self._partition, state, connection=self._connection)

    async def commit(self, changes: Sequence[Change], position: Position, outs: Sequence[Out]) -> None:
        check_sizes(changes)
        self._committing = asyncio.get_running_loop().create_task(self._commit(changes, position, outs))
        await self._committing

    async def _commit(self, changes: Sequence[Change], position: Position, outs: Sequence[Out]) -> None:
        producer = self._producer
        assert producer is not None, "open comes first"
        records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        records[self._topic, self._partition] = [*changes, (POSITION_KEY, encode_position(position))]
        for partition, out in placed(outs, self._partitions):
            records[self._full_name(out.topic), partition].append((out.key, out.value))
        try:
            async with producer.transaction():
                sent = [await _send(producer, topic, partition, kept) for (topic, partition), kept in records.items()]
                await _all(future for futures in sent for future in futures)
        except _FENCED as err:
            raise Fenced(f"{self._topic}/{self._partition}") from err

    async def close(self) -> None:
        """Stop the producer, then the commit that waits for it.

        A stopped producer answers nobody (aiokafka 0.14): neither the commit under way nor, once that is cancelled,
        the abort that its transaction begins. Left alone, they would keep the process from ending.
        """
        if self._producer is not None:
            await self._producer.stop()
        while self._committing is not None and not self._committing.done():
            self._committing.cancel()
            await asyncio.wait({self._committing}, timeout=_CANCEL_AGAIN_S)


async def read(topic: str, partition: int, state: State, *, connection: Mapping[str, Any]) -> Position | None:
    """Load the last commit of a state topic's partition; who does not own it may see one that is no longer the last."""
    place = TopicPartition(topic, partition)
    async with reading(**connection, isolation_level="read_uncommitted") as everything:
        end = (await everything.end_offsets([place]))[place]
    position: Position | None = None
    async with reading(
        **connection,
        isolation_level="read_committed",
        auto_offset_reset="earliest",  # with the default, 50 of 60 takeovers read nothing: it beats the seek
        enable_auto_commit=False,
        fetch_max_wait_ms=_READ_MS,
        max_partition_fetch_bytes=4 * MAX_REQUEST,
    ) as consumer:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=_READ_MS)).values():
                for record in records:
                    if record.key == POSITION_KEY:
                        position = decode_position(record.value)
                    else:
                        state.load(record.key, record.value)
    return position


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[Record]) -> list[Any]:
    """Send records as ready batches (measured: six times cheaper than one by one); returns what to wait for."""
    futures = []
    batch = producer.create_batch()
    for key, value in records:
        if batch.append(timestamp=None, key=key, value=value) is None:
            futures.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value)
    batch.close()
    futures.append(await producer.send_batch(batch, topic, partition=partition))
    return futures


async def _all(futures: Iterable[Any]) -> None:
    """Wait for every future, then raise the first error: none is left without a listener."""
    for result in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
