"""A worker as a process: started, watched, ended in a bounded time, and never alive without a right to go on."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn, Protocol

import structlog

from cryptocore.clock import SystemClock
from streams.index.port import EventIndex, IndexUnavailable
from streams.index.writer import IndexWriter
from streams.log import topics
from streams.log.statelog import StateLog
from streams.log.statelog_kafka import KafkaStateLog
from streams.messages import Step
from streams.running.app import WorkerApp
from streams.running.metrics import WorkerFigures
from streams.running.owed import Deliver
from streams.running.rereading import Rereader
from streams.running.shell import KafkaShell
from streams.running.watchdog import Ends, Watchdog
from streams.running.web import Health, Web
from streams.settings import Settings

EXIT_DEAD: Final = 70
"""The process has lost its right or its ability to go on; start it again (design: takeover)."""
EXIT_SETUP: Final = 2
START_WITHIN_S: Final = 60.0
PULSE_WITHIN_S: Final = 30.0
"""The shell's clock ticks twenty times a second; a worker in which it has not for so long is not alive."""

_log = structlog.get_logger(__name__)


class Application(Ends, Protocol):
    """What brings messages and assignments to the shell."""

    async def start(self) -> None:
        """Join the group."""

    async def stop(self) -> None:
        """Leave it."""


class Worker:
    """One worker in the running loop: built, started and stopped as a whole."""

    def __init__(
        self,
        settings: Settings,
        steps: Mapping[str, Callable[[int], Step]],
        index: EventIndex,
        *,
        die: Callable[[str], NoReturn],
        deliver: Deliver | None = None,
        delivered: Mapping[tuple[str, str], int] = MappingProxyType({}),
        application: Callable[..., Application] = WorkerApp,
    ) -> None:
        self._settings = settings
        self._index = index
        self._connection = settings.kafka_connection()
        clock = SystemClock()
        self.writer = IndexWriter(index)
        self.shell = KafkaShell(
            steps=steps,
            state_log=self._state_log,
            writer=self.writer,
            rereader=Rereader(full_name=settings.topic, connection=self._connection),
            clock=clock,
            die=die,
            deliver=deliver,
        )
        self._app = application(settings, self.shell, die=die)
        self._watchdog = Watchdog(self._app, self.shell, die=die, monotonic=clock.monotonic)
        self.running: set[asyncio.Task[None]] = set()
        self.stopping = False
        self._monotonic = clock.monotonic
        figures = WorkerFigures(
            self.shell,
            self.writer,
            lags=lambda: self._watchdog.lags,
            deliveries=delivered,
            monotonic=clock.monotonic,
        )
        self.web = Web(settings.web_host, settings.web_port, health=self.health, figures=figures)

    def health(self) -> Health:
        """Say how this worker is."""
        since_pulse_s = self._monotonic() - self.shell.pulsed_s
        crashed = self._app.crashed
        if crashed is not None:
            problem = f"the application crashed: {type(crashed).__name__}"
        elif since_pulse_s > PULSE_WITHIN_S:
            problem = "its clock does not tick"
        elif self.stopping:
            problem = "stopping"
        else:
            problem = "" if self.shell.takeovers else "has no assignment yet"
        return Health(
            alive=crashed is None and since_pulse_s <= PULSE_WITHIN_S,
            ready=not problem,
            problem=problem,
            partitions=len(self.shell.owners),
            index="ok" if self.writer.unavailable_since is None else "unavailable",
        )

    def _state_log(self, topic: str, partition: int) -> StateLog:
        settings = self._settings
        return KafkaStateLog(
            transactional_id=f"{settings.topic_prefix}{settings.app_id}.{topic}.{partition}",
            topic=settings.state_topic(topic),
            partition=partition,
            partitions=settings.topic_partitions,
            full_name=settings.topic,
            connection=self._connection,
        )

    async def start(self) -> None:
        """Join the group; partitions come with its first rebalance.

        What is loaded by now lives as long as the worker: full collections need not look at it again.
        """
        gc.collect()
        gc.freeze()
        self.shell.pulsed_s = self._monotonic()
        async with asyncio.timeout(START_WITHIN_S):
            await self._app.start()
        self.running = {asyncio.create_task(self.shell.run()), asyncio.create_task(self._watchdog.run())}

    async def failed(self) -> BaseException | None:
        """Wait for the clock or the watchdog to end, which only an error makes them do."""
        done, _ = await asyncio.wait(self.running, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).exception()

    async def stop(self) -> None:
        """Cut and write what is applied, leave the group, end.

        Raises:
            TimeoutError: it took longer than the settings' `stop_s`; positions are committed with the state, so
                nothing is lost when the process ends now.
        """
        self.stopping = True
        gc.unfreeze()
        async with asyncio.timeout(self._settings.stop_s):
            for task in self.running:
                task.cancel()
            await self.shell.finish(self._settings.stop_s / 2)
            await self._app.stop()
            await self.writer.close()
            await self._index.close()
            await self.web.stop()


async def work(
    settings: Settings,
    steps: Mapping[str, Callable[[int], Step]],
    index: EventIndex,
    *,
    deliver: Deliver | None = None,
    delivered: Mapping[tuple[str, str], int] = MappingProxyType({}),
    application: Callable[..., Application] = WorkerApp,
) -> None:
    """Run a worker over given steps, index and deliveries until SIGTERM or SIGINT."""
    await _check_topics(settings)
    await _prepare(index)
    worker = Worker(settings, steps, index, die=die, deliver=deliver, delivered=delivered, application=application)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        await worker.web.start()
    except OSError as taken:
        _log.error("KEYTRAIL_WEB_HOST and KEYTRAIL_WEB_PORT cannot be had", problem=taken.strerror)
        raise SystemExit(EXIT_SETUP) from None
    await worker.start()
    stopping, failing = asyncio.create_task(told.wait()), asyncio.create_task(worker.failed())
    await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
    if failing.done():
        problem = failing.result()
        _log.error("worker failed", exc_info=problem)
        die(f"{type(problem).__name__}: {problem}")
    failing.cancel()
    _log.info("stopping")
    try:
        await worker.stop()
    except TimeoutError:
        _log.warning("not everything ended in time", seconds=settings.stop_s)
        sys.stderr.flush()
        os._exit(0)
    _log.info("stopped")


def die(reason: str) -> NoReturn:
    """End the process now, without a commit: whoever comes next begins where the state log says."""
    _log.error("giving up", reason=reason)
    sys.stderr.flush()
    os._exit(EXIT_DEAD)


async def _check_topics(settings: Settings) -> None:
    found = await topics.differences(settings)
    for difference in found:
        _log.warning("topic differs", topic=difference.topic, problem=difference.problem)
    if any(difference.fatal for difference in found):
        _log.error("topics are not as they must be; see `keytrail topics ensure`")
        raise SystemExit(EXIT_SETUP)


async def _prepare(index: EventIndex) -> None:
    """Make templates; without the index the worker starts all the same, for detection does not wait for it."""
    try:
        await index.ensure()
    except IndexUnavailable as problem:
        _log.warning("index unavailable at the start", problem=str(problem))
