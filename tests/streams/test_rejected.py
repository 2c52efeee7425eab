"""What cannot be taken is kept as it came, within bounds, with the place and the reason."""

import hashlib

import msgspec

from streams.index.port import DocKind
from streams.messages import REJECTED, Effects, Message
from streams.rejected import MAX_KEPT, decode, document, document_id, reject


def message(value: bytes = b"\x00\xff", headers: tuple[tuple[str, bytes], ...] = (("kt-seal", b"x"),)) -> Message:
    return Message("key-events", 3, 42, 1_795_000_000_000, b"key", value, headers)


def test_a_rejected_message_can_be_read_back_byte_for_byte() -> None:
    effects = Effects()
    reject(message(), "seal_invalid", "kt-sig", "does not hold", 1_795_000_000_500, effects)

    (out,) = effects.out
    kept = decode(out.value)
    assert out.topic == REJECTED
    assert (kept.topic, kept.partition, kept.offset, kept.append_ms) == ("key-events", 3, 42, 1_795_000_000_000)
    assert (kept.key, kept.value, kept.headers, kept.cut) == (b"key", b"\x00\xff", (("kt-seal", b"x"),), False)
    assert (kept.finding, kept.field, kept.problem) == ("seal_invalid", "kt-sig", "does not hold")


def test_its_document_names_place_and_reason_and_no_content() -> None:
    effects = Effects()
    reject(message(b"secret"), "seal_invalid", "kt-sig", "does not hold", 1_795_000_000_500, effects)

    (kept,) = effects.documents
    body = msgspec.json.decode(kept.body)
    assert (kept.kind, kept.id) == (DocKind.REJECTED, document_id(message()))
    assert (body["finding"], body["field"], body["offset"]) == ("seal_invalid", "kt-sig", 42)
    assert body["value_sha256"] == hashlib.sha256(b"secret").hexdigest()
    assert b"secret" not in kept.body


def test_the_document_does_not_depend_on_when_it_is_written() -> None:
    first, again = Effects(), Effects()
    reject(message(), "rejected", "value", "not JSON", 1, first)
    document(message(), "rejected", "value", "not JSON", again)

    assert first.documents == again.documents


def test_a_message_larger_than_the_topic_takes_is_cut_and_says_so() -> None:
    effects = Effects()
    value = b"a" * (MAX_KEPT + 1)
    reject(message(value, (("h", b"b" * 100_000),)), "rejected", "value", "too long", 1, effects)

    kept = decode(effects.out[0].value)
    assert len(effects.out[0].value) < 2 * 1024 * 1024 * 0.75
    assert (kept.cut, len(kept.value), kept.value_bytes, kept.headers) == (True, MAX_KEPT, len(value), ())
    assert kept.value_sha256 == hashlib.sha256(value).hexdigest()
