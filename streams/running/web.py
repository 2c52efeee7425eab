"""The worker's own small web: `/healthz`, `/readyz` and `/metrics`, on loopback unless told otherwise.

Faust's web, with its pages of tables and routes, stays off. Nothing here can be changed by a request.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from aiohttp import web
from prometheus_client.registry import Collector

from streams.running.metrics import CONTENT_TYPE, exposition

UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker is.

    Attributes:
        alive: its clock ticks and its application has not crashed; when not, start the process again.
        ready: it has taken over an assignment and is not stopping.
        problem: why it is not alive or not ready, in a few words.
        partitions: how many it owns.
        index: "ok", or "unavailable". A worker without its index is ready: detection does not wait for it.
    """

    alive: bool
    ready: bool
    problem: str
    partitions: int
    index: str


class Web:
    """Serves a worker's health and figures.

    Args:
        host, port: where; 0 picks a free port, see `address`.
        health: asked at each request.
        figures: collected at each request of `/metrics`.
    """

    def __init__(self, host: str, port: int, *, health: Callable[[], Health], figures: Collector) -> None:
        self.address: tuple[str, int] = (host, port)
        self._health = health
        self._figures = figures
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.address).start()
        self.address = self._runner.addresses[0][:2]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        health = self._health()
        return _answer(health, well=health.alive)

    async def _readyz(self, _: web.Request) -> web.Response:
        health = self._health()
        return _answer(health, well=health.alive and health.ready)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=exposition(self._figures), headers={"Content-Type": CONTENT_TYPE})


def _answer(health: Health, *, well: bool) -> web.Response:
    return web.json_response(asdict(health), status=200 if well else UNAVAILABLE)
