"""Records into the topic `vault-access`: what `publish` returned from is in the log, on all in-sync replicas.

The producer is idempotent, so its own retries neither double nor reorder. A record that was sent before a crash and is
sent again after it is dropped by the vault agent, which knows an access by its id.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from cryptocore.clock import Clock
from cryptocore.errors import ConfigurationError
from streams.feeds.records import Tally, key_of
from streams.messages import VAULT_ACCESS
from streams.settings import Settings
from streams.vaultlogs.messages import wrap

MAX_REQUEST: Final = 2 * 1024 * 1024
"""Bytes of one message at most; the topic takes no more (streams.log.topics)."""
LINGER_MS: Final = 5
IN_FLIGHT: Final = 500
"""Records that wait for their acknowledgement together."""


class Publisher:
    """Sends for one feed; open it before use."""

    def __init__(self, settings: Settings, *, feed: str, clock: Clock) -> None:
        self._topic = settings.topic(VAULT_ACCESS)
        self._partitions = settings.partitions
        self._connection = settings.kafka_connection()
        self._feed = feed
        self._clock = clock
        self._producer: AIOKafkaProducer | None = None
        self.tally = Tally(feed)

    async def open(self) -> None:
        """Connect, and compare the number of partitions: feeds that disagree would part the copies of a record.

        Raises:
            ConfigurationError: the topic is missing, or has another number of partitions.
            KafkaError: the broker does not answer.
        """
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_request_size=MAX_REQUEST,
            client_id=f"keytrail-feed-{self._feed}",
            **self._connection,
        )
        try:
            await producer.start()
            await self._compare(producer)
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def publish(self, records: Iterable[dict[str, Any]], *, place: str) -> None:
        """Send records; on return each was acknowledged, or refused and counted.

        Args:
            records: as received.
            place: where they came from, for what is refused.

        Raises:
            KafkaError: the broker refused for good; nothing may be taken as sent.
        """
        waiting: list[asyncio.Future[Any]] = []
        for record in records:
            sent = await self._send(record, place)
            if sent is not None:
                waiting.append(sent)
            if len(waiting) >= IN_FLIGHT:
                await self._acknowledged(waiting)
        await self._acknowledged(waiting)

    async def close(self) -> None:
        """Let go of the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _compare(self, producer: AIOKafkaProducer) -> None:
        """Look it up among all topics: asking for one that is missing makes it on some brokers, and waits on others."""
        found = (await producer.client.fetch_all_metadata()).partitions_for_topic(self._topic)
        if found is None:
            raise ConfigurationError(f"topic {self._topic} is missing; see `keytrail topics ensure`")
        if len(found) != self._partitions:
            raise ConfigurationError(f"topic {self._topic} has {len(found)} partitions, not {self._partitions}")

    async def _send(self, record: dict[str, Any], place: str) -> asyncio.Future[Any] | None:
        assert self._producer is not None, "not open"
        key = key_of(record)
        if key is None:
            self.tally.other_resources += 1
            return None
        try:
            value = wrap(record, feed=self._feed, resource_id=None, fetched_us=self._clock.now_us())
            sent: asyncio.Future[Any] = await self._producer.send(self._topic, value, key=key)
        except MessageSizeTooLargeError:
            self.tally.refuse(place, "record_too_long")
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            self.tally.refuse(place, "cannot_be_written_as_json")
        else:
            return sent
        return None

    async def _acknowledged(self, waiting: list[asyncio.Future[Any]]) -> None:
        """Wait for all of them, also where one fails, so that none is left unheard."""
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        waiting.clear()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        self.tally.published += len(answers)
