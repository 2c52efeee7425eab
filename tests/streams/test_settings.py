"""Settings that would put audit events on the wire in the clear, or deliver without a signature, are refused."""

import pytest
from pydantic import ValidationError

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
