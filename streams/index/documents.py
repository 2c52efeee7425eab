"""From values to documents: what people search by becomes fields, the line itself is spliced in as it was received.

Every text is JSON-escaped by the encoder; a line or a record that is spliced in has been decoded before, so it is JSON.
A document is a function of the message and the registry (event, control, vault-access, rejected), or of a state record
and its revision (kek-use, alert). Which fields exist is said by `mappings`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from alerts.model import KekUse, VaultAccess
from cryptocore.batch import Seal
from cryptocore.clock import rfc3339, rfc3339_ms
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Heartbeat, KekRef, KeyRef, Outcome
from streams.index.port import DocKind, Document
from streams.messages import Message

DAY_MS: Final = 86_400_000
OUT_OF_RANGE: Final = -1
"""`day_ms` of a document whose own time is not believed: it goes to the kind's index of such documents."""
PAST_MS: Final = 35 * DAY_MS
FUTURE_MS: Final = DAY_MS
"""A document's day is believed within [append time - PAST_MS, append time + FUTURE_MS] (design: index)."""

_encode = msgspec.json.Encoder().encode
_ECS_OUTCOME: Final = {
    Outcome.SUCCEEDED: "success",
    Outcome.DENIED: "failure",
    Outcome.FAILED: "failure",
    Outcome.UNKNOWN: "unknown",
}


class BatchFragment(NamedTuple):
    """What all documents of one batch share: the JSON after their own fields, and which times are believed."""

    body: bytes
    appended_at: str
    earliest: str
    latest: str


class _Event(Struct, omit_defaults=True, gc=False):
    id: str
    action: str
    outcome: str | None = None


class _Named(Struct, gc=False):
    name: str


class _Identified(Struct, gc=False):
    id: str


class _Address(Struct, gc=False):
    address: str


class _Use(Struct, omit_defaults=True, gc=False):
    phase: str
    purpose: str
    outcome: str | None = None
    reason: str | None = None
    tenant_id: str | None = None
    integration_id: str | None = None
    secret_name: str | None = None
    key: KeyRef | None = None
    kek: KekRef | None = None
    intent_id: str | None = None
    claimed_key_id: str | None = None
    token_id: str | None = None
    out_of_range: bool = False


class _EventDocument(Struct, omit_defaults=True, gc=False, rename={"timestamp": "@timestamp"}):
    timestamp: str
    event: _Event
    service: _Named
    user: _Identified
    host: _Named | None = None
    source: _Address | None = None
    trace: _Identified | None = None
    keytrail: _Use | None = None


def batch_fragment(seal: Seal, digest: bytes, append_ms: int, suspect: bool) -> BatchFragment:  # noqa: FBT001 - as opened
    """Write what the documents of one batch share.

    Args:
        seal: the seal of the opened batch.
        digest: its digest.
        append_ms: when the log took the message.
        suspect: whether its signer counts as compromised since before then.
    """
    batch = {
        "instance": seal.instance.hex(),
        "generation": seal.generation,
        "partition": seal.partition,
        "sequence": seal.sequence,
        "digest": digest.hex(),
    }
    appended_at = rfc3339_ms(append_ms)
    shared = _encode(
        {
            "appended_at": appended_at,
            "sealed_at": rfc3339_ms(min(seal.sealed_at_ms, append_ms + PAST_MS)),  # a wild clock is no date
            "suspect": suspect,
            "batch": batch,
        },
    )
    return BatchFragment(
        body=b"," + shared[1:-1] + b',"line":',
        appended_at=appended_at,
        earliest=rfc3339_ms(max(0, append_ms - PAST_MS)),
        latest=rfc3339_ms(append_ms + FUTURE_MS),
    )


def event_document(event: AuditEvent, raw: bytes, *, batch: BatchFragment) -> Document:
    """Build the document of one audit event; `raw` is its line without the newline."""
    timestamp = event.occurred_at
    believed = batch.earliest <= timestamp <= batch.latest
    head = event_head(event, timestamp if believed else batch.appended_at, out_of_range=not believed)
    return Document(
        DocKind.EVENT, event.id, head + batch.body + raw + b"}}", _day_of(timestamp) if believed else OUT_OF_RANGE
    )


def event_head(event: AuditEvent, timestamp: str, *, out_of_range: bool = False) -> bytes:
    """Write what the document of an event begins with: all its own fields, up to what the batch shares."""
    owner = event.owner
    outcome = event.outcome
    document = _EventDocument(
        timestamp,
        _Event(event.id, event.operation, None if outcome is None else _ECS_OUTCOME[outcome]),
        _Named(event.service),
        _Identified(event.actor),
        None if event.host is None else _Named(event.host),
        None if event.address is None else _Address(event.address),
        None if event.trace_id is None else _Identified(event.trace_id),
        _Use(
            event.phase,
            event.purpose,
            outcome,
            event.reason,
            None if owner is None else owner.tenant_id,
            None if owner is None else owner.integration_id,
            None if owner is None else owner.secret_name,
            event.key,
            event.kek,
            event.intent_id,
            event.claimed_key_id,
            event.token_id,
            out_of_range,
        ),
    )
    return _encode(document)[:-2]


def control_document(control: ChainOpen | Heartbeat | ChainClose, raw: bytes, *, batch: BatchFragment) -> Document:
    """Build the document of one control line; `raw` is the line without the newline."""
    believed = batch.earliest <= control.at <= batch.latest
    head = {
        "@timestamp": control.at if believed else batch.appended_at,
        "event": {"id": control.id},
        "service": {"name": control.service},
        "keytrail": {"type": type(control).__struct_config__.tag, "out_of_range": not believed},
    }
    body = _encode(head)[:-2] + batch.body + raw + b"}}"
    return Document(DocKind.CONTROL, control.id, body, _day_of(control.at) if believed else OUT_OF_RANGE)


def vault_access_document(access: VaultAccess, original: Any, append_ms: int) -> Document:
    """Build the document of one vault record; `original` is the record as received, decoded or as msgspec.Raw."""
    time_ms = access.time_us // 1000
    believed = append_ms - PAST_MS <= time_ms <= append_ms + FUTURE_MS
    fields = msgspec.structs.asdict(access)
    del fields["time_us"]
    fields["class"] = fields.pop("access_class")
    timestamp = rfc3339(access.time_us) if believed else rfc3339_ms(append_ms)
    document = {
        "@timestamp": timestamp,
        **fields,
        "appended_at": rfc3339_ms(append_ms),
        "out_of_range": not believed,
        "original": original,
    }
    day_ms = _day_of(timestamp) if believed else OUT_OF_RANGE
    return Document(DocKind.VAULT_ACCESS, access.access_id, _encode(document), day_ms)


def kek_use_document(use: KekUse, revision: int, state_key: bytes) -> Document:
    """Build the document of one KEK operation as the join judges it at this revision of its state."""
    fields = msgspec.structs.asdict(use)
    time_us = fields.pop("time_us")
    document = {"@timestamp": rfc3339(max(0, time_us)), "time": rfc3339(time_us), **fields, "revision": revision}
    return Document(DocKind.KEK_USE, use.id, _encode(document), None, revision, state_key)


def alert_document(alert: Mapping[str, Any] | Struct, revision: int, state_key: bytes) -> Document:
    """Build the document of one alert at this revision of its state; it holds `alert_id` and `first_at`."""
    fields = dict(alert) if isinstance(alert, Mapping) else msgspec.to_builtins(alert)
    document = {"@timestamp": fields["first_at"], **fields, "revision": revision}
    return Document(DocKind.ALERT, fields["alert_id"], _encode(document), None, revision, state_key)


def rejected_id(message: Message) -> str:
    """Name the document by its message's place; offsets begin anew with each generation of a topic."""
    generation = "" if message.generation == 1 else f".g{message.generation}"
    return f"{message.topic}{generation}/{message.partition}/{message.offset}"


def rejected_document(message: Message, finding: str, field: str, problem: str) -> Document:
    """Build the document of a message that no step could take: its place and the reason, not its content."""
    ident = rejected_id(message)
    document = {
        "@timestamp": rfc3339_ms(message.append_ms),
        "id": ident,
        "finding": finding,
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "field": field,
        "problem": problem,
        "value_sha256": sha256(message.value).hexdigest(),
    }
    return Document(DocKind.REJECTED, ident, _encode(document), None)


def _day_of(timestamp: str) -> int:
    return _day_ms(timestamp[:10])


@lru_cache(maxsize=128)
def _day_ms(date: str) -> int:
    return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1000
