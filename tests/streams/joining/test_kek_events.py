"""Events about a KEK's own life, through the keys agent: a claim on the vault's log, and nothing else."""

from typing import Any

import pytest

from cryptocore.clock import rfc3339_ms
from cryptocore.events import (
    AuditEvent,
    KekRef,
    KeyRef,
    Operation,
    Outcome,
    Phase,
    Reason,
    VaultAttempt,
    kek_key_id,
)
from cryptocore.registry import Role
from streams.state import Kind
from streams.trail.key_history import KeyHistory
from tests.streams.builders import NOW_MS, Monitor, Sender, fresh_id, registered

KEK = kek_key_id("kv-prod", "tenant-kek")


def kek_event(operation: Operation, phase: Phase = Phase.OUTCOME, **changes: Any) -> AuditEvent:
    at = rfc3339_ms(NOW_MS)
    attempt = VaultAttempt(call_id=fresh_id(), request_id="r-1", http_status=200, started_at=at, ended_at=at)
    ended = phase is Phase.OUTCOME
    values: dict[str, Any] = {
        "id": fresh_id(),
        "phase": phase,
        "operation": operation,
        "outcome": Outcome.SUCCEEDED if ended else None,
        "occurred_at": at,
        "service": "operations",
        "key": KeyRef(id=KEK, kind="kek"),
        "kek": KekRef(vault="kv-prod", name="tenant-kek"),
        "actor": "user:1009",
        "purpose": "rotation",
        "intent_id": fresh_id() if ended else None,
        "vault_attempts": (attempt,) if ended else (),
        "call_ids": () if ended else (attempt.call_id,),
    }
    return AuditEvent(**(values | changes))


def operations(*roles: Role) -> tuple[Sender, Monitor]:
    sender = Sender("operations")
    return sender, Monitor(registered("operations", sender.signer, *roles), partitions=1)


ACTS = ("create", "activate", "rotate", "rewrap", "suspend", "resume", "revoke", "archive", "destroy")


@pytest.mark.parametrize("operation", ACTS)
def test_an_act_on_a_kek_claims_its_record_before_and_after_and_changes_no_key(operation: str) -> None:
    sender, monitor = operations()
    before, after = kek_event(Operation(operation), Phase.INTENT), kek_event(Operation(operation))

    monitor.take(sender.seal(before, after))
    monitor.tick(NOW_MS + 3_600_000, step_ms=60_000)

    claims = [claim for claim in monitor.correlated() if claim["type"] == "claim"]
    assert [(claim["phase"], claim["operation"], claim["name"]) for claim in claims] == [
        ("intent", operation, "tenant-kek"),
        ("outcome", operation, "tenant-kek"),
    ]
    assert (len(claims[0]["call_ids"]), len(claims[1]["attempts"])) == (1, 1)
    assert "key_state_regression" not in monitor.found()
    assert monitor.states[0].get(Kind.KEY, bytes.fromhex(KEK), KeyHistory) is None


def test_versions_and_revisions_on_an_act_on_a_kek_mean_nothing() -> None:
    sender, monitor = operations()
    key = KeyRef(id=KEK, version=3, revision=9, kind="kek")

    monitor.take(sender.seal(kek_event(Operation.DESTROY, key=key), kek_event(Operation.CREATE, key=key)))
    monitor.tick(NOW_MS + 3_600_000, step_ms=60_000)

    assert "key_state_regression" not in monitor.found()


def test_an_act_that_failed_claims_too_and_is_remembered_without_a_history_of_versions() -> None:
    sender, monitor = operations()

    monitor.take(
        sender.seal(kek_event(Operation.DESTROY, outcome=Outcome.DENIED, reason=Reason.VAULT_DENIED)),
    )

    assert [claim["outcome"] for claim in monitor.correlated()] == ["denied"]
    assert monitor.found() == {}


def test_a_source_that_may_not_change_keys_explains_no_act_on_a_kek() -> None:
    sender, monitor = operations(Role.EVENTS)

    monitor.take(sender.seal(kek_event(Operation.DESTROY, Phase.INTENT), kek_event(Operation.DESTROY)))

    assert monitor.correlated() == []
    assert monitor.found() == {"key_record_invalid": 1}
