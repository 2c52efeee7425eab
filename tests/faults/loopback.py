"""Between the workers and the world outside: a proxy of Elasticsearch that can be told to fail, and a webhook."""

import asyncio
import json
import random
import time
from io import BytesIO
from typing import Any, Literal, NamedTuple

import aiohttp
from aiohttp import web

HERE = "127.0.0.1"
Mode = Literal["pass", "429", "503", "partial", "unheard"]
SHARE = 0.3
"""Of the documents of a bulk that are refused for now, in mode `partial`."""
MAX_BODY = 64 * 1024 * 1024
_OWN = {"transfer-encoding", "content-length", "content-encoding", "connection", "date"}
_ERROR: dict[str, Any] = {"type": "es_rejected_execution_exception", "reason": "told to"}


class Site:
    """An application on one port of loopback, which can be gone for a while."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{HERE}:{self.port}"

    def app(self) -> web.Application:
        raise NotImplementedError

    async def start(self) -> None:
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HERE, self.port).start()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


class ElasticProxy(Site):
    """Passes requests on, or does what it is told; counts what it broke."""

    def __init__(self, port: int, target: str, draw: random.Random) -> None:
        super().__init__(port)
        self.mode: Mode = "pass"
        self.broken = 0
        self._target = target
        self._draw = draw
        self._client: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def start(self) -> None:
        await super().start()
        if self._client is None:
            self._client = aiohttp.ClientSession(auto_decompress=True)

    async def close(self) -> None:
        await self.stop()
        if self._client is not None:
            await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.mode in {"429", "503"}:
            self.broken += 1
            return web.json_response(
                {"error": _ERROR, "status": int(self.mode)},
                status=int(self.mode),
                headers={"X-Elastic-Product": "Elasticsearch"},
            )
        if self.mode == "partial" and request.path == "/_bulk":
            return await self._partial(request, body)
        status, headers, answer = await self._pass(request, body)
        if self.mode == "unheard" and request.path == "/_bulk":  # it was done, and nobody hears of it
            self.broken += 1
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status, headers=headers, body=answer)

    async def _pass(self, request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert self._client is not None
        kept = {name: value for name, value in request.headers.items() if name.lower() not in _OWN | {"host"}}
        try:
            async with self._client.request(
                request.method, self._target + request.path_qs, data=BytesIO(body), headers=kept
            ) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN}
                return answer.status, headers, await answer.read()
        except aiohttp.ClientError:
            return 502, {"X-Elastic-Product": "Elasticsearch"}, b"{}"

    async def _partial(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Let some documents through and refuse the others, each in its place in the answer."""
        lines = body.split(b"\n")
        pairs = [(lines[place], lines[place + 1]) for place in range(0, len(lines) - 1, 2)]
        let = [self._draw.random() >= SHARE for _ in pairs]
        through = b"".join(
            action + b"\n" + document + b"\n" for (action, document), ok in zip(pairs, let, strict=True) if ok
        )
        if not through or all(let):
            status, headers, raw = await self._pass(request, body)
            return web.Response(status=status, headers=headers, body=raw)
        status, headers, raw = await self._pass(request, through)
        if status != 200:
            return web.Response(status=status, headers=headers, body=raw)
        self.broken += 1
        taken = iter(json.loads(raw).get("items") or [{"create": {"status": 201}}] * sum(let))
        items = [
            next(taken) if ok else {next(iter(json.loads(action))): {"status": 429, "error": _ERROR}}
            for (action, _), ok in zip(pairs, let, strict=True)
        ]
        return web.Response(status=200, headers=headers, body=json.dumps({"errors": True, "items": items}).encode())


class Told(NamedTuple):
    """A notification, as the webhook got it, and when."""

    at_s: float
    ident: str
    rule: str
    key: str
    indexed: bool
    alert: dict[str, Any]


class Webhook(Site):
    """Takes notifications, each id once."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.told: dict[str, Told] = {}
        self.again = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        said = await request.json()
        alert, ident = said["alert"], request.headers["Idempotency-Key"]
        if ident in self.told:
            self.again += 1
        else:
            self.told[ident] = Told(
                time.time(),
                ident,
                alert["rule_id"],
                alert.get("key") or "",
                alert.get("evidence_indexed", True),
                alert,
            )
        return web.Response()

    async def first(self, rule: str, key: str = "", *, since_s: float = 0.0, within_s: float = 60.0) -> Told:
        """Wait for a notification of a rule."""
        async with asyncio.timeout(within_s):
            while True:
                for told in self.told.values():
                    if told.rule == rule and told.key == key and told.at_s >= since_s:
                        return told
                await asyncio.sleep(0.05)
