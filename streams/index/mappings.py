"""Which fields a document of each kind has, and how Elasticsearch indexes them: strict, so nothing slips in unseen.

Lines and records as received are kept in the source but not indexed. `dynamic: strict` holds for every object; what has
free names (facts of a finding) is `flattened`.
"""

from typing import Any, Final, NamedTuple

from streams.index.port import DocKind

Properties = dict[str, dict[str, Any]]


class Layout(NamedTuple):
    """One kind: the name of its index or indices after the prefix, and its fields. `ident` holds the document's id."""

    name: str
    daily: bool
    ident: str
    properties: Properties


KEYWORD: Final = {"type": "keyword", "ignore_above": 8191}
"""Exact values; 8,191 characters stay below Lucene's limit of 32,766 bytes whatever they are."""
SHORT: Final = {"type": "keyword", "ignore_above": 256}
TEXT: Final = {"type": "text"}
SHOWN: Final = {"type": "keyword", "index": False, "doc_values": False}
LONG: Final = {"type": "long"}
BOOLEAN: Final = {"type": "boolean"}
DATE: Final = {"type": "date", "format": "strict_date_optional_time"}
TIMESTAMP: Final = {"type": "date_nanos", "format": "strict_date_optional_time_nanos"}
AS_RECEIVED: Final = {"type": "object", "enabled": False}
FLATTENED: Final = {"type": "flattened", "ignore_above": 8191}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"properties": properties}


_BATCH: Final = _object(instance=KEYWORD, generation=LONG, partition=LONG, sequence=LONG, digest=KEYWORD)

_EVENT: Final[Properties] = {
    "@timestamp": TIMESTAMP,
    "event": _object(id=KEYWORD, action=KEYWORD, outcome=KEYWORD),
    "service": _object(name=KEYWORD),
    "user": _object(id=KEYWORD),
    "host": _object(name=KEYWORD),
    "source": _object(address=KEYWORD),
    "trace": _object(id=KEYWORD),
    "keytrail": _object(
        phase=KEYWORD,
        outcome=KEYWORD,
        reason=KEYWORD,
        purpose=KEYWORD,
        tenant_id=KEYWORD,
        integration_id=KEYWORD,
        secret_name=KEYWORD,
        intent_id=KEYWORD,
        claimed_key_id=KEYWORD,
        token_id=KEYWORD,
        appended_at=DATE,
        sealed_at=DATE,
        suspect=BOOLEAN,
        out_of_range=BOOLEAN,
        key=_object(id=KEYWORD, version=LONG, revision=LONG, kind=KEYWORD, state=KEYWORD),
        kek=_object(vault=KEYWORD, name=KEYWORD, version=KEYWORD),
        batch=_BATCH,
        line=AS_RECEIVED,
    ),
}

_CONTROL: Final[Properties] = {
    "@timestamp": TIMESTAMP,
    "event": _object(id=KEYWORD),
    "service": _object(name=KEYWORD),
    "keytrail": _object(
        type=KEYWORD,
        appended_at=DATE,
        sealed_at=DATE,
        suspect=BOOLEAN,
        out_of_range=BOOLEAN,
        batch=_BATCH,
        line=AS_RECEIVED,
    ),
}

_VAULT_ACCESS: Final[Properties] = {
    "@timestamp": TIMESTAMP,
    "time": KEYWORD,
    "operation": KEYWORD,
    "class": KEYWORD,
    "outcome": KEYWORD,
    "denial": KEYWORD,
    "http_status": LONG,
    "vault": KEYWORD,
    "object_kind": KEYWORD,
    "object_name": KEYWORD,
    "object_version": KEYWORD,
    "principal": _object(id=KEYWORD, kind=KEYWORD, app_id=KEYWORD, upn=KEYWORD, resource=KEYWORD),
    "address": KEYWORD,
    "network": KEYWORD,
    "tls_version": KEYWORD,
    "correlation_id": KEYWORD,
    "shape": KEYWORD,
    "key_change": _object(enabled=BOOLEAN, expires_at=KEYWORD, operations=KEYWORD),
    "access_id": KEYWORD,
    "resource_id": KEYWORD,
    "audit_log": BOOLEAN,
    "role": KEYWORD,
    "given_to": KEYWORD,
    "appended_at": DATE,
    "out_of_range": BOOLEAN,
    "original": AS_RECEIVED,
}

_KEK_USE: Final[Properties] = {
    "@timestamp": TIMESTAMP,
    "time": DATE,
    "id": KEYWORD,
    "status": KEYWORD,
    "strength": KEYWORD,
    "reason": KEYWORD,
    "final": BOOLEAN,
    "vault": KEYWORD,
    "name": KEYWORD,
    "version": KEYWORD,
    "operation": KEYWORD,
    "outcome": KEYWORD,
    "principal_id": KEYWORD,
    "principal_kind": KEYWORD,
    "principal_label": KEYWORD,
    "address": KEYWORD,
    "correlation_id": KEYWORD,
    "access_id": KEYWORD,
    "event_id": KEYWORD,
    "source": KEYWORD,
    "actor": KEYWORD,
    "purpose": KEYWORD,
    "tenant": KEYWORD,
    "key_id": KEYWORD,
    "behind_ms": LONG,
    "instances": LONG,
    "revision": LONG,
}

_ALERT: Final[Properties] = {
    "@timestamp": TIMESTAMP,
    "alert_id": KEYWORD,
    "number": KEYWORD,
    "rule_id": KEYWORD,
    "title": KEYWORD,
    "severity": KEYWORD,
    "status": KEYWORD,
    "count": LONG,
    "first_at": DATE,
    "last_at": DATE,
    "opened_at": DATE,
    "updated_at": DATE,
    "tenant": KEYWORD,
    "key": KEYWORD,
    "principal": KEYWORD,
    "who": KEYWORD,
    "summary": TEXT,
    "sure": TEXT,
    "first_step": TEXT,
    "runbook": SHOWN,
    "text": TEXT,
    "facts": FLATTENED,
    "evidence": FLATTENED,
    "delivered": _object(channel=KEYWORD, kind=KEYWORD, at=DATE),
    "revision": LONG,
}

_REJECTED: Final[Properties] = {
    "@timestamp": TIMESTAMP,
    "id": KEYWORD,
    "finding": KEYWORD,
    "topic": KEYWORD,
    "partition": LONG,
    "offset": LONG,
    "field": KEYWORD,
    "problem": KEYWORD,
    "value_sha256": SHORT,
}

LAYOUTS: Final[dict[DocKind, Layout]] = {
    DocKind.EVENT: Layout("events", daily=True, ident="event.id", properties=_EVENT),
    DocKind.CONTROL: Layout("control", daily=True, ident="event.id", properties=_CONTROL),
    DocKind.VAULT_ACCESS: Layout("vault-access", daily=True, ident="access_id", properties=_VAULT_ACCESS),
    DocKind.KEK_USE: Layout("kek-use", daily=False, ident="id", properties=_KEK_USE),
    DocKind.ALERT: Layout("alerts", daily=False, ident="alert_id", properties=_ALERT),
    DocKind.REJECTED: Layout("rejected", daily=False, ident="id", properties=_REJECTED),
}


def mapping(kind: DocKind) -> dict[str, Any]:
    """Give the mapping of a kind as Elasticsearch takes it."""
    return {"dynamic": "strict", "properties": LAYOUTS[kind].properties}


def unmapped(kind: DocKind, document: dict[str, Any]) -> list[str]:
    """Name the dotted fields of a document that the mapping of its kind does not have: the strict index refuses it."""
    return list(_unmapped(LAYOUTS[kind].properties, document, ""))


def _unmapped(properties: Properties, fields: dict[str, Any], place: str) -> list[str]:
    found: list[str] = []
    for name, value in fields.items():
        known = properties.get(name)
        if known is None:
            found.append(place + name)
        elif "properties" in known:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    found += _unmapped(known["properties"], item, f"{place}{name}.")
    return found
