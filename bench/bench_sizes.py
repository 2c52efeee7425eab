"""What an event takes: on the broker's disk at 500, 50, 5 and 1 events a message, and as a document in Elasticsearch.

The broker keeps messages as producers send them, uncompressed; Elasticsearch's share is what its store tells after a
merge, one primary, no replica.
"""

import asyncio

from elasticsearch import AsyncElasticsearch

from bench.bench_recovery import topic_bytes
from bench.bench_worker import documents_of
from bench.result import Result
from bench.sealed_load import Load
from bench.workers import deployment, send, serving
from streams.index.elastic import ElasticIndex
from streams.messages import KEY_EVENTS
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.kafka import KafkaServer

EVENTS = 100_000
SIZES = (500, 50, 5, 1)
MOST_MESSAGES = 10_000
KEYS = 2_000


def run(*, events: int = EVENTS) -> list[Result]:
    rows = []
    with KafkaServer() as server:
        for size in SIZES:
            batches = min(events // size, MOST_MESSAGES)
            load = Load(batches=batches, keys=KEYS, events_a_batch=size)
            taken = asyncio.run(in_kafka(server, load))
            rows.append(Result(f"kafka_bytes_per_event_{size}", taken / (batches * size), "B", batches * size))
    load = Load(batches=events // SIZES[0], keys=KEYS)
    with serving(ElasticsearchServer) as url:
        count, taken = asyncio.run(in_elasticsearch(url, load))
    rows.append(Result("event_line_bytes", sum(map(len, load.lines)) / load.events, "B", load.events))
    return [*rows, Result("elasticsearch_bytes_per_event", taken / count, "B", count)]


async def in_kafka(server: KafkaServer, load: Load) -> int:
    """Bytes on the disk of the uses alone: the beginnings of keys are sent first and subtracted."""
    messages = [(number, batch.value, batch.headers()) for number, batch in load.batches]
    async with deployment(server.address) as settings:
        topic = settings.topic(KEY_EVENTS)
        await send(server.address, topic, messages[: load.uses_from])
        before = topic_bytes(server.folder, topic)
        await send(server.address, topic, messages[load.uses_from :])
        return topic_bytes(server.folder, topic) - before


async def in_elasticsearch(url: str, load: Load) -> tuple[int, int]:
    index = ElasticIndex.connect([url], prefix="sizes", replicas=0)
    await index.ensure()
    for documents in documents_of(load):
        assert not await index.write(documents)
    await index.close()
    async with AsyncElasticsearch([url], request_timeout=120) as client:
        await client.indices.forcemerge(index="sizes-events-*", max_num_segments=1)
        await client.indices.refresh(index="sizes-events-*")
        told = await client.indices.stats(index="sizes-events-*", metric="store,docs")
    total = told["_all"]["primaries"]
    return total["docs"]["count"], total["store"]["size_in_bytes"]
