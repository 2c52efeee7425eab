"""`keytrail vault-feed eventhub`: the Kafka surface of Azure Event Hubs into `vault-access`.

A message of the hub is an envelope with many records. Its position is committed after every record in it was
acknowledged by our log, so a crash repeats records and never loses one. What cannot be read never stops the feed.
"""

import hashlib
import ssl
from collections.abc import Iterator
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import CommitFailedError, IllegalStateError
from azure.core.credentials_async import AsyncTokenCredential
from azure.identity.aio import DefaultAzureCredential

from streams.feeds.publisher import Publisher
from streams.feeds.records import Tally
from streams.feeds.running import run
from streams.feeds.settings import FeedSettings
from streams.settings import Settings
from streams.vaultlogs.containers import NotJson, Unreadable, unpack

FEED: Final = "eventhub"
# Azure's recommended client values: it cuts connections that are idle for 240 s, and is slow to answer at times.
IDLE_MS: Final = 180_000
REQUEST_MS: Final = 60_000
SESSION_MS: Final = 30_000
AT_ONCE: Final = 16
"""Messages taken at once: each holds up to 1 MB of records."""
POLL_MS: Final = 1_000
_log = structlog.get_logger(__name__)


class EntraTokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Tokens for OAUTHBEARER; azure-identity keeps them until they are about to expire."""

    def __init__(self, credential: AsyncTokenCredential, host: str) -> None:
        self._credential = credential
        self._scope = f"https://{host}/.default"

    async def token(self) -> str:
        """Return a token for the namespace."""
        return (await self._credential.get_token(self._scope)).token


def run_eventhub(settings: Settings, feed: FeedSettings) -> int:
    """Read the hub until told to stop; returns how many items were refused.

    Raises:
        ConfigurationError: a setting is missing.
        KafkaError: hub or log refused for good.
    """
    feed.hub()

    async def work(publisher: Publisher) -> None:
        if feed.eventhub_connection_string is not None:
            await consume(feed, publisher, None)
            return
        async with DefaultAzureCredential() as credential:
            await consume(feed, publisher, credential)

    return run(settings, FEED, feed.log_level, work)


async def consume(feed: FeedSettings, publisher: Publisher, credential: AsyncTokenCredential | None) -> None:
    """Read the hub from the committed position on, for ever."""
    consumer = AIOKafkaConsumer(
        feed.hub()[1],
        group_id=feed.eventhub_group,
        client_id="keytrail-feed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
        request_timeout_ms=REQUEST_MS,
        metadata_max_age_ms=IDLE_MS,
        connections_max_idle_ms=IDLE_MS,
        **connection(feed, credential),
    )
    try:
        await consumer.start()
        while True:
            for place, messages in (await consumer.getmany(timeout_ms=POLL_MS, max_records=AT_ONCE)).items():
                for message in messages:
                    where = f"{place.topic}/{place.partition}/{message.offset}"
                    await publisher.publish(records(message.value, where, publisher.tally), place=where)
                await _commit(consumer, place, messages[-1].offset + 1)
    finally:
        await consumer.stop()


def connection(feed: FeedSettings, credential: AsyncTokenCredential | None) -> dict[str, Any]:
    """Return how to connect to the hub: always TLS, with the connection string or with tokens of the credential."""
    bootstrap, _ = feed.hub()
    context = ssl.create_default_context(cafile=None if feed.eventhub_ca_file is None else str(feed.eventhub_ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    options: dict[str, Any] = {
        "bootstrap_servers": bootstrap,
        "security_protocol": "SASL_SSL",
        "ssl_context": context,
    }
    if credential is not None:
        tokens = EntraTokens(credential, bootstrap.partition(":")[0])
        return options | {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": tokens}
    assert feed.eventhub_connection_string is not None
    return options | {
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "$ConnectionString",
        "sasl_plain_password": feed.eventhub_connection_string.get_secret_value(),
    }


def records(value: bytes | None, where: str, tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the records of one message; what is none is refused and counted."""
    try:
        for item, found in enumerate(unpack(value or b""), start=1):
            if isinstance(found, Unreadable):
                tally.refuse(f"{where} item {item}", found.reason)
            else:
                yield found
    except NotJson:
        tally.refuse(where, "not_json", digest=hashlib.sha256(value or b"").hexdigest())


async def _commit(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> None:
    """Commit; where the partition went to another member meanwhile, that one reads the messages again."""
    try:
        await consumer.commit({place: offset})
    except (CommitFailedError, IllegalStateError) as problem:
        _log.warning("not committed", partition=place.partition, offset=offset, problem=type(problem).__name__)
