"""The topic `rejected` for people: read it, and send what it kept back to where it came from."""

from collections.abc import AsyncIterator, Iterable

import msgspec
from aiokafka import AIOKafkaProducer

from streams import rejected
from streams.log.statelog_kafka import MAX_REQUEST
from streams.messages import REJECTED, VAULT_ACCESS
from streams.rejected import Rejected
from streams.running.rereading import committed
from streams.settings import Settings


class CannotRequeue(Exception):
    """What was kept is not what came: it cannot be sent back."""


async def read(settings: Settings, *, since_ms: int = 0) -> AsyncIterator[tuple[int, Rejected]]:
    """Read the topic from its beginning to its end, as it is now; yields each message's own offset and content.

    Args:
        since_ms: only what was rejected at or after this time.

    Raises:
        KafkaError: the broker did not answer.
    """
    async for record in committed(settings.kafka_connection(), settings.topic(REJECTED), 0):
        found = _decoded(record.value)
        if found is not None and found.rejected_ms >= since_ms:
            yield record.offset, found


async def requeue(
    settings: Settings, found: Iterable[tuple[int, Rejected]]
) -> AsyncIterator[tuple[int, Rejected, int | CannotRequeue]]:
    """Send messages back to their topics and partitions as they came; yields each with its new offset, or why not.

    What made it be rejected must have changed, the registry for instance; else it comes back. A sealed batch whose
    place in its chain is taken is dropped as a repeat, so sending one back twice changes nothing.

    Raises:
        KafkaError: the broker did not take it.
    """
    async with AIOKafkaProducer(**settings.kafka_connection(), acks="all", max_request_size=MAX_REQUEST) as producer:
        for number, kept in found:
            earlier = kept.generation != settings.generation_of(kept.topic)
            problem = _problem(kept, earlier=earlier)
            if problem is not None:
                yield number, kept, problem
                continue
            sent = await producer.send_and_wait(
                settings.topic(kept.topic),
                kept.value,
                key=kept.key,
                partition=None if earlier else kept.partition,  # None: by its key, as feeds do
                headers=list(kept.headers),
            )
            yield number, kept, int(sent.offset)


def _problem(kept: Rejected, *, earlier: bool) -> CannotRequeue | None:
    if earlier and (kept.topic != VAULT_ACCESS or kept.key is None):
        return CannotRequeue(f"is of generation {kept.generation} of its topic, which is not read any more")
    if kept.cut:
        return CannotRequeue("was too large to be kept whole")
    if kept.finding == "document_refused":
        return CannotRequeue("is a document that the index refused, and no message of a topic")
    return None


def _decoded(value: bytes | None) -> Rejected | None:
    """Everything in the topic was written by workers; what is not of our form is none of theirs and is passed over."""
    try:
        return rejected.decode(value or b"")
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
