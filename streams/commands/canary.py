"""`keytrail canary`: the monitor's sign of life."""

import asyncio
import signal
from typing import TYPE_CHECKING

import typer

from streams.commands.terminal import fail, needs, plainly, settings

if TYPE_CHECKING:
    from cryptocore.trail import AuditTrail
    from streams.settings import Settings


def canary() -> None:
    """Leave a canary event every minute; call KEYTRAIL_CANARY_BEAT_URL for each that comes back as a delivery.

    Needs KEYTRAIL_CANARY_* and, as the source keytrail-canary, KEYTRAIL_CORE_* (docs/operations.md).
    """
    needs("aiohttp", "aiokafka", "httpx", extra="monitor")
    from alerts.rules.canary import SOURCE
    from cryptocore.errors import CoreError
    from cryptocore.settings import EmitterSettings
    from cryptocore.trail import AuditTrail

    chosen = settings()
    if chosen.canary_secret is None:
        raise fail("KEYTRAIL_CANARY_SECRET is not set: workers sign what they deliver")
    try:
        own = EmitterSettings.load()
        if own.service != SOURCE:
            raise fail(f"KEYTRAIL_CORE_SERVICE is {own.service}: the canary speaks as {SOURCE}")
        trail = AuditTrail.from_env()
    except CoreError as problem:
        raise fail(str(problem)) from None
    with plainly(kafka=own.kafka_bootstrap):
        asyncio.run(_sing(chosen, trail))
    raise typer.Exit


async def _sing(chosen: "Settings", trail: "AuditTrail") -> None:
    from cryptocore.clock import SystemClock
    from streams.alerting.canary import Canary
    from streams.stderr import log_to_stderr

    log_to_stderr(chosen.log_level)
    assert chosen.canary_secret is not None
    bird = Canary(
        trail,
        host=chosen.canary_host,
        port=chosen.canary_port,
        secret=chosen.canary_secret.get_secret_value().encode(),
        beat_url=None if chosen.canary_beat_url is None else str(chosen.canary_beat_url),
        every_s=chosen.canary_every_s,
        clock=SystemClock(),
    )
    singing = asyncio.create_task(bird.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, singing.cancel)
    try:
        await singing
    except asyncio.CancelledError:
        return
