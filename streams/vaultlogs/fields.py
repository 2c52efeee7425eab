"""What the readers of all shapes bring to the normaliser, and how a value of loose type is read.

Log Analytics turns numbers into 200.0 or "200", booleans into "True", and a missing value into "None" or "".
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from streams.vaultlogs.rejection import Reason, VaultRecordRejected

MAX_TEXT: Final = 16_000
"""Characters of one value: in UTF-8 it stays below the 65,535 bytes that a length prefix of the access id holds."""
MAX_DESCRIPTION: Final = 4_000
"""Characters of resultDescription that are searched for a cause."""

Record = Mapping[str, Any]
_NOTHING: Final[Record] = {}
_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False}
_decode = msgspec.json.Decoder().decode


class Shape(StrEnum):
    """Where a record's form comes from."""

    ENVELOPE = "envelope"
    MANAGED_HSM = "managed_hsm"
    AZURE_DIAGNOSTICS = "azure_diagnostics"
    AZKV_AUDIT_LOGS = "azkv_audit_logs"
    EVENT_GRID = "event_grid"
    CLOUD_EVENT = "cloud_event"
    ACTIVITY_LOG = "activity_log"


class Fields(Struct, kw_only=True, gc=False):
    """One record's facts under one set of names, still as loose as they were logged.

    In the access id `event_id` stands for the correlation id, and `reference` for id or requestUri, where a shape has
    none. `progress` is the state of an Activity Log operation.
    """

    shape: Shape
    time: object
    operation: str | None
    resource_id: str | None = None
    status: object = None
    signature: str | None = None
    description: str = ""
    object_id: str | None = None
    request_uri: str | None = None
    event_id: str | None = None
    reference: str | None = None
    progress: str | None = None
    address: str | None = None
    correlation_id: str | None = None
    claims: Record = _NOTHING
    policy_match: object = None
    rbac_authorized: object = None
    address_authorized: object = None
    address_type: str | None = None
    trusted_service: object = None
    subnet_id: str | None = None
    tls_version: str | None = None
    key_enabled: object = None
    key_expires: object = None
    key_operations: object = None
    request_body: object = None


def text(record: Record, name: str) -> str | None:
    """Return a value that is a text and says something; "" and "None" say nothing, and neither do other types.

    Raises:
        VaultRecordRejected: the text is beyond all that Azure writes.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value or value == "None":
        return None
    if len(value) > MAX_TEXT:
        raise VaultRecordRejected(Reason.TOO_LONG, name, f"more than {MAX_TEXT} characters")
    return value


def description(record: Record, name: str) -> str:
    """Return the beginning of a text that is searched, never kept."""
    value = record.get(name)
    return value[:MAX_DESCRIPTION] if isinstance(value, str) else ""


def nested(record: Record, name: str) -> Record:
    """Return an object, also where it was logged as its JSON text; anything else is empty."""
    value = record.get(name)
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and value[:1] == "{":
        decoded = from_json(value)
        if isinstance(decoded, dict):
            return decoded
    return _NOTHING


def from_json(value: str) -> object:
    """Decode a text that should be JSON; None where it is not."""
    try:
        return _decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def claims_of(record: Record, name: str) -> Record:
    """Return the claims of an identity: an object or its JSON text, with the claims under `claim`.

    Raises:
        VaultRecordRejected: somebody is named in a form that cannot be read.
    """
    value = record.get(name)
    if isinstance(value, str):
        if not value or value == "None":
            return _NOTHING
        value = from_json(value)
    elif value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise VaultRecordRejected(Reason.IDENTITY, name, "neither an object nor the JSON text of one")
    claims = value.get("claim")
    return claims if isinstance(claims, dict) else _NOTHING


def whole_number(value: object) -> int | None:
    """Read 200, 200.0, "200" or "200.0"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and len(value) < 20 and value.isascii():  # noqa: PLR2004 - a 64-bit number and a sign
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return None


def truth(value: object) -> bool | None:
    """Read true, "True" or "1"; None for anything else: unknown is never false."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _TRUTH.get(value.lower())
    return None
