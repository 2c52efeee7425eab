"""A Log Analytics workspace on loopback: the API's wire form over TLS, and as much KQL as our own queries use.

It keeps rows with the ingestion time that a test gives them, cuts answers with a PartialError above a size, throttles,
fails, and knows only the tables that have got a row. Answers follow the API's documented response and error formats.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Self

from aiohttp import web
from azure.core.credentials import AccessToken
from azure.monitor.query.aio import LogsQueryClient

from cryptocore.clock import parse_rfc3339, rfc3339
from streams.demo.loopback import LOOPBACK, certificates, transport

HOST = "api.loganalytics.io"
WORKSPACE = "7fe1b682-0000-4000-8000-000000000001"
_WINDOW = re.compile(r"ingestion_time\(\) >= datetime\(([^)]+)\) and ingestion_time\(\) < datetime\(([^)]+)\)")
_AFTER = re.compile(r'keytrail_at > "([^"]+)" or \(keytrail_at == "[^"]+" and keytrail_row > "([^"]+)"\)')
_TAKE = re.compile(r"\| take (\d+)")
_TYPES = {str: "string", int: "int", float: "real", bool: "bool", dict: "dynamic", type(None): "string"}


@dataclass
class Row:
    ingested_us: int
    visible_us: int
    columns: dict[str, Any]

    @property
    def at(self) -> str:
        return f"{rfc3339(self.ingested_us)[:-1]}0Z"

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.columns, sort_keys=True).encode()).hexdigest()


@dataclass
class Workspace:
    """`faults`: answers to give before the real ones, the next first; `most_rows`: above it an answer is partial."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    faults: list[web.Response | str] = field(default_factory=list)
    most_rows: int = 500_000
    now_us: int = 0
    queries: list[str] = field(default_factory=list)
    timespans: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)

    def add(self, table: str, columns: dict[str, Any], *, ingested_us: int, visible_us: int | None = None) -> None:
        visible_us = ingested_us if visible_us is None else visible_us
        self.tables.setdefault(table, []).append(Row(ingested_us, visible_us, columns))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer token-of-this-test"
        assert request.match_info["workspace"] == WORKSPACE
        body = await request.json()
        query = body["query"]
        self.queries.append(query)
        self.timespans.append(body["timespan"])
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, web.Response):
            return fault
        table = query.partition("\n")[0]
        if table not in self.tables:
            return _missing(table)
        rows = self._rows(table, query)
        if len(rows) > self.most_rows or fault == "partial":
            return web.json_response(self._tables(rows[: len(rows) // 2]) | _partial())
        return web.json_response(self._tables(rows))

    def _rows(self, table: str, query: str) -> list[Row]:
        window, after, take = _WINDOW.search(query), _AFTER.search(query), _TAKE.search(query)
        assert window is not None
        assert take is not None
        start_us, end_us = (parse_rfc3339(text) for text in window.groups())
        found = [
            row for row in self.tables[table] if start_us <= row.ingested_us < end_us and row.visible_us <= self.now_us
        ]
        if after is not None:
            found = [row for row in found if (row.at, row.hash) > after.groups()]
        return sorted(found, key=lambda row: (row.at, row.hash))[: int(take[1])]

    def _tables(self, rows: list[Row]) -> dict[str, Any]:
        names: dict[str, str] = {}
        for row in rows:
            for name, value in row.columns.items():
                names.setdefault(name, self.types.get(name, _TYPES[type(value)]))
        columns = [{"name": name, "type": kind} for name, kind in names.items()]
        columns += [{"name": "keytrail_at", "type": "string"}, {"name": "keytrail_row", "type": "string"}]
        values = [[*(_cell(row.columns.get(name)) for name in names), row.at, row.hash] for row in rows]
        return {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": values}]}


def _cell(value: Any) -> Any:
    """Dynamic values cross as their JSON text."""
    return json.dumps(value) if isinstance(value, dict) else value


def _partial() -> dict[str, Any]:
    inner = {"code": "-2133196797", "message": "The results of this query exceed the set limit of 64000000 bytes."}
    return {
        "error": {
            "code": "PartialError",
            "message": "There were some errors when processing your query.",
            "details": [{"code": "EngineError", "message": "Something went wrong.", "innererror": inner}],
        }
    }


def _missing(table: str) -> web.Response:
    text = f"'where' operator: Failed to resolve table or column expression named '{table}'"
    semantic = {"code": "SemanticError", "message": "A semantic error occurred."}
    inner = semantic | {"innererror": {"code": "SEM0100", "message": text}}
    return refused(400, "BadArgumentError", innererror=inner)


def refused(status: int, code: str, *, headers: dict[str, str] | None = None, **more: Any) -> web.Response:
    error = {"error": {"message": "The request had some invalid properties", "code": code} | more}
    return web.json_response(error, status=status, headers=headers)


def throttled(retry_after: str) -> web.Response:
    return refused(429, "ThrottledError", headers={"Retry-After": retry_after})


def http_date(us: int) -> str:
    return formatdate(us / 1_000_000, usegmt=True)


class TestCredential:
    """Hands out the one token that the workspace of this test takes."""

    __test__ = False

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes == (f"https://{HOST}/.default",)
        return AccessToken("token-of-this-test", 4_102_444_800)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open."""


@asynccontextmanager
async def serving(workspace: Workspace) -> AsyncIterator[LogsQueryClient]:
    """Serve the workspace, and give the real client, which finds it under the API's own name."""
    made = certificates([HOST])
    app = web.Application()
    app.router.add_post("/v1/workspaces/{workspace}/query", workspace.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=made.server)
    await site.start()
    port = runner.addresses[0][1]
    client = LogsQueryClient(TestCredential(), retry_total=0, transport=transport(made.client, port))
    try:
        async with client:
            yield client
    finally:
        await runner.cleanup()
