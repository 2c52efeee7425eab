"""Decoy keys: any use of one is critical, along the short way for plain uses as well, and nothing else changes."""

import pytest
from pydantic import ValidationError

from alerts.model import Severity
from alerts.thresholds import Limits
from cryptocore.events import Operation, Outcome, Reason
from streams.settings import Settings
from tests.streams.builders import KEY_ID, NOW_MS, Monitor, Sender, event, registered

DECOY = KEY_ID
OTHER = "ab" * 16
REPEAT_MS = Limits().repeat_ms + 1_000


def billing(*decoys: str) -> tuple[Sender, Monitor]:
    sender = Sender("billing")
    limits = Limits(decoy_keys=frozenset(decoys))
    return sender, Monitor(registered("billing", sender.signer), partitions=1, limits=limits)


@pytest.mark.parametrize("operation", [Operation.ENCRYPT, Operation.DECRYPT, Operation.REENCRYPT, Operation.TOKEN_USE])
def test_each_kind_of_use_of_a_decoy_is_critical(operation: Operation) -> None:
    sender, monitor = billing(DECOY)
    monitor.take(sender.open(), sender.seal(event(operation, at_ms=NOW_MS)))

    assert monitor.found() == {"decoy_key_use": 1}
    (message,) = monitor.findings()
    assert message.finding.severity is Severity.CRITICAL
    assert message.finding.key == DECOY


def test_a_decoy_is_noticed_among_plain_uses_of_a_key_that_is_known() -> None:
    sender, monitor = billing(DECOY)
    known = [event(Operation.DECRYPT, at_ms=NOW_MS + n) for n in range(3)]
    calm_sender, calm = billing(OTHER)
    later_ms = NOW_MS + REPEAT_MS
    later = event(Operation.DECRYPT, at_ms=later_ms)
    monitor.take(sender.open(), sender.seal(*known))
    monitor.take(sender.seal(later, sealed_ms=later_ms), append_ms=later_ms)
    calm.take(calm_sender.open(), calm_sender.seal(*known))
    calm.take(calm_sender.seal(later, sealed_ms=later_ms), append_ms=later_ms)

    assert monitor.found() == {"decoy_key_use": 4}, "also the last one, of a key that is known by then"
    assert calm.found() == {}


def test_a_ciphertext_that_claims_a_decoy_where_nobody_knows_it_is_a_use() -> None:
    sender, monitor = billing(DECOY)
    tried = event(
        Operation.DECRYPT,
        at_ms=NOW_MS,
        outcome=Outcome.FAILED,
        reason=Reason.UNKNOWN_KEY,
        key_id=None,
        claimed_key_id=DECOY,
    )
    monitor.take(sender.open(), sender.seal(tried))

    assert monitor.found() == {"decoy_key_use": 1}


def test_decoys_are_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTRAIL_DECOY_KEYS", f'["{DECOY}"]')
    assert Settings().decoy_keys == (DECOY,)

    monkeypatch.setenv("KEYTRAIL_DECOY_KEYS", '["not a key"]')
    with pytest.raises(ValidationError):
        Settings()
