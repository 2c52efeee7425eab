"""The key-state topic in Kafka. Every process follows all partitions, from now on, without a group."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from cryptocore import forking
from cryptocore.errors import Failed
from cryptocore.keystate import Take

REQUEST_TIMEOUT_MS: Final = 15_000
_APPENDED: Final = 1
"""The type of a timestamp that the broker set."""


class KafkaKeyStates:
    """A producer and a consumer of one topic; each connects when it is first used.

    Args:
        connection: options of aiokafka, as `kafka.connection` makes them.
        topic: compacted; `keytrail topics ensure` makes it.
    """

    def __init__(self, connection: Mapping[str, Any], topic: str) -> None:
        self._connection = dict(connection)
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        forking.renew_in_child(self)

    def after_fork(self) -> None:
        """Leave the parent's connection to the parent."""
        forking.keep(self._producer)
        self._producer, self._opening = None, asyncio.Lock()

    async def publish(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Send keys and values, in this order.

        Raises:
            Failed: not all of them were taken.
        """
        try:
            producer = await self._opened()
            sent = [await producer.send(self._topic, key=key, value=value) for key, value in messages]
            await asyncio.gather(*sent)
        except KafkaError as err:
            raise Failed(f"Kafka did not take states of keys: {type(err).__name__}", retryable=True) from err

    async def follow(self, ready: Callable[[], None], take: Take) -> NoReturn:
        """Hand over every message from now on; call `ready` once nothing published later can be missed.

        Raises:
            Failed: the topic does not answer.
        """
        consumer = AIOKafkaConsumer(
            self._topic,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._connection,
        )
        try:
            await consumer.start()
            partitions = sorted(consumer.assignment())
            await consumer.seek_to_end(*partitions)
            for partition in partitions:
                await consumer.position(partition)
            ready()
            while True:
                for messages in (await consumer.getmany(timeout_ms=60_000)).values():
                    for message in messages:
                        appended = message.timestamp if message.timestamp_type == _APPENDED else None
                        take(message.key, message.value, appended)
        except KafkaError as err:
            raise Failed(f"Kafka does not answer: {type(err).__name__}", retryable=True) from err
        finally:
            await consumer.stop()

    async def _opened(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    **self._connection,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Let go of the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()
