"""The audit event of version 1 and the control lines of a chain: from values to a line of JSON and back.

A line is written once and its bytes are what counts: digests are over them and nobody serialises them again.
The values are in lines/values.py, the rules on which fields go together in lines/rules.py, those on texts in
lines/texts.py, the JSON Schema in lines/schema.py.
"""

import json
import re
from hashlib import sha256
from typing import Any, Final

import msgspec

from cryptocore.errors import EventInvalid
from cryptocore.lines.values import (
    AuditEvent,
    ChainClose,
    ChainOpen,
    Count,
    Head,
    Heartbeat,
    KekRef,
    KeyRef,
    Line,
    OwnerRef,
    Tally,
    VaultAttempt,
)
from cryptocore.lines.vocabulary import Durability, Operation, Outcome, Phase, Reason

__all__ = [
    "MAX_LINE",
    "AuditEvent",
    "ChainClose",
    "ChainOpen",
    "Count",
    "Durability",
    "Head",
    "Heartbeat",
    "KekRef",
    "KeyRef",
    "Line",
    "Operation",
    "Outcome",
    "OwnerRef",
    "Phase",
    "Reason",
    "Tally",
    "VaultAttempt",
    "as_written",
    "decode_line",
    "decode_lines",
    "encode_line",
    "json_schema",
    "kek_key_id",
]

MAX_LINE: Final = 16 * 1024
"""Bytes of one line, without its newline."""

_KEK_ID: Final = b"keytrail/kek-id/v1\x00"

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
# The tag is always written first and `v`, being the default, never: so the head of a line is ours to write.
_TAG: Final = b'{"type":'
_HEAD: Final = b'{"v":1,"type":'


def encode_line(line: Line) -> bytes:
    """Write one line, without its newline.

    Raises:
        EventInvalid: a receiver would refuse the line; nothing is written that `decode_line` does not read.
    """
    raw = as_written(line)
    decode_line(raw)
    return raw


def as_written(line: Line) -> bytes:
    """Write a line that was decoded: when these are the bytes it came as, it holds nothing that only bytes show."""
    return _HEAD + _encoder.encode(line)[len(_TAG) :]


def decode_line(raw: bytes) -> Line:
    """Read one line, without its newline.

    Raises:
        EventInvalid: names the field, and no value.
    """
    return _decode(raw, "")


def decode_lines(value: bytes) -> tuple[list[Line], list[bytes]]:
    """Read the lines of a batch, each ended by a newline.

    The fast way: when writing the values again gives the very bytes received, they held no repeated key, no null and
    no empty list, since none of these would be written. Other lines, correct but written by another hand, are read
    again slowly.

    Returns:
        The lines, and beside them their bytes as received, without the newline.

    Raises:
        EventInvalid: names the line, counted from 1, and the field.
    """
    raw_lines = value.split(b"\n")
    if raw_lines.pop():
        raise EventInvalid(f"line {len(raw_lines) + 1}: line", "not ended by a newline")
    try:
        lines = [*map(_decoder.decode, raw_lines)]
    except (EventInvalid, msgspec.MsgspecError, UnicodeDecodeError):
        lines = []
    if (
        _encoder.encode_lines(lines).replace(_TAG, _HEAD) != value
        or len(max(raw_lines, key=len, default=b"")) > MAX_LINE
    ):
        lines = [_decode(raw, f"line {number}: ") for number, raw in enumerate(raw_lines, 1)]
    return lines, raw_lines


def kek_key_id(vault: str, name: str) -> str:
    """Give the `key.id` under which events speak of a KEK: all of its versions, in any spelling of the names."""
    return sha256(_KEK_ID + f"{vault}/{name}".lower().encode()).hexdigest()[:32]


def json_schema() -> dict[str, Any]:
    """Describe one line as JSON Schema 2020-12, for producers in other languages."""
    from cryptocore.lines.schema import line_schema  # noqa: PLC0415 - only who asks for the schema pays for it

    return line_schema()


def _decode(raw: bytes, place: str) -> Line:
    if len(raw) > MAX_LINE:
        raise EventInvalid(f"{place}line", f"longer than {MAX_LINE} bytes")
    try:
        line = _decoder.decode(raw)
    except EventInvalid as err:
        raise EventInvalid(f"{place}{err.field}", err.problem) from None
    except msgspec.ValidationError as err:
        field, problem = _explain(str(err))
        raise EventInvalid(f"{place}{field}", problem) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EventInvalid(f"{place}line", "not JSON in UTF-8") from None
    if as_written(line) != raw:
        _check_members(raw, place)
    return line


_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`\Z")
_NAMED = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<name>[^`]*)`")
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.]{1,64}")


def _explain(message: str) -> tuple[str, str]:
    """Turn the decoder's message into a field and a problem that holds nothing from the line but a field's name."""
    place = _PLACE.search(message)
    path = place["path"] if place else ""
    named = _NAMED.match(message)
    if named:
        name = named["name"] if _FIELD_NAME.fullmatch(named["name"]) else "?"
        problem = "missing" if named["what"] == "missing required" else "unknown field"
        return f"{path}.{name}".lstrip("."), problem
    if message.startswith("Expected "):
        return path or "line", message[: place.start()] if place else message
    return path or "line", "not one of the words or numbers allowed here"


def _check_members(raw: bytes, place: str) -> None:
    """Refuse what the typed decoder lets pass: repeated keys, null, empty lists, false, a line without `v`."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, item in pairs:
            if name in found:
                raise EventInvalid(f"{place}{name}", "repeated")
            if item is None or item is False:
                raise EventInvalid(f"{place}{name}", "absent is written by leaving the field out")
            if item == [] and name not in ("heads", "tallies"):
                raise EventInvalid(f"{place}{name}", "an empty list is written by leaving the field out")
            found[name] = item
        return found

    def integer(digits: str) -> int:
        if digits == "-0":
            raise EventInvalid(f"{place}line", "-0 is not an integer of this format")
        return int(digits)

    if "v" not in json.loads(raw, object_pairs_hook=members, parse_int=integer):
        raise EventInvalid(f"{place}v", "missing")
