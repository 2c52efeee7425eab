"""Plain uses are read as `decode_lines` reads them: the same values from good lines, the same refusal of bad ones."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.clock import rfc3339
from cryptocore.errors import EventInvalid
from cryptocore.events import (
    AuditEvent,
    ChainOpen,
    Durability,
    KekRef,
    KeyRef,
    Line,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    decode_line,
    decode_lines,
    encode_line,
)
from cryptocore.keys import KeyState
from cryptocore.lines.plain_uses import PlainUse, ReadLine, read_lines

SERVICE = "billing"
ID = "6a1f9c52-8e0b-4f0e-9a51-3c2d7e4b1a90"
KEY_ID = "3f2a6c1e9b7d4058a1c3e5f708192a3b"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def use(**changes: Any) -> AuditEvent:
    fields: dict[str, Any] = {
        "id": ID,
        "phase": Phase.SINGLE,
        "operation": Operation.DECRYPT,
        "outcome": Outcome.SUCCEEDED,
        "occurred_at": "2026-11-16T02:41:07.123456Z",
        "service": SERVICE,
        "key": KeyRef(id=KEY_ID, version=3, revision=7, kind="dek", state=KeyState.ACTIVE),
        "owner": OwnerRef(tenant_id="t-88", integration_id="crm"),
        "actor": "user:4711",
        "purpose": "crm-sync",
        "host": "billing-7f9c4",
    }
    return AuditEvent(**fields | changes)


OTHERS: list[Line] = [
    ChainOpen(id=ID, at="2026-11-16T02:41:07.000000Z", service=SERVICE, durability=Durability.VOLUME),
    use(outcome=Outcome.FAILED, reason=Reason.BAD_TAG),
    use(operation=Operation.REENCRYPT, recovery=True),
    use(outage_grace=True),
    use(kek=KekRef(vault="kv", name="kek", version="1")),
    use(key=None, operation=Operation.TOKEN_USE),
    use(service="somebody-else"),
]


def value_of(*raws: bytes) -> bytes:
    return b"".join(raw + b"\n" for raw in raws)


def read_value(value: bytes) -> list[ReadLine]:
    return read_lines(value.split(b"\n"), SERVICE)


def read(value: bytes) -> list[Line] | str:
    """What `read_lines` makes of a value whose parts it has met, with plain uses decoded; a refusal as text."""
    try:
        lines = read_value(value)
    except EventInvalid as err:
        return str(err)
    raws = value.split(b"\n")[:-1]
    return [decode_line(raw) if isinstance(line, PlainUse) else line for line, raw in zip(lines, raws, strict=True)]


def read_slowly(value: bytes) -> list[Line] | str:
    try:
        return decode_lines(value)[0]
    except EventInvalid as err:
        return str(err)


def plain(raw: bytes) -> PlainUse:
    """The line as a plain use, once its parts are known."""
    read_value(value_of(raw))
    [line] = read_value(value_of(raw))
    assert isinstance(line, PlainUse), raw
    return line


def test_a_use_is_plain_when_its_parts_were_met_before() -> None:
    first = use(actor="user:never-met", host="never-met")

    [met] = read_value(value_of(encode_line(first)))
    again = plain(encode_line(first))

    assert met == first
    assert again.operation is Operation.DECRYPT
    assert (again.id, again.key_id, again.trace_id) == (ID.encode(), KEY_ID.encode(), b"")
    assert again.occurred_at == b"2026-11-16T02:41:07.123456Z"
    assert again.occurred_ms == 1_794_796_867_123


def test_a_new_id_time_key_or_trace_leaves_a_use_plain_and_its_parts_the_same() -> None:
    known = plain(encode_line(use()))
    later = use(
        id=ID.replace("6", "7"),
        operation=Operation.ENCRYPT,
        occurred_at="2026-12-31T23:59:59.999999Z",
        key=KeyRef(id=KEY_ID[::-1], version=3, revision=7, kind="dek", state=KeyState.ACTIVE),
        trace_id=TRACE,
    )

    [line] = read_value(value_of(encode_line(later)))

    assert isinstance(line, PlainUse)
    assert (line.subject, line.caller) == (known.subject, known.caller)
    assert line.trace_id == TRACE.encode()


@pytest.mark.parametrize("line", OTHERS, ids=str)
def test_what_is_no_plain_use_of_this_service_is_decoded_however_often_it_comes(line: Line) -> None:
    raw = encode_line(line)

    for _ in range(3):
        assert read_value(value_of(raw)) == [line]


@pytest.mark.parametrize(
    ("written", "instead"),
    [(b'4"}', b'4" }'), (b'"v":1', b'"v": 1'), (b'"kind":"dek","state":"active"', b'"state":"active","kind":"dek"')],
)
def test_a_good_line_written_by_another_hand_is_decoded_however_often_it_comes(written: bytes, instead: bytes) -> None:
    raw = encode_line(use()).replace(written, instead)

    for _ in range(3):
        assert read_value(value_of(raw)) == [use()]


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (ID.encode(), ID.upper().encode()),
        (ID.encode(), ID.replace("-", "0").encode()),
        (ID.encode(), b"6a1f9c5-28e0b-4f0e-9a51-3c2d7e4b1a90"),
        (KEY_ID.encode(), KEY_ID.upper().encode()),
        (KEY_ID.encode(), b" " + KEY_ID[1:].encode()),
        (b"07.123456Z", b"07.1_3456Z"),
        (b"07.123456Z", b"07. 23456Z"),
        (b"07.123456Z", b"07.12345Z6"),
        (b"07.123456Z", b"07.12345.Z"),
        (b"07.123456Z", b"60.123456Z"),
        (b"07.123456Z", b"07,123456Z"),
        (b"07.123456Z", b"07.\xff23456Z"),
        (b"2026-11-16", b"2026-02-29"),
        (b"2026-11-16", b"\xc3\xbc26-11-16"),
        (b'"purpose":"crm-sync"', b'"purpose":"crm-sync","purpose":"crm-sync"'),
        (b'"version":3', b'"version":3,"version":3'),
        (b'"revision":7', b'"revision":7.0'),
        (b'"service":"billing"', b'"service":"billinG"'),
        (b'"owner":{"tenant_id":"t-88","integration_id":"crm"},', b""),
        (b'"v":1,', b""),
        (b'"host":"billing-7f9c4"}', b'"host":"billing-7f9c4","trace_id":"a b"}'),
        (b'"host":"billing-7f9c4"}', b'"host":"billing-7f9c4","trace_id":""}'),
        (b'"host":"billing-7f9c4"}', b'"host":"billing-7f9c4","trace_id":"a","trace_id":"b"}'),
        (b'"host":"billing-7f9c4"}', b'"host":"billing-7f9c4"} '),
        (b'"host":"billing-7f9c4"}', b'"host":"billing-7f9c4"}}'),
    ],
)
def test_a_line_that_is_nearly_a_plain_use_is_judged_as_if_nothing_had_been_remembered(
    written: bytes, instead: bytes
) -> None:
    good = encode_line(use())
    plain(good)
    bad = good.replace(written, instead)
    assert bad != good

    value = value_of(good, bad, good)

    assert read(value) == read_slowly(value)


def test_the_refusal_names_the_first_bad_line_whatever_kind_it_is_of() -> None:
    good = encode_line(use())
    plain(good)
    value = value_of(good, good.replace(b"07.123", b"07.x23"), b"{}")

    with pytest.raises(EventInvalid, match=re.escape("line 2: occurred_at: ")):
        read_value(value)


visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=4)
name = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,3}", fullmatch=True)
uses = st.builds(
    use,
    id=st.uuids().map(str),
    operation=st.sampled_from([Operation.ENCRYPT, Operation.DECRYPT]),
    occurred_at=st.integers(0, 4_102_444_800_000_000).map(rfc3339),
    key=st.builds(
        KeyRef,
        id=st.binary(min_size=16, max_size=16).map(bytes.hex),
        version=st.none() | st.integers(1, 3),
        revision=st.none() | st.integers(1, 2**53 - 1),
        kind=st.sampled_from([None, "dek"]),
        state=st.none() | st.sampled_from(KeyState),
    ),
    owner=st.builds(OwnerRef, tenant_id=visible, integration_id=visible) | st.builds(OwnerRef, secret_name=visible),
    actor=visible.map("user:{}".format),
    purpose=name,
    host=st.none() | name,
    address=st.none() | st.sampled_from(["10.2.3.4", "fe80::1"]),
    trace_id=st.none() | st.from_regex(r"[0-9A-Za-z._-]{1,64}", fullmatch=True),
)


@given(st.lists(uses | st.sampled_from(OTHERS), min_size=1, max_size=6))
def test_any_lines_read_twice_are_the_lines_that_were_written(lines: list[Line]) -> None:
    value = value_of(*map(encode_line, lines))
    read(value)

    cut = read_value(value)

    assert read(value) == read_slowly(value) == lines
    assert [isinstance(each, PlainUse) for each in cut] == [line not in OTHERS for line in lines]


MARKS = [
    b'"',
    b"\\",
    b",",
    b"}",
    b"{",
    b" ",
    b"\n",
    b"0",
    b"f",
    b"F",
    b"-",
    b"_",
    b"\xc3\xbc",
    b'","actor":"',
    b"null",
    b"",
]


@given(st.lists(uses, min_size=1, max_size=3), st.data())
def test_bytes_put_or_taken_anywhere_change_no_judgement(lines: list[AuditEvent], data: st.DataObject) -> None:
    value = value_of(*map(encode_line, lines))
    read(value)
    for _ in range(20):
        start = data.draw(st.integers(0, len(value)))
        end = min(len(value), start + data.draw(st.integers(0, 2)))
        changed = value[:start] + data.draw(st.sampled_from(MARKS)) + value[end:]

        assert read(changed) == read_slowly(changed)


@given(uses, uses, st.data())
def test_parts_of_two_uses_put_together_are_judged_the_same(
    one: AuditEvent, other: AuditEvent, data: st.DataObject
) -> None:
    pair = [encode_line(one), encode_line(other)]
    read(value_of(*pair))
    marks = [b'"occurred_at"', b'"service"', b'"owner"', b',"actor"', b',"purpose"', b',"trace_id"', b"}"]
    cut, onto = data.draw(st.sampled_from(marks)), data.draw(st.sampled_from(marks))
    mixed = value_of(pair[0].partition(cut)[0] + b"".join(pair[1].partition(onto)[1:]))

    assert read(mixed) == read_slowly(mixed)
