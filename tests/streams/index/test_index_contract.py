"""What both indices promise: one set of tests over SQLite and over a real Elasticsearch."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptocore.clock import rfc3339, rfc3339_ms
from streams.index.documents import DAY_MS, OUT_OF_RANGE, kek_use_document
from streams.index.elastic import ElasticIndex
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind, Document, EventIndex
from tests.streams.index.test_documents import ALERT, all_kinds, kek_use

T0_MS = 1_794_787_200_000 // DAY_MS * DAY_MS


@pytest.fixture(params=["embedded", pytest.param("elastic", marks=pytest.mark.servers)])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventIndex]:
    made: EventIndex
    if request.param == "elastic":
        url = request.getfixturevalue("elasticsearch_url")
        made = ElasticIndex.connect([url], prefix=f"test-{uuid4().hex}", replicas=0)
    else:
        made = EmbeddedIndex(tmp_path / "index.sqlite")
    await made.ensure()
    yield made
    await made.close()


def event(ident: str, at_ms: int = T0_MS, *, day_ms: int | None = None, **fields: Any) -> Document:
    body = {
        "@timestamp": rfc3339_ms(at_ms),
        "event": {"id": ident, "action": fields.pop("action", "decrypt")},
        "service": {"name": fields.pop("service", "billing")},
        "keytrail": fields,
    }
    return Document(
        DocKind.EVENT, ident, json.dumps(body).encode(), at_ms // DAY_MS * DAY_MS if day_ms is None else day_ms
    )


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [document["event"]["id"] for document in found]


async def test_an_index_that_is_empty_answers_with_nothing(index: EventIndex) -> None:
    for kind in DocKind:
        assert await index.find(kind) == []
        assert await index.count_by(kind, ["service.name"]) == {}
    assert await index.write([]) == []


async def test_ensure_can_be_repeated_and_keeps_what_is_there(index: EventIndex) -> None:
    await index.write([event("a")])
    await index.ensure()

    assert ids(await index.find(DocKind.EVENT)) == ["a"]


async def test_documents_of_every_kind_are_taken_and_come_back_as_they_were(index: EventIndex) -> None:
    documents = all_kinds()

    assert await index.write(documents) == []

    for kind in DocKind:
        found = await index.find(kind)
        wanted = [json.loads(document.body) for document in documents if document.kind is kind]
        assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, wanted))


async def test_documents_come_oldest_first_then_by_id_whatever_day_they_are_of(index: EventIndex) -> None:
    await index.write(
        [event("c", T0_MS + 2 * DAY_MS), event("b"), event("z", T0_MS + 1), event("a"), event("y", T0_MS - 1)]
    )

    assert ids(await index.find(DocKind.EVENT)) == ["y", "a", "b", "z", "c"]


async def test_documents_within_a_millisecond_come_in_the_order_of_their_microseconds(index: EventIndex) -> None:
    first = kek_use(id="b" * 64, time_us=T0_MS * 1000 + 1)
    second = kek_use(id="a" * 64, time_us=T0_MS * 1000 + 2)
    await index.write([kek_use_document(use, 1, b"") for use in (second, first)])

    assert [use["id"][0] for use in await index.find(DocKind.KEK_USE)] == ["b", "a"]


async def test_a_range_of_time_is_half_open(index: EventIndex) -> None:
    await index.write([event(str(ms), T0_MS + ms) for ms in (0, 1, 2, 3)])

    assert ids(await index.find(DocKind.EVENT, since_ms=T0_MS + 1, until_ms=T0_MS + 3)) == ["1", "2"]
    assert await index.count_by(DocKind.EVENT, ["event.id"], since_ms=T0_MS + 3) == {("3",): 1}


async def test_where_takes_texts_numbers_and_truth_values_exactly(index: EventIndex) -> None:
    await index.write(
        [
            event("a", purpose="crm sync", suspect=True, key={"version": 3}),
            event("b", purpose="crm", suspect=False, key={"version": 3}),
            event("c", purpose="sync", key={"version": 33}),
        ]
    )

    assert ids(await index.find(DocKind.EVENT, where={"keytrail.purpose": "crm"})) == ["b"]
    assert ids(await index.find(DocKind.EVENT, where={"keytrail.key.version": 3})) == ["a", "b"]
    assert ids(await index.find(DocKind.EVENT, where={"keytrail.suspect": False})) == ["b"]
    assert ids(await index.find(DocKind.EVENT, where={"keytrail.suspect": True, "keytrail.key.version": 3})) == ["a"]
    assert await index.find(DocKind.EVENT, where={"keytrail.purpose": "x' OR '1'='1"}) == []


async def test_no_more_than_the_limit_is_returned_and_they_are_the_oldest(index: EventIndex) -> None:
    await index.write([event(f"{place:04}", T0_MS + place) for place in range(50)])

    assert ids(await index.find(DocKind.EVENT, limit=3)) == ["0000", "0001", "0002"]
    assert await index.find(DocKind.EVENT, limit=0) == []


async def test_more_than_a_page_is_returned_completely_and_in_order(index: EventIndex) -> None:
    await index.write([event(f"{place:05}", T0_MS + place // 7) for place in range(4_500)])

    assert ids(await index.find(DocKind.EVENT)) == [f"{place:05}" for place in range(4_500)]


async def test_counting_by_fields_counts_a_missing_one_as_empty(index: EventIndex) -> None:
    await index.write(
        [
            event("a", outcome="succeeded", suspect=False, key={"version": 3}),
            event("b", outcome="succeeded", suspect=False, key={"version": 3}),
            event("c", outcome="denied", suspect=True),
            event("d", action="wrap"),
        ]
    )

    fields = ["event.action", "keytrail.outcome", "keytrail.suspect", "keytrail.key.version"]

    assert await index.count_by(DocKind.EVENT, fields) == {
        ("decrypt", "succeeded", "false", "3"): 2,
        ("decrypt", "denied", "true", ""): 1,
        ("wrap", "", "", ""): 1,
    }
    assert await index.count_by(DocKind.EVENT, ["service.name"], where={"event.action": "decrypt"}) == {("billing",): 3}


async def test_the_same_id_again_changes_nothing(index: EventIndex) -> None:
    await index.write([event("a", purpose="first")])

    assert await index.write([event("a", purpose="second"), event("b"), event("b", purpose="third")]) == []
    found = await index.find(DocKind.EVENT)
    assert [document["keytrail"].get("purpose") for document in found] == ["first", None]


async def test_only_a_higher_version_overwrites(index: EventIndex) -> None:
    def alert(version: int, status: str) -> Document:
        body = {**ALERT, "@timestamp": ALERT["first_at"], "status": status, "revision": version}
        return Document(DocKind.ALERT, "a" * 64, json.dumps(body).encode(), None, version, b"\x08a")

    assert await index.write([alert(2, "acknowledged")]) == []
    assert await index.write([alert(1, "open")]) == []
    assert await index.write([alert(2, "changed without a new version")]) == []
    assert [found["status"] for found in await index.find(DocKind.ALERT)] == ["acknowledged"]

    assert await index.write([alert(3, "resolved"), alert(5, "open"), alert(4, "late")]) == []
    assert [found["status"] for found in await index.find(DocKind.ALERT)] == ["open"]


async def test_what_is_no_document_is_refused_with_a_reason_that_quotes_nothing(index: EventIndex) -> None:
    broken = Document(DocKind.EVENT, "broken", b'{"@timestamp":"2026-11-16T02:41:07.123456Z","event":"s3cret"', T0_MS)

    refused = await index.write([event("a"), broken, event("b")])

    assert [item.document for item in refused] == [broken]
    assert "s3cret" not in refused[0].reason
    assert ids(await index.find(DocKind.EVENT)) == ["a", "b"]


async def test_a_document_of_a_day_that_is_not_believed_is_found_with_the_others(index: EventIndex) -> None:
    await index.write([event("a", T0_MS), event("b", T0_MS + 1, day_ms=OUT_OF_RANGE)])

    assert ids(await index.find(DocKind.EVENT)) == ["a", "b"]


async def test_ids_and_values_may_hold_anything(index: EventIndex) -> None:
    odd = 'key-events/1/7 "\\\n\u2028☃'
    await index.write([event(odd, purpose=odd)])

    assert ids(await index.find(DocKind.EVENT, where={"keytrail.purpose": odd})) == [odd]
    assert await index.count_by(DocKind.EVENT, ["keytrail.purpose"]) == {(odd,): 1}


@settings(max_examples=20, deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 3), st.sampled_from(["x", "y"])),
        max_size=25,
    ),
)
def test_any_history_of_writes_ends_as_the_model_says(
    writes: list[tuple[str, int, int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> dict[str, dict[str, Any]]:
        made = EmbeddedIndex(tmp_path_factory.mktemp("index") / "index.sqlite")
        await made.ensure()
        for ident, version, at_s, name in writes:
            use = kek_use(id=ident, time_us=T0_MS * 1000 + at_s * 1_000_000, name=name)
            document = kek_use_document(use, version, b"")
            assert await made.write([document]) == []
        found = await made.find(DocKind.KEK_USE)
        await made.close()
        assert found == sorted(found, key=lambda use: (use["@timestamp"], use["id"]))
        return {use["id"]: use for use in found}

    model: dict[str, tuple[int, str, str]] = {}
    for ident, version, at_s, name in writes:
        if ident not in model or version > model[ident][0]:
            model[ident] = (version, rfc3339(T0_MS * 1000 + at_s * 1_000_000), name)

    found = asyncio.run(run())

    assert {ident: (use["revision"], use["@timestamp"], use["name"]) for ident, use in found.items()} == model
