"""The index in Elasticsearch 9: ready bytes in, one bulk a call, and no retries of its own.

The only file that imports the client. Templates make the indices (`mappings`); days that are not believed and kinds of
one index have fixed names. Reading refreshes first, so that what was written is found; that needs the privilege
`maintenance` on the indices.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from elastic_transport import TransportError
from elasticsearch import ApiError, AsyncElasticsearch, NotFoundError, UnsupportedProductError

from streams.index.connection import Answers, Node
from streams.index.documents import OUT_OF_RANGE
from streams.index.mappings import LAYOUTS, mapping
from streams.index.port import DocKind, Document, IndexUnavailable, Refused

REQUEST_TIMEOUT_S: Final = 30.0
SHARD_TIMEOUT: Final = "10s"
"""How long the server waits for a shard that is away: less than we wait for the server, so that the documents of other
shards are written, and the answer says what was the matter."""
PAGE: Final = 2_000
"""Documents a page of `find`: a few MiB."""
BUCKETS: Final = 5_000
KEEP_ALIVE: Final = "2m"
TEMPLATE_PRIORITY: Final = 200

_CREATE: Final = b'{"create":{"_index":"%b","_id":'
_REPLACE: Final = b'{"index":{"_index":"%b","version":%d,"version_type":"external","_id":'
_BULK_ANSWER: Final = ["errors", "items.*.status", "items.*.error.type", "items.*.error.reason"]
_BAD_DOCUMENT, _CONFLICT, _TOO_LARGE = 400, 409, 413
# These come with status 400, and it is the cluster that must change before the document can be taken.
_CLUSTER_FAULTS: Final = frozenset({"cluster_block_exception", "index_closed_exception", "validation_exception"})
# The server's reasons quote values; a field's name is all that is taken from them.
_FIELD: Final = re.compile(r"(?:introduction of|failed to parse field|of field) \[([A-Za-z0-9_.@-]{1,128})\]")

_encode = msgspec.json.Encoder().encode


OtherProduct = UnsupportedProductError
"""What answers is not Elasticsearch."""


class Server(msgspec.Struct, frozen=True):
    """What answers at the index's address.

    Attributes:
        version: of Elasticsearch; the oldest of its nodes.
        status: green, yellow or red.
        nodes: how many.
        clock_ms: the latest time that one of them has.
    """

    version: str
    status: str
    nodes: int
    clock_ms: int


class ElasticIndex:
    """EventIndex over an Elasticsearch client; `prefix` starts the name of every index and template."""

    def __init__(self, client: AsyncElasticsearch, *, prefix: str = "keytrail", replicas: int = 1) -> None:
        self._client = client
        self._prefix = prefix
        self._replicas = replicas

    @classmethod
    def connect(
        cls,
        urls: Sequence[str],
        *,
        prefix: str = "keytrail",
        replicas: int = 1,
        api_key: str | None = None,
        basic_auth: tuple[str, str] | None = None,
        ca_certs: Path | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> "ElasticIndex":
        """Make a client whose every call is one attempt; whoever calls decides about the next."""
        options: dict[str, Any] = {} if ca_certs is None else {"ca_certs": str(ca_certs)}
        client = AsyncElasticsearch(
            list(urls),
            api_key=api_key,
            basic_auth=basic_auth,
            request_timeout=timeout_s,
            max_retries=0,
            retry_on_timeout=False,
            retry_on_status=(),
            node_class=Node,
            serializers={Answers.mimetype: Answers()},
            **options,
        )
        return cls(client, prefix=prefix, replicas=replicas)

    async def ensure(self) -> None:
        """Look whether this is Elasticsearch, before anything is written, and put the templates.

        Raises:
            UnsupportedProductError: it is something else.
            IndexUnavailable: it does not answer, or says no.
        """
        async with _translated():
            await self._client.cluster.health()
            for kind, layout in LAYOUTS.items():
                await self._client.indices.put_index_template(
                    name=f"{self._prefix}-{layout.name}",
                    index_patterns=[self._pattern(kind)],
                    priority=TEMPLATE_PRIORITY,
                    template={
                        "settings": {
                            "number_of_shards": 1,
                            "number_of_replicas": self._replicas,
                            "refresh_interval": "5s",
                        },
                        "mappings": mapping(kind),
                    },
                )

    async def server(self) -> Server:
        """Say what answers, how its cluster is and what time it has.

        Raises:
            UnsupportedProductError: it is something else.
            IndexUnavailable: it does not answer, or says no.
        """
        async with _translated():
            health = await self._client.cluster.health()
            nodes = await self._client.nodes.info(filter_path=["nodes.*.version"])
            times = await self._client.nodes.stats(metric="jvm", filter_path=["nodes.*.timestamp"])
        return Server(
            min(node["version"] for node in nodes["nodes"].values()),
            health["status"],
            health["number_of_nodes"],
            max(node["timestamp"] for node in times["nodes"].values()),
        )

    async def stale_templates(self) -> list[str]:
        """Name the templates that are missing or not those of this version; a worker puts them when it starts.

        Raises:
            IndexUnavailable: it does not answer, or says no.
        """
        async with _translated():
            try:
                answer = await self._client.indices.get_index_template(name=f"{self._prefix}-*")
                found = answer["index_templates"]
            except NotFoundError:
                found = []
        held = {item["name"]: item["index_template"]["template"].get("mappings") for item in found}
        wanted = {f"{self._prefix}-{layout.name}": mapping(kind) for kind, layout in LAYOUTS.items()}
        return [name for name, mappings in wanted.items() if held.get(name) != mappings]

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        if not documents:
            return []
        body = self._bulk(documents)
        try:
            async with _translated():
                answer = await self._client.bulk(
                    operations=cast("Any", body), filter_path=_BULK_ANSWER, timeout=SHARD_TIMEOUT
                )
        except _TooLarge:
            if len(documents) == 1:
                return [Refused(documents[0], "larger than the server takes")]
            half = len(documents) // 2
            return await self.write(documents[:half]) + await self.write(documents[half:])
        if not answer["errors"]:
            return []
        return _judged(documents, answer["items"])

    async def find(
        self,
        kind: DocKind,
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        search: dict[str, Any] = {
            "query": _query(where, since_ms, until_ms),
            "sort": [
                {"@timestamp": {"order": "asc", "format": "strict_date_optional_time_nanos"}},
                {LAYOUTS[kind].ident: "asc"},
                {"_shard_doc": "asc"},
            ],
            "track_total_hits": False,
        }
        async with _translated(), self._point_in_time(kind) as pit:
            while limit is None or len(found) < limit:
                size = PAGE if limit is None else min(PAGE, limit - len(found))
                page = await self._client.search(pit=pit, size=size, allow_partial_search_results=False, **search)
                hits = page["hits"]["hits"]
                found += [hit["_source"] for hit in hits]
                if len(hits) < size:
                    break
                search["search_after"] = hits[-1]["sort"]
                pit["id"] = page["pit_id"]
        return found

    async def count_by(
        self,
        kind: DocKind,
        fields: Sequence[str],
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> dict[tuple[str, ...], int]:
        counts: dict[tuple[str, ...], int] = {}
        sources = [
            {str(place): {"terms": {"field": field, "missing_bucket": True}}} for place, field in enumerate(fields)
        ]
        composite: dict[str, Any] = {"size": BUCKETS, "sources": sources}
        query = _query(where, since_ms, until_ms)
        async with _translated(), self._point_in_time(kind) as pit:
            while True:
                page = await self._client.search(
                    pit=pit,
                    size=0,
                    query=query,
                    aggregations={"values": {"composite": composite}},
                    track_total_hits=False,
                    allow_partial_search_results=False,
                )
                pit["id"] = page["pit_id"]
                values = page.get("aggregations", {}).get("values", {})
                for bucket in values.get("buckets", ()):
                    counts[tuple(_text(bucket["key"][str(place)]) for place in range(len(fields)))] = bucket[
                        "doc_count"
                    ]
                if "after_key" not in values:
                    return counts
                composite["after"] = values["after_key"]

    async def close(self) -> None:
        await self._client.close()

    def _pattern(self, kind: DocKind) -> str:
        layout = LAYOUTS[kind]
        return f"{self._prefix}-{layout.name}" + ("-*" if layout.daily else "")

    def _bulk(self, documents: Sequence[Document]) -> bytes:
        """Write the body of a bulk; neighbours mostly go to the same index."""
        parts: list[bytes] = []
        kind, day_ms, index, create = None, None, b"", b""
        for document in documents:
            if document.kind is not kind or document.day_ms != day_ms:
                kind, day_ms = document.kind, document.day_ms
                index = self._index_of(kind, day_ms)
                create = _CREATE % index
            how = _REPLACE % (index, document.version) if document.version else create
            parts += (how, _encode(document.id), b"}}\n", document.body, b"\n")
        return b"".join(parts)

    def _index_of(self, kind: DocKind, day_ms: int | None) -> bytes:
        name = f"{self._prefix}-{LAYOUTS[kind].name}"
        if LAYOUTS[kind].daily and day_ms is not None:
            day = "outofrange" if day_ms == OUT_OF_RANGE else f"{datetime.fromtimestamp(day_ms / 1000, UTC):%Y.%m.%d}"
            name = f"{name}-{day}"
        return name.encode()

    @asynccontextmanager
    async def _point_in_time(self, kind: DocKind) -> AsyncIterator[dict[str, Any]]:
        index = self._pattern(kind)
        await self._client.indices.refresh(index=index, ignore_unavailable=True)
        opened = await self._client.open_point_in_time(index=index, keep_alive=KEEP_ALIVE, ignore_unavailable=True)
        pit: dict[str, Any] = {"id": opened["id"], "keep_alive": KEEP_ALIVE}
        try:
            yield pit
        finally:
            await self._client.close_point_in_time(id=pit["id"])


class _TooLarge(Exception):
    """The body is larger than the server takes."""


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Say in the port's words what the client raises; the client's texts may quote documents and are left behind."""
    try:
        yield
    except UnsupportedProductError:
        raise
    except ApiError as err:
        if err.meta.status == _TOO_LARGE:
            raise _TooLarge from None
        raise IndexUnavailable(f"Elasticsearch answered {err.meta.status} {_error_type(err.body)}".rstrip()) from None
    except TransportError as err:
        raise IndexUnavailable(f"Elasticsearch did not answer: {type(err).__name__}") from err


def _error_type(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def _judged(documents: Sequence[Document], items: Sequence[Mapping[str, Any]]) -> list[Refused]:
    """Look at each item of a bulk.

    Raises:
        IndexUnavailable: at least one is to be tried again; writing all again changes nothing for the others.
    """
    refused: list[Refused] = []
    for document, item in zip(documents, items, strict=True):
        result = next(iter(item.values()))
        error = result.get("error")
        if error is None or result["status"] == _CONFLICT:
            continue
        if result["status"] != _BAD_DOCUMENT or error.get("type") in _CLUSTER_FAULTS:
            raise IndexUnavailable(f"Elasticsearch answered {result['status']} {error.get('type')} for a document")
        refused.append(Refused(document, _reason(error)))
    return refused


def _reason(error: Mapping[str, Any]) -> str:
    field = _FIELD.search(str(error.get("reason", "")))
    return f"{error.get('type', 'error')}" + (f" at {field[1]}" if field else "")


def _query(
    where: Mapping[str, str | int | bool] | None,
    since_ms: int | None,
    until_ms: int | None,
) -> dict[str, Any]:
    terms: list[dict[str, Any]] = [{"term": {field: wanted}} for field, wanted in (where or {}).items()]
    limits = {sign: limit for sign, limit in (("gte", since_ms), ("lt", until_ms)) if limit is not None}
    if limits:
        terms.append({"range": {"@timestamp": {**limits, "format": "epoch_millis"}}})
    return {"bool": {"filter": terms}}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
