"""What only Elasticsearch has: strict templates, index names, and answers that ask to come again."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from elasticsearch import AsyncElasticsearch

from streams.index import elastic
from streams.index.documents import DAY_MS, OUT_OF_RANGE
from streams.index.elastic import ElasticIndex
from streams.index.port import DocKind, Document, IndexUnavailable
from tests.servers.machine import free_port
from tests.streams.index.test_documents import all_kinds
from tests.streams.index.test_index_contract import event

BULK = 2_000


@pytest.fixture
async def client(elasticsearch_url: str) -> AsyncIterator[AsyncElasticsearch]:
    async with AsyncElasticsearch(elasticsearch_url, max_retries=0) as made:
        yield made


async def test_indices_are_named_by_kind_and_by_the_day_of_the_event(client: AsyncElasticsearch) -> None:
    prefix = f"test-{uuid4().hex}"
    index = ElasticIndex(client, prefix=prefix, replicas=0)
    await index.ensure()
    day_ms = 1_763_251_200_000  # 2025-11-16

    await index.write([*all_kinds(), event("a", day_ms), event("b", day_ms + DAY_MS), event("c", day_ms=OUT_OF_RANGE)])

    names = sorted(name.removeprefix(prefix) for name in await client.indices.get(index=f"{prefix}-*"))
    assert names == [
        "-alerts",
        "-control-2026.11.16",
        "-events-2025.11.16",
        "-events-2025.11.17",
        "-events-2026.11.16",
        "-events-outofrange",
        "-kek-use",
        "-rejected",
        "-vault-access-2026.11.16",
    ]


async def test_a_field_without_a_mapping_is_refused_by_its_name_and_without_its_value(
    client: AsyncElasticsearch,
) -> None:
    index = ElasticIndex(client, prefix=f"test-{uuid4().hex}", replicas=0)
    await index.ensure()

    refused = await index.write(
        [
            event("a", colour="s3cret"),
            event("b", suspect="s3cret"),
            event("c", line={"anything": ["s3cret", {"a": None}]}),
        ]
    )

    assert [(item.document.id, item.reason) for item in refused] == [
        ("a", "strict_dynamic_mapping_exception at colour"),
        ("b", "document_parsing_exception at keytrail.suspect"),
    ]


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    index = ElasticIndex.connect([f"http://127.0.0.1:{free_port()}"], timeout_s=2)

    with pytest.raises(IndexUnavailable, match="ConnectionError"):
        await index.ensure()
    with pytest.raises(IndexUnavailable, match="ConnectionError"):
        await index.write([event("a")])
    with pytest.raises(IndexUnavailable, match="ConnectionError"):
        await index.find(DocKind.EVENT)
    await index.close()


async def test_an_index_that_is_closed_for_writing_is_unavailable_and_nothing_is_refused(
    client: AsyncElasticsearch,
) -> None:
    prefix = f"test-{uuid4().hex}"
    index = ElasticIndex(client, prefix=prefix, replicas=0)
    await index.ensure()
    await index.write([event("a")])
    await client.indices.put_settings(index=f"{prefix}-events-*", settings={"index.blocks.write": True})

    with pytest.raises(IndexUnavailable, match="cluster_block_exception"):
        await index.write([event("b"), event("c", colour="red")])


async def test_a_day_whose_shard_is_away_keeps_no_other_day_from_being_written(
    client: AsyncElasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic, "SHARD_TIMEOUT", "200ms")
    prefix, day_ms = f"test-{uuid4().hex}", 1_763_251_200_000  # 2025-11-16
    index = ElasticIndex(client, prefix=prefix, replicas=0)
    await index.ensure()
    nowhere = {"index.routing.allocation.require._name": "nobody"}
    await client.indices.create(index=f"{prefix}-events-2025.11.16", settings=nowhere, wait_for_active_shards="0")

    with pytest.raises(IndexUnavailable, match="503 unavailable_shards_exception"):
        await index.write([event("a", day_ms), event("b", day_ms + DAY_MS)])

    await client.indices.refresh(index=f"{prefix}-events-2025.11.17")
    assert (await client.count(index=f"{prefix}-events-2025.11.17"))["count"] == 1
    await client.indices.delete(index=f"{prefix}-events-2025.11.16")


async def test_large_bulks_go_out_without_a_warning(elasticsearch_url: str) -> None:
    index = ElasticIndex.connect([elasticsearch_url], prefix=f"test-{uuid4().hex}", replicas=0)
    await index.ensure()

    assert await index.write([event(f"{place}", purpose="x" * 2_000) for place in range(BULK)]) == []
    assert await index.count_by(DocKind.EVENT, ["service.name"]) == {("billing",): BULK}
    await index.close()


async def test_a_body_that_the_server_does_not_take_is_halved_until_it_does() -> None:
    """The real server's limit is 100 MB; a socket that counts says 413 above a small one."""
    sizes: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            sizes.append(length)
            lines = body.split(b"\n")[:-1]
            answer = json.dumps({"errors": False, "items": [{"create": {"status": 201}}] * (len(lines) // 2)}).encode()
            status = b"413 Too Large" if length > limit else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nX-Elastic-Product: Elasticsearch\r\n")
            writer.write(b"Content-Type: application/vnd.elasticsearch+json;compatible-with=9\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()

    def pad(ident: str, size: int) -> Document:
        return event(ident, purpose="x" * size)

    limit = 2_000
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    index = ElasticIndex.connect([f"http://127.0.0.1:{port}"])

    refused = await index.write([pad("a", 10), pad("b", 10), pad("c", 3_000), pad("d", 10)])

    await index.close()
    server.close()
    assert [item.document.id for item in refused] == ["c"]
    assert sizes[0] > limit
