"""A consumer for a while: whatever happens, also while it starts, it is stopped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer


@asynccontextmanager
async def reading(*topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Start a consumer of aiokafka, and stop it again.

    Its own `async with` leaves one that could not start as it is, and that one complains when it is forgotten.

    Args:
        topics: to subscribe to; none where the caller assigns partitions.
        options: of `AIOKafkaConsumer`.

    Raises:
        KafkaError: the broker does not answer, or refuses.
    """
    consumer = AIOKafkaConsumer(*topics, **options)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()
