"""What a line must satisfy beyond its types: the texts, the times, and which fields go together.

Two things are judged once and remembered: a text (texts.py), and a *shape*, which is the combination of phase,
operation, outcome, reason and the fields that are present. What is left per event is its id and its time of day.
"""

from typing import TYPE_CHECKING, Final

from cryptocore.errors import EventInvalid
from cryptocore.lines.texts import (
    MAX_CALL_IDS,
    MAX_COUNTS,
    MAX_NOTE,
    PERSON,
    actors,
    addresses,
    dates,
    hosts,
    is_key_id,
    is_note,
    is_request_id,
    is_time_of_day,
    is_trace_id,
    is_uuid,
    kek_names,
    kek_versions,
    owner_parts,
    purposes,
    services,
    vaults,
)
from cryptocore.lines.vocabulary import (
    DATA_USES,
    KEK_ACTS,
    LIFE_CYCLE,
    MOTIVES,
    TOKEN_ACTS,
    VAULT_CALLS,
    Operation,
    Outcome,
    Phase,
    Reason,
)

if TYPE_CHECKING:
    from cryptocore.lines.values import (
        AuditEvent,
        Count,
        KekRef,
        OwnerRef,
        VaultAttempt,
    )


def _wrong(field: str, problem: str) -> EventInvalid:
    return EventInvalid(field, problem)


def check_uuid(field: str, text: str) -> None:
    """Refuse what is no UUID in lower case."""
    if not is_uuid(text):
        raise _wrong(field, "not a lower-case UUID")


def check_time(field: str, text: str) -> None:
    """Refuse what is no time of this format."""
    if not dates[text[:10]] or not is_time_of_day(text, 10):
        raise _wrong(field, "not a UTC time with six digits and Z")


def check_event(event: "AuditEvent") -> None:  # noqa: C901, PLR0912 - the hot path: a call for each check costs more
    """Check one event whose types are already right.

    Raises:
        EventInvalid: names the field.
    """
    if not is_uuid(event.id):
        raise _wrong("id", "not a lower-case UUID")
    time = event.occurred_at
    if not dates[time[:10]] or not is_time_of_day(time, 10):
        raise _wrong("occurred_at", "not a UTC time with six digits and Z")
    if not services[event.service]:
        raise _wrong("service", "not a source name")
    if not actors[event.actor]:
        raise _wrong("actor", "not kind:opaque-id")
    if not purposes[event.purpose]:
        raise _wrong("purpose", "not a purpose")
    key, owner, kek = event.key, event.owner, event.kek
    if key is not None and not is_key_id(key.id):
        raise _wrong("key.id", "not 32 lower-case hex digits")
    if owner is not None:
        _check_owner(owner)
    if event.host is not None and not hosts[event.host]:
        raise _wrong("host", "not a host name")
    if event.address is not None and not addresses[event.address]:
        raise _wrong("address", "not an IP address in lower case without port")
    if kek is not None:
        _check_kek(kek, event.operation)
    if event.trace_id is not None and not is_trace_id(event.trace_id):
        raise _wrong("trace_id", "not a trace id")
    shape = (
        event.phase, event.operation, event.outcome, event.reason, key is None, owner is None, kek is None,
        event.recovery, event.outage_grace, event.intent_id, event.call_ids, event.vault_attempts, event.counts,
        event.claimed_key_id, event.note, event.token_id,
    )  # fmt: skip
    if shape not in _plain_shapes:
        _judge(event)
        if shape[_RARE:] == _NOTHING_RARE:
            _plain_shapes.add(shape)


_RARE: Final = 9
_NOTHING_RARE: Final = (None, (), (), (), None, None, None)
_plain_shapes: set[tuple[object, ...]] = set()
"""Shapes already judged good, of events that hold no field whose content must be looked at each time."""


def _judge(event: "AuditEvent") -> None:
    """Judge the shape, then the contents of the fields that most events do not have."""
    _judge_phase(event)
    _judge_reason(event)
    _judge_key_and_owner(event)
    _judge_vault_call(event)
    _judge_summary(event)
    _judge_texts(event)


def _judge_phase(event: "AuditEvent") -> None:
    if event.phase is Phase.INTENT:
        if event.outcome is not None:
            raise _wrong("outcome", "an intent carries none")
    elif event.outcome is None:
        raise _wrong("outcome", f"a {event.phase} event carries one")
    if event.phase is Phase.OUTCOME:
        if event.intent_id is None:
            raise _wrong("intent_id", "an outcome event carries one")
        check_uuid("intent_id", event.intent_id)
    elif event.intent_id is not None:
        raise _wrong("intent_id", f"a {event.phase} event carries none")
    if event.outcome is Outcome.UNKNOWN and event.phase is not Phase.OUTCOME:
        raise _wrong("outcome", "unknown is written only for an intent left open")


def _judge_reason(event: "AuditEvent") -> None:
    reason = event.reason
    if event.outcome in (Outcome.DENIED, Outcome.FAILED):
        if reason is None:
            raise _wrong("reason", f"a {event.outcome} event carries one")
        if reason in MOTIVES:
            raise _wrong("reason", f"does not say why it was {event.outcome}")
    elif event.outcome is Outcome.UNKNOWN:
        if reason is not None and reason is not Reason.CRASHED:
            raise _wrong("reason", "an unknown outcome has crashed or none")
    elif reason is not None:
        if reason not in MOTIVES:
            raise _wrong("reason", "only a denied or failed event carries it")
        if event.operation not in LIFE_CYCLE:
            raise _wrong("reason", "only an act of the life cycle carries it")


def _judge_key_and_owner(event: "AuditEvent") -> None:
    operation = event.operation
    key_may_be_unknown = event.outcome in (Outcome.DENIED, Outcome.FAILED, Outcome.UNKNOWN)
    if event.key is None:
        if not (key_may_be_unknown or operation in TOKEN_ACTS or operation is Operation.SUMMARY):
            raise _wrong("key", "missing")
    elif event.claimed_key_id is not None:
        raise _wrong("claimed_key_id", "only where the key is not known")
    if event.owner is None and operation in DATA_USES | VAULT_CALLS:
        raise _wrong("owner", "missing")
    if event.recovery and operation is not Operation.REENCRYPT:
        raise _wrong("recovery", "only reencrypt reads under a recovery grant")
    if event.outage_grace and operation not in DATA_USES:
        raise _wrong("outage_grace", "only a use of data lives on the cached key")


def _judge_vault_call(event: "AuditEvent") -> None:
    is_call = event.operation in VAULT_CALLS
    if is_call and event.kek is None:
        raise _wrong("kek", "missing")
    if is_call and event.phase is Phase.INTENT:
        if not event.call_ids:
            raise _wrong("call_ids", "missing")
    elif event.call_ids and not (event.phase is Phase.INTENT and administers_kek(event)):
        raise _wrong("call_ids", "only the intent of a wrap or unwrap, or of an act on a KEK, carries them")
    if is_call and event.phase is Phase.OUTCOME:
        if event.outcome is Outcome.SUCCEEDED and not event.vault_attempts:
            raise _wrong("vault_attempts", "missing")
    elif event.vault_attempts and not (event.phase is Phase.OUTCOME and administers_kek(event)):
        raise _wrong("vault_attempts", "only the outcome of a wrap or unwrap, or of an act on a KEK, carries them")
    _judge_call_ids(event)


def administers_kek(event: "AuditEvent") -> bool:
    """Say whether an event is about the life of a KEK in a vault: an act that the vault's own log shows too."""
    key = event.key
    return event.kek is not None and key is not None and key.kind == "kek" and event.operation in KEK_ACTS


def _judge_call_ids(event: "AuditEvent") -> None:
    if len(event.call_ids) > MAX_CALL_IDS or len(set(event.call_ids)) != len(event.call_ids):
        raise _wrong("call_ids", f"at most {MAX_CALL_IDS}, all different")
    for place, call_id in enumerate(event.call_ids):
        check_uuid(f"call_ids[{place}]", call_id)
    if len(event.vault_attempts) > MAX_CALL_IDS:
        raise _wrong("vault_attempts", f"at most {MAX_CALL_IDS}")
    if len({attempt.call_id for attempt in event.vault_attempts}) != len(event.vault_attempts):
        raise _wrong("vault_attempts", "each attempt has its own call_id")
    for place, attempt in enumerate(event.vault_attempts):
        _check_attempt(f"vault_attempts[{place}]", attempt)


def _judge_summary(event: "AuditEvent") -> None:
    if event.operation is not Operation.SUMMARY:
        if event.counts:
            raise _wrong("counts", "only a summary carries them")
        return
    if event.phase is not Phase.SINGLE or event.reason is not Reason.RATE_LIMITED:
        raise _wrong("reason", "a summary is one single event with reason rate_limited")
    if not event.counts or len(event.counts) > MAX_COUNTS:
        raise _wrong("counts", f"a summary carries 1 to {MAX_COUNTS}")
    if len({(line.operation, line.outcome, line.reason) for line in event.counts}) != len(event.counts):
        raise _wrong("counts", "one entry for each operation, outcome and reason")
    for place, line in enumerate(event.counts):
        _check_count(f"counts[{place}]", line)


def _check_count(field: str, line: "Count") -> None:
    if line.operation is Operation.SUMMARY:
        raise _wrong(f"{field}.operation", "a summary does not count summaries")
    if line.outcome not in (Outcome.DENIED, Outcome.FAILED):
        raise _wrong(f"{field}.outcome", "only denied and failed acts are summarised")
    if line.reason in MOTIVES:
        raise _wrong(f"{field}.reason", "does not say why it was denied or failed")


def _judge_texts(event: "AuditEvent") -> None:
    if event.claimed_key_id is not None and not is_key_id(event.claimed_key_id):
        raise _wrong("claimed_key_id", "not 32 lower-case hex digits")
    if event.token_id is not None:
        if event.operation not in TOKEN_ACTS:
            raise _wrong("token_id", "only an act on a token names one")
        if not owner_parts[event.token_id]:
            raise _wrong("token_id", "not 1 to 128 visible ASCII characters")
    if event.note is not None:
        if event.operation not in LIFE_CYCLE or not event.actor.startswith(PERSON):
            raise _wrong("note", "only on a person's act of the life cycle")
        if not is_note(event.note):
            raise _wrong("note", f"1 to {MAX_NOTE} characters, none of them control characters")


def _check_owner(owner: "OwnerRef") -> None:
    if owner.secret_name is not None:
        if owner.tenant_id is not None or owner.integration_id is not None:
            raise _wrong("owner", "either tenant_id and integration_id, or secret_name")
        if not owner_parts[owner.secret_name]:
            raise _wrong("owner.secret_name", "not 1 to 128 visible ASCII characters")
    elif owner.tenant_id is None or owner.integration_id is None:
        raise _wrong("owner", "either tenant_id and integration_id, or secret_name")
    elif not owner_parts[owner.tenant_id]:
        raise _wrong("owner.tenant_id", "not 1 to 128 visible ASCII characters")
    elif not owner_parts[owner.integration_id]:
        raise _wrong("owner.integration_id", "not 1 to 128 visible ASCII characters")


def _check_kek(kek: "KekRef", operation: Operation) -> None:
    if not vaults[kek.vault]:
        raise _wrong("kek.vault", "not a vault name in lower case")
    if not kek_names[kek.name]:
        raise _wrong("kek.name", "not a key name in lower case")
    if kek.version is None:
        if operation not in KEK_ACTS:
            raise _wrong("kek.version", "missing")
    elif not kek_versions[kek.version]:
        raise _wrong("kek.version", "not a key version in lower case")


def _check_attempt(field: str, attempt: "VaultAttempt") -> None:
    check_uuid(f"{field}.call_id", attempt.call_id)
    if attempt.request_id is not None and not is_request_id(attempt.request_id):
        raise _wrong(f"{field}.request_id", "not 1 to 128 visible ASCII characters")
    check_time(f"{field}.started_at", attempt.started_at)
    if attempt.ended_at is not None:
        check_time(f"{field}.ended_at", attempt.ended_at)
