import asyncio
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import ValidationError

from streams.log import topics
from streams.settings import Settings


def settings(bootstrap: str = "127.0.0.1:1", **changed: object) -> Settings:
    return Settings(kafka_bootstrap=bootstrap, topic_prefix=f"t{uuid4().hex[:8]}.", **changed)  # type: ignore[arg-type]


def test_every_input_has_a_compacted_state_topic_of_the_same_size() -> None:
    config = settings(partitions=3)
    wanted = {topic.name: topic for topic in topics.wanted(config)}

    for name in topics.INPUTS:
        state = wanted[config.state_topic(name)]
        assert state.partitions == wanted[config.topic(name)].partitions
        assert state.config["cleanup.policy"] == "compact"
    assert {topic.config["message.timestamp.type"] for topic in wanted.values()} == {"LogAppendTime"}


async def test_missing_topics_are_made_once_and_then_nothing_differs(kafka: str) -> None:
    config = settings(kafka, partitions=2)
    assert [difference.problem for difference in await topics.differences(config)] == ["is missing"] * len(
        topics.wanted(config)
    )
    assert await topics.ensure(config) == []

    assert await topics.ensure(config) == []
    assert await topics.differences(config) == []


async def test_a_topic_that_differs_is_named_and_left_as_it_is(kafka: str) -> None:
    config = settings(kafka, partitions=2)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(config.topic("key-events"), 3, 1, topic_configs={"retention.ms": "1000"})])
    while config.topic("key-events") not in await admin.list_topics():  # noqa: ASYNC110 - the broker has no event
        await asyncio.sleep(0.05)
    await admin.close()

    found = await topics.ensure(config)

    assert [str(difference).removeprefix(config.topic_prefix) for difference in found] == [
        "key-events: has 3 partitions, 2 needed",
        "key-events: message.timestamp.type is CreateTime, LogAppendTime needed",
        "key-events: retention.ms is 1000, 1209600000 needed",
    ]
    assert [difference.fatal for difference in found] == [True] + [False] * (len(found) - 1)
    assert await topics.differences(config) == found


def test_a_password_is_never_printed() -> None:
    config = settings(
        kafka_security_protocol="SASL_SSL", kafka_username="monitor", kafka_password="kt-planted", webhook_url=None
    )

    assert "kt-planted" not in repr(config)
    assert config.kafka_connection()["sasl_plain_password"] == "kt-planted"
    assert config.kafka_connection()["ssl_context"] is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"kafka_security_protocol": "SASL_SSL"},
        {"webhook_url": "https://example.test/hook"},
        {"partitions": 0},
        {"topic_prefix": "with space"},
    ],
)
def test_settings_that_cannot_work_are_refused_without_their_values(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(**wrong)  # type: ignore[arg-type]

    assert "example.test" not in str(refusal.value)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTRAIL_KAFKA_BOOTSTRAP", "127.0.0.1:19093")
    monkeypatch.setenv("KEYTRAIL_PARTITIONS", "4")

    config = Settings()

    assert config.kafka_bootstrap == "127.0.0.1:19093"
    assert config.topic_partitions["key-events"] == 4
    assert config.topic_partitions["findings"] == 1
