"""The Event Hubs feed on a real broker with TLS and SASL: nothing lost, nothing counted twice, nothing stops it."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from azure.core.credentials import AccessToken

from cryptocore.clock import SystemClock
from cryptocore.errors import ConfigurationError
from streams.feeds.eventhub import FEED, EntraTokens, consume, records
from streams.feeds.publisher import Publisher
from streams.feeds.records import SAID_OF_ONE_REASON, Tally
from streams.feeds.settings import FeedSettings
from streams.settings import Settings
from tests.servers.kafka import SecureKafkaServer
from tests.streams.feeds.conftest import CONNECTION_STRING
from tests.streams.feeds.landing import accesses, deployment, landed
from tests.streams.vaultlogs.records import record

pytestmark = pytest.mark.servers


def numbered(number: int, **changes: Any) -> dict[str, Any]:
    return record() | {"correlationId": f"00000000-0000-4000-8000-{number:012d}"} | changes


def envelope(first: int, count: int) -> bytes:
    return json.dumps({"records": [numbered(number) for number in range(first, first + count)]}).encode()


async def fill(hub: SecureKafkaServer, values: list[bytes], *, partitions: int = 1) -> str:
    """A hub of this test's own with these messages."""
    name = f"insights-{uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=hub.address)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=hub.address)
    await producer.start()
    for at, value in enumerate(values):
        await producer.send(name, value, partition=at % partitions)
    await producer.stop()
    return name


def feed_settings(hub: SecureKafkaServer, name: str, folder: Path, **changes: Any) -> FeedSettings:
    values: dict[str, Any] = {
        "state_dir": folder,
        "eventhub_connection_string": CONNECTION_STRING,
        "eventhub_bootstrap": hub.secure_address,
        "eventhub_name": name,
        "eventhub_ca_file": hub.ca_file,
    }
    return FeedSettings(**(values | changes))


@asynccontextmanager
async def feeding(settings: Settings, feed: FeedSettings, credential: Any = None) -> AsyncIterator[Publisher]:
    publisher = Publisher(settings, feed=FEED, clock=SystemClock())
    await publisher.open()
    task = asyncio.create_task(consume(feed, publisher, credential))
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await publisher.close()


async def committed(hub: SecureKafkaServer, name: str) -> int | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=hub.address, group_id="keytrail", enable_auto_commit=False)
    await consumer.start()
    try:
        offset: int | None = await consumer.committed(TopicPartition(name, 0))
    finally:
        await consumer.stop()
    return offset


async def test_every_record_of_every_envelope_arrives_under_the_key_of_its_vault_and_object(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(0, 40), envelope(40, 2), json.dumps(numbered(42)).encode()])

    async with feeding(settings, feed_settings(hub, name, tmp_path)):
        found = await landed(settings, wait_for=43)

    assert len(set(accesses(found))) == len(found) == 43
    assert {message.key for message in found} == {b"kt-prod/tokens-kek"}
    assert json.loads(found[0].value)["feed"] == "eventhub"
    assert json.loads(found[0].value)["original"] == numbered(0)


async def test_the_position_is_committed_only_after_our_log_has_all_of_it(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(0, 5), envelope(5, 5)])
    feed = feed_settings(hub, name, tmp_path)
    publisher = Publisher(settings, feed=FEED, clock=SystemClock())  # not open: nothing can be sent

    with pytest.raises(AssertionError, match="not open"):
        await consume(feed, publisher, None)
    before = await committed(hub, name)
    async with feeding(settings, feed):
        await landed(settings, wait_for=10)
        async with asyncio.timeout(10):
            while await committed(hub, name) != 2:  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.1)

    assert before is None
    assert len(accesses(await landed(settings))) == 10


async def test_what_cannot_be_read_and_what_is_no_vaults_never_stops_the_feed(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    other = {
        "time": "2026-11-16T02:41:07Z",
        "category": "Administrative",
        "operationName": "MICROSOFT.COMPUTE/VIRTUALMACHINES/WRITE",
        "resourceId": "/SUBSCRIPTIONS/1/RESOURCEGROUPS/R/PROVIDERS/MICROSOFT.COMPUTE/VIRTUALMACHINES/V",
    }
    values = [
        b"not json",
        b"",
        b"\xff\xfe",
        b"{" * 60_000,
        json.dumps({"records": [1, numbered(1), other, {"strange": "record"}]}).encode(),
        envelope(2, 1),
    ]
    name = await fill(hub, values)

    async with feeding(settings, feed_settings(hub, name, tmp_path)) as publisher:
        found = await landed(settings, wait_for=3)

    assert dict(publisher.tally.refused) == {"not_json": 4, "not_an_object": 1}
    assert publisher.tally.other_resources == 1
    assert len(found) == 3  # the strange one is for the vault agent to quarantine
    assert len(accesses(found)) == 2


async def test_two_members_of_one_group_share_the_partitions_and_lose_nothing(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(at * 10, 10) for at in range(40)], partitions=4)
    feed = feed_settings(hub, name, tmp_path)

    async with feeding(settings, feed), feeding(settings, feed):
        found = await landed(settings, wait_for=400)

    assert len(set(accesses(found))) == len(accesses(found)) == 400


async def test_a_killed_feed_goes_on_where_it_was_and_each_access_counts_once(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(at * 100, 100) for at in range(150)])
    environment = {
        **os.environ,
        "KEYTRAIL_KAFKA_BOOTSTRAP": hub.address,
        "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix,
        "KEYTRAIL_PARTITIONS": str(settings.partitions),
        "KEYTRAIL_FEED_EVENTHUB_CONNECTION_STRING": CONNECTION_STRING,
        "KEYTRAIL_FEED_EVENTHUB_BOOTSTRAP": hub.secure_address,
        "KEYTRAIL_FEED_EVENTHUB_NAME": name,
        "KEYTRAIL_FEED_EVENTHUB_CA_FILE": str(hub.ca_file),
    }
    code = (
        "from streams.feeds.eventhub import run_eventhub; from streams.feeds.settings import FeedSettings; "
        "from streams.settings import Settings; run_eventhub(Settings(), FeedSettings())"
    )

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, env=environment, stderr=asyncio.subprocess.DEVNULL
        )

    first = await start()
    await landed(settings, wait_for=1)
    first.kill()
    await first.wait()
    at_kill = len(await landed(settings))
    second = await start()
    found = await landed(settings, wait_for=15_000, within_s=120)
    async with asyncio.timeout(60):
        while len(set(accesses(found))) < 15_000:
            await asyncio.sleep(0.5)
            found = await landed(settings)
    second.send_signal(signal.SIGTERM)

    assert await asyncio.wait_for(second.wait(), 30) == 0
    assert 0 < at_kill < 15_000, "the kill came too late to show anything"
    assert len(accesses(found)) == len(set(accesses(found))) == 15_000
    assert len(found) < 30_000, "it began again from the start"


class UnsignedTokens:
    """A credential for a broker that takes unsigned tokens; Microsoft Entra signs its own."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        now = SystemClock().now_us() // 1_000_000
        parts = ({"alg": "none"}, {"sub": "keytrail-feed", "iat": now, "exp": now + 600, "scope": "listen"})
        self.scopes += scopes
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        return AccessToken(f"{'.'.join(encoded)}.", now + 600)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open."""


async def test_an_identity_of_the_machine_takes_the_place_of_a_connection_string(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(0, 3)])
    credential = UnsignedTokens()

    async with feeding(settings, feed_settings(hub, name, tmp_path, eventhub_connection_string=None), credential):
        found = await landed(settings, wait_for=3)

    assert len(accesses(found)) == 3
    assert set(credential.scopes) == {"https://127.0.0.1/.default"}


async def test_a_wrong_connection_string_and_an_unknown_certificate_are_refused(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    publisher = Publisher(Settings(), feed=FEED, clock=SystemClock())
    wrong = feed_settings(hub, "any", tmp_path, eventhub_connection_string="Endpoint=sb://127.0.0.1/;wrong")
    unknown = feed_settings(hub, "any", tmp_path, eventhub_ca_file=None)

    for feed in (wrong, unknown):
        with pytest.raises((KafkaError, ssl.SSLError)):
            await asyncio.wait_for(consume(feed, publisher, None), 60)


def test_hub_and_namespace_are_read_from_the_connection_string_and_the_settings_come_first() -> None:
    of_string = FeedSettings(eventhub_connection_string="Endpoint=sb://ns.servicebus.windows.net/;EntityPath=a")  # type: ignore[arg-type]
    of_both = FeedSettings(
        eventhub_connection_string="Endpoint=sb://ns.servicebus.windows.net/;EntityPath=a",  # type: ignore[arg-type]
        eventhub_name="b",
        eventhub_bootstrap="other:9093",
    )

    assert of_string.hub() == ("ns.servicebus.windows.net:9093", "a")
    assert of_both.hub() == ("other:9093", "b")
    with pytest.raises(ConfigurationError, match="KEYTRAIL_FEED_EVENTHUB_BOOTSTRAP"):
        FeedSettings(eventhub_name="a").hub()
    assert "SharedAccessKey" not in repr(FeedSettings(eventhub_connection_string=CONNECTION_STRING))  # type: ignore[arg-type]


def test_what_is_refused_is_counted_to_the_last_and_said_by_its_digest_a_hundred_times(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tally = Tally(FEED)

    for at in range(SAID_OF_ONE_REASON + 5):
        assert list(records(b"secret text", f"hub/0/{at}", tally)) == []

    said = capsys.readouterr().out
    assert tally.refused["not_json"] == SAID_OF_ONE_REASON + 5
    assert said.count(hashlib.sha256(b"secret text").hexdigest()) == SAID_OF_ONE_REASON
    assert "secret text" not in said


def test_a_token_is_asked_for_the_namespace() -> None:
    credential = UnsignedTokens()

    token = asyncio.run(EntraTokens(credential, "ns.servicebus.windows.net").token())

    assert token.count(".") == 2
    assert credential.scopes == ["https://ns.servicebus.windows.net/.default"]
