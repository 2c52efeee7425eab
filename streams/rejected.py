"""What no step could take: kept as it came, with the place and the reason, for people and for reading it again."""

import hashlib
from typing import Final, Literal

import msgspec
from msgspec import Struct

from streams.index import documents
from streams.messages import REJECTED, Effects, Message

MAX_KEPT: Final = 1_048_576
"""Bytes of the original value that are kept: with base64 a message stays below the topic's 2 MiB."""
MAX_KEPT_HEADERS: Final = 16_384
"""Bytes of headers that are kept; ours have 205."""


class Rejected(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rejected message; bytes are base64 in JSON. `value_sha256` is over the whole value, kept or not."""

    v: Literal[1]
    finding: str
    topic: str
    partition: int
    offset: int
    append_ms: int
    rejected_ms: int
    field: str
    problem: str
    key: bytes | None = None
    value: bytes
    value_bytes: int
    value_sha256: str
    headers: tuple[tuple[str, bytes], ...] = ()
    cut: bool = False
    generation: int = 1


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Rejected).decode


def document_id(message: Message) -> str:
    """The id of the message's document, for the evidence of a finding."""
    return documents.rejected_id(message)


def reject(  # noqa: PLR0917 - the parts of one sentence, in its order
    message: Message, finding_id: str, field: str, problem: str, now_ms: int, effects: Effects
) -> None:
    """Keep the message in the topic `rejected`, and its place and reason as a document.

    Args:
        message: what could not be taken.
        finding_id: the name of the finding that reports it, `seal_invalid` for instance.
        field: the place in the format that does not hold.
        problem: what is wrong there; holds no value of the message.
        now_ms: the step's time.
        effects: where both go.
    """
    headers_fit = sum(len(name) + len(value) for name, value in message.headers) <= MAX_KEPT_HEADERS
    key_fits = message.key is None or len(message.key) <= MAX_KEPT_HEADERS
    record = Rejected(
        v=1,
        finding=finding_id,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        append_ms=message.append_ms,
        rejected_ms=now_ms,
        field=field,
        problem=problem,
        key=message.key if key_fits else None,
        value=message.value[:MAX_KEPT],
        value_bytes=len(message.value),
        value_sha256=hashlib.sha256(message.value).hexdigest(),
        headers=message.headers if headers_fit else (),
        cut=len(message.value) > MAX_KEPT or not (headers_fit and key_fits),
        generation=message.generation,
    )
    effects.send(REJECTED, None, encode(record))
    document(message, finding_id, field, problem, effects)


def document(message: Message, finding_id: str, field: str, problem: str, effects: Effects) -> None:
    """Append the document alone: a function of the message and the reason, so reading again gives the same bytes."""
    effects.document(documents.rejected_document(message, finding_id, field, problem))
