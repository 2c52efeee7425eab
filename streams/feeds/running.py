"""A feed as a process: logs to stderr, ends on SIGTERM and SIGINT, says what it did."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from cryptocore.clock import SystemClock
from streams.feeds.publisher import Publisher
from streams.settings import Settings
from streams.stderr import log_to_stderr

SAY_EVERY_S = 60


def run(settings: Settings, feed: str, level: str, work: Callable[[Publisher], Awaitable[None]]) -> int:
    """Run a feed until it ends or is told to; returns how many items were refused.

    Whatever moment it is stopped at, positions name only what was acknowledged.

    Raises:
        KafkaError, ConfigurationError: the log cannot be used as configured.
    """
    log_to_stderr(level)
    return asyncio.run(_run(Publisher(settings, feed=feed, clock=SystemClock()), work))


async def _run(publisher: Publisher, work: Callable[[Publisher], Awaitable[None]]) -> int:
    await publisher.open()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    working = asyncio.ensure_future(work(publisher))
    stopping = asyncio.create_task(told.wait())
    saying = asyncio.create_task(_say(publisher))
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopping, saying):
            task.cancel()
        await asyncio.gather(working, stopping, saying, return_exceptions=True)
        await publisher.close()
        publisher.tally.say()
    return publisher.tally.refused.total()


async def _say(publisher: Publisher) -> None:
    while True:
        await asyncio.sleep(SAY_EVERY_S)
        publisher.tally.say()
