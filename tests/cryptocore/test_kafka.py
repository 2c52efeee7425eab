import asyncio
import ssl
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cryptocore.batch import SealedBatch
from cryptocore.emitter import Emitter
from cryptocore.errors import ConfigurationError, Failed
from cryptocore.events import AuditEvent, ChainClose, Operation
from cryptocore.kafka import COMPRESSIONS, KafkaTransport, tls_context
from cryptocore.signing import Signer
from cryptocore.testing import CountedIds
from tests.cryptocore import services
from tests.cryptocore.forking_kafka import USES
from tests.cryptocore.spooling import DEPLOYMENT, SERVICE, received, registry_of, used

PARTITIONS = 3
ROOT = Path(__file__).parents[2]


async def make_topic(bootstrap: str) -> str:
    name = f"key-events-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    finally:
        await admin.close()
    return name


async def read_all(bootstrap: str, topic: str) -> list[tuple[int, SealedBatch]]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    batches = []
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        for partition, end in ends.items():
            while end and await consumer.position(partition) < end:
                message = await consumer.getone(partition)
                headers = list(message.headers)
                batches.append((message.partition, SealedBatch.from_headers(message.value, headers)))
    finally:
        await consumer.stop()
    return batches


@pytest.mark.servers
@pytest.mark.parametrize(
    ("durability", "compression"),
    [
        ("volume", "none"),
        ("broker", "none"),
        *(("volume", name) for name, possible in COMPRESSIONS.items() if name != "none" and possible()),
    ],
)
async def test_everything_recorded_is_in_kafka_with_its_two_headers(
    kafka: str, tmp_path: Path, durability: str, compression: str
) -> None:
    topic, signer, ids = await make_topic(kafka), Signer.generate(), CountedIds()
    emitter = Emitter(
        spool_dir=tmp_path,
        signer=signer,
        deployment=DEPLOYMENT,
        service=SERVICE,
        transport=KafkaTransport(
            kafka, topic, partitions=PARTITIONS, security_protocol="PLAINTEXT", compression=compression
        ),
        partitions=PARTITIONS,
        durability=durability,
        linger_ms=5,
    )
    await emitter.open()
    events = [used(number % 7, ids) for number in range(300)]
    await asyncio.gather(*map(emitter.record, events))
    await emitter.close()

    lines = received(await read_all(kafka, topic), registry_of(signer))
    assert {line.id for line in lines if isinstance(line, AuditEvent)} == {event.id for event in events}
    assert any(isinstance(line, ChainClose) for line in lines)


@pytest.mark.servers
async def test_another_number_of_partitions_is_refused(kafka: str) -> None:
    topic = await make_topic(kafka)
    transport = KafkaTransport(kafka, topic, partitions=PARTITIONS + 1, security_protocol="PLAINTEXT")

    with pytest.raises(ConfigurationError, match="3 partitions, not 4"):
        await transport.open()


async def test_a_broker_that_is_not_there_is_a_failure_that_may_pass() -> None:
    transport = KafkaTransport("127.0.0.1:1", "key-events", partitions=1, security_protocol="PLAINTEXT")

    with pytest.raises(Failed) as caught:
        await transport.open()
    assert caught.value.retryable


@pytest.mark.parametrize("address", ["kafka.example:9092", "10.0.0.7:9092", "127.0.0.1:9092,10.0.0.7:9092"])
def test_plaintext_to_another_machine_is_refused_unless_allowed(address: str) -> None:
    with pytest.raises(ConfigurationError, match="plaintext"):
        KafkaTransport(address, "key-events", partitions=1, security_protocol="PLAINTEXT")
    KafkaTransport(address, "key-events", partitions=1, security_protocol="PLAINTEXT", allow_plaintext=True)


@pytest.mark.parametrize("address", ["localhost:9092", "127.0.0.1:9092", "[::1]:9092"])
def test_plaintext_on_this_machine_is_allowed(address: str) -> None:
    KafkaTransport(address, "key-events", partitions=1, security_protocol="PLAINTEXT")


def test_the_tls_context_verifies_and_speaks_1_2_or_later() -> None:
    context = tls_context()

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_REQUIRED], ids=["no certificate", "anybody's certificate"])
def test_a_context_that_does_not_verify_is_refused(mode: ssl.VerifyMode) -> None:
    context = tls_context()
    context.check_hostname = False
    context.verify_mode = mode

    with pytest.raises(ConfigurationError, match="verify"):
        KafkaTransport("kafka.example:9093", "key-events", partitions=1, security_protocol="SSL", ssl_context=context)


def test_sasl_without_credentials_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mechanism"):
        KafkaTransport("kafka.example:9093", "key-events", partitions=1)


def test_a_transport_does_not_print_its_password() -> None:
    sasl = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "planted-password"}

    assert "planted" not in repr(KafkaTransport("kafka.example:9093", "key-events", partitions=1, sasl=sasl))


# --- forks -----------------------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_a_core_used_before_a_fork_sends_from_both_sides_by_connections_of_their_own(
    kafka: str, tmp_path: Path
) -> None:
    topic, states, signer = await make_topic(kafka), await make_topic(kafka), Signer.generate()
    signer.write_file(tmp_path / "signer")
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cryptocore.forking_kafka", str(tmp_path), kafka, topic, states, cwd=ROOT
    )
    async with asyncio.timeout(60):
        assert await service.wait() == 0

    lines = received(await read_all(kafka, topic), services.registry_of(signer))
    decrypts = [line for line in lines if isinstance(line, AuditEvent) and line.operation is Operation.DECRYPT]
    assert Counter(line.actor for line in decrypts) == {"job:parent": USES, "job:child": USES}
    assert len({line.id for line in decrypts}) == 2 * USES
    assert sum(isinstance(line, ChainClose) for line in lines) == 2
    assert list((tmp_path / "spool").iterdir()) == []
