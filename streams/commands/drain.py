"""`keytrail drain`: the side-car that sends what killed processes of a service left in their spools."""

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.terminal import console, fail, needs, plainly

if TYPE_CHECKING:
    from cryptocore.spool.drain import Drained


def drain(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until SIGTERM or Ctrl-C.")] = False,  # noqa: FBT002 - a switch
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --watch.")] = 5.0,
) -> None:
    """Adopt, send and remove the spools of a service's processes that are gone; configured by KEYTRAIL_CORE_*.

    Spools in use are left alone. It needs the service's signer, and neither its key store nor its vault.
    """
    needs("pydantic_settings", "aiokafka", extra="monitor")
    from cryptocore.errors import CoreError
    from cryptocore.settings import EmitterSettings
    from cryptocore.spool.drain import Drain

    try:
        settings = EmitterSettings.load()
        side_car = Drain.of(settings)
    except CoreError as problem:
        raise fail(str(problem)) from None
    if not settings.spool_dir.is_dir():
        raise fail(f"KEYTRAIL_CORE_SPOOL_DIR: {settings.spool_dir} is no folder")
    if watch:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with plainly(kafka=settings.kafka_bootstrap):
        asyncio.run(side_car.run(_tell, watch=watch, every_s=every))


def _tell(drained: "Drained") -> None:
    spools = "1 spool" if drained.ended == 1 else f"{drained.ended} spools"
    console.print(f"{spools} sent and removed, {drained.in_use} in use")
