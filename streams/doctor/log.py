"""The log: does it answer, over TLS, are the topics as they must be, and what time does the broker think it is."""

from typing import Final
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from cryptocore.addresses import all_loopback
from cryptocore.clock import Clock
from streams.doctor.findings import Area, Finding
from streams.log import topics
from streams.settings import Settings

_NO_ERROR: Final = 0


async def look(settings: Settings, clock: Clock) -> list[Finding]:
    """Compare topics, and read the broker's clock by a topic that lives for a moment."""
    area = Area("log")
    _protection(area, settings)
    try:
        differences = await topics.differences(settings)
    except KafkaError as problem:
        area.wrong(
            settings.kafka_bootstrap, f"does not answer: {type(problem).__name__}", "start Kafka; look at rights"
        )
        return area.findings
    area.ok(settings.kafka_bootstrap, "answers")
    for difference in differences:
        area.wrong(difference.topic, difference.problem, difference.do)
    if not differences:
        area.ok("topics", f"all {len(topics.wanted(settings))} are as they must be")
    if settings.topic_replication == 1 and not all_loopback(settings.kafka_bootstrap):
        area.warning("topics", "KEYTRAIL_TOPIC_REPLICATION is 1: a lost disk loses the trail", "3 in production")
    await _clock(area, settings, clock)
    return area.findings


def _protection(area: Area, settings: Settings) -> None:
    protocol = settings.kafka_security_protocol
    if protocol.endswith("SSL"):
        area.ok("TLS", f"{protocol}, TLS 1.2 or later")
    elif all_loopback(settings.kafka_bootstrap):
        area.warning("TLS", f"{protocol} to this machine", "SASL_SSL as soon as the broker is another machine")
    else:
        area.wrong("TLS", f"{protocol} to another machine", "KEYTRAIL_KAFKA_SECURITY_PROTOCOL=SASL_SSL")


async def _clock(area: Area, settings: Settings, clock: Clock) -> None:
    name = f"{settings.topic_prefix}keytrail.doctor.{uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(**settings.kafka_connection())
    await admin.start()
    try:
        config = {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000"}
        made = await admin.create_topics([NewTopic(name, 1, settings.topic_replication, topic_configs=config)])
        code = made.topic_errors[0][1]
        if code != _NO_ERROR:
            refused = for_code(code).__name__
            area.skipped("clock of the broker", f"no topic may be made to read it by: {refused}", "compare it by hand")
            return
        try:
            area.clock("clock of the broker", await _ahead_ms(settings, name, clock))
        finally:
            await admin.delete_topics([name])
    finally:
        await admin.close()


async def _ahead_ms(settings: Settings, topic: str, clock: Clock) -> int:
    """Send twice and judge by the second: the first waits for the topic's leader."""
    async with AIOKafkaProducer(**settings.kafka_connection(), acks="all") as producer:
        await producer.send_and_wait(topic, b"")
        before_us = clock.now_us()
        appended = await producer.send_and_wait(topic, b"")
        after_us = clock.now_us()
    return int(appended.timestamp) - (before_us + after_us) // 2 // 1000
