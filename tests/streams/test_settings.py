"""Settings that would put audit events on the wire in the clear, or deliver without a signature, are refused."""

import pytest
from pydantic import ValidationError

from streams.messages import generation_in
from streams.settings import Settings


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_plaintext_to_another_machine_must_be_allowed(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.setenv("KEYTRAIL_KAFKA_BOOTSTRAP", "127.0.0.1:9092,kafka.example:9092")
    monkeypatch.setenv("KEYTRAIL_KAFKA_SECURITY_PROTOCOL", protocol)
    monkeypatch.setenv("KEYTRAIL_KAFKA_USERNAME", "monitor")
    monkeypatch.setenv("KEYTRAIL_KAFKA_PASSWORD", "a password of this test")

    with pytest.raises(ValidationError, match="KEYTRAIL_KAFKA_ALLOW_PLAINTEXT") as refused:
        Settings()
    monkeypatch.setenv("KEYTRAIL_KAFKA_ALLOW_PLAINTEXT", "true")

    assert Settings().kafka_allow_plaintext
    assert "a password of this test" not in str(refused.value)


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "localhost:9092,[::1]:9092"])
def test_plaintext_within_this_machine_needs_no_permission(monkeypatch: pytest.MonkeyPatch, bootstrap: str) -> None:
    monkeypatch.setenv("KEYTRAIL_KAFKA_BOOTSTRAP", bootstrap)

    assert not Settings().kafka_allow_plaintext


def test_a_webhook_without_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTRAIL_WEBHOOK_URL", "https://hooks.example/keytrail")

    with pytest.raises(ValidationError, match="KEYTRAIL_WEBHOOK_SECRET"):
        Settings()


def test_topics_of_many_partitions_carry_their_generation_and_others_go_on() -> None:
    first, second = Settings(topic_prefix="eu."), Settings(topic_prefix="eu.", generation=2)

    assert (first.topic("key-events"), first.state_topic("key-events")) == (
        "eu.key-events",
        "eu.keytrail.state.key-events",
    )
    assert (second.topic("key-events"), second.state_topic("key-events")) == (
        "eu.key-events.g2",
        "eu.keytrail.state.key-events.g2",
    )
    for name in ("sources", "findings"):
        assert (second.topic(name), second.state_topic(name)) == (first.topic(name), first.state_topic(name))
    assert [generation_in(one.topic("who"), "who") for one in (first, second)] == [1, 2]
    assert generation_in("who.g7.who", "who") == 1


@pytest.mark.parametrize(("name", "place"), [("WEBHOOK", "URL"), ("CANARY", "ROUTE")])
def test_a_short_secret_is_refused_without_being_shown(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"KEYTRAIL_{name}_SECRET", "hunter2")
    monkeypatch.setenv(f"KEYTRAIL_{name}_{place}", "https://x.test/")

    with pytest.raises(ValidationError) as caught:
        Settings()

    assert f"KEYTRAIL_{name}_SECRET has fewer than 16 bytes" in str(caught.value)
    assert "hunter2" not in str(caught.value)
