"""The canary's process: a service that leaves one refused use a minute, and calls somebody outside when it comes back.

The event goes spool → log → keys agent → rule → triage → delivery, as that of an attack would; the delivery comes here,
signed by the worker. Only a delivery of a canary that is young enough makes a beat at the outside URL, which raises its
own alarm when beats stay away (a dead man's switch). So whatever stands still on the way, the beats stop.
"""

import asyncio
import hmac
from typing import Final

import httpx
import msgspec
import structlog
from aiohttp import web

from alerts.delivery import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature
from cryptocore.clock import Clock
from cryptocore.envelope import Owner
from cryptocore.errors import AuditUnavailable
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.trail import AuditTrail
from streams.alerting import canaries

KEY_ID: Final = "ca" * 16
PURPOSE: Final = "keytrail-canary"
ACTOR: Final = "service:keytrail-canary"
YOUNG: Final = 2.0
"""A canary counts while it is younger than so many intervals: beats stop within three of them."""
BEAT_TIMEOUT_S: Final = 10.0
MAX_BODY: Final = 64 * 1024

_log = structlog.get_logger(__name__)


class Told(msgspec.Struct):
    """What a notification says of the canary."""

    event_id: str
    at_ms: int


class Delivered(msgspec.Struct):
    """What of a notification is read here."""

    kind: str
    alert: Told


class Canary:
    """Leaves canaries and waits for them.

    Args:
        trail: of the source `keytrail-canary`.
        secret: shared with the workers.
        beat_url: called for each canary that comes back in time; None only logs.
        every_s: between two canaries.
    """

    def __init__(
        self,
        trail: AuditTrail,
        *,
        host: str,
        port: int,
        secret: bytes,
        beat_url: str | None,
        every_s: float,
        clock: Clock,
    ) -> None:
        self.address: tuple[str, int] = (host, port)
        self.beats = 0
        self._trail = trail
        self._secret = secret
        self._beat_url = beat_url
        self._every_s = every_s
        self._clock = clock
        self._client = httpx.AsyncClient(timeout=BEAT_TIMEOUT_S, trust_env=False, follow_redirects=False)
        self._last = ""
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([web.post("/", self._arrived)])
        self._runner = web.AppRunner(app, access_log=None)

    async def run(self) -> None:
        """Leave canaries until cancelled.

        Raises:
            OSError: the address cannot be had.
        """
        if self._beat_url is None:
            _log.warning("KEYTRAIL_CANARY_BEAT_URL is not set: nobody is told when canaries stay away")
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.address).start()
        self.address = self._runner.addresses[0][:2]
        try:
            while True:
                await self._leave()
                await asyncio.sleep(self._every_s)
        finally:
            await self._runner.cleanup()
            await self._client.aclose()
            await self._trail.close()

    async def _leave(self) -> None:
        try:
            event_id = await self._trail.record(
                Operation.REENCRYPT,
                owner=Owner.secret(PURPOSE),
                key_id=KEY_ID,
                outcome=Outcome.DENIED,
                reason=Reason.KEY_STATE,
                actor=ACTOR,
                purpose=PURPOSE,
            )
        except AuditUnavailable as problem:
            _log.warning("no canary left", problem=str(problem))
        else:
            _log.info("canary left", event_id=event_id)

    async def _arrived(self, request: web.Request) -> web.Response:
        """Take a delivery: signed lately by a worker, about a canary, young, and not told before."""
        body = await request.read()
        timestamp = request.headers.get(TIMESTAMP_HEADER, "")
        signed = signature(self._secret, timestamp, body)
        if not hmac.compare_digest(signed, request.headers.get(SIGNATURE_HEADER, "")):
            return web.Response(status=403)
        try:
            told = msgspec.json.decode(body, type=Delivered)
            event_id, at_ms, signed_ms = told.alert.event_id, told.alert.at_ms, int(timestamp) * 1000
        except (msgspec.MsgspecError, ValueError):
            return web.Response(status=400)
        now_ms = self._clock.now_us() // 1000
        old_ms = YOUNG * self._every_s * 1000
        young = all(abs(now_ms - time_ms) <= old_ms for time_ms in (at_ms, signed_ms))
        if told.kind != canaries.KIND or event_id == self._last or not young:
            return web.Response(status=204)  # taken, so that it is not sent again, and no sign of life
        self._last = event_id
        _log.info("canary came back", event_id=event_id, after_ms=now_ms - at_ms)
        await self._beat()
        return web.Response(status=204)

    async def _beat(self) -> None:
        if self._beat_url is not None:
            try:
                answer = await self._client.get(self._beat_url)
            except httpx.HTTPError as problem:
                _log.warning("no beat", problem=type(problem).__name__)
                return
            if not answer.is_success:
                _log.warning("no beat", status=answer.status_code)
                return
        self.beats += 1
