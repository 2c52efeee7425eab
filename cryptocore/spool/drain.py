"""A side-car that empties the spools of processes that are gone: it uses no key and leaves no event of its own.

A spool in use is left alone, so it may run beside the service's processes, on the same disk and as the same user.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptocore.clock import Clock, SystemClock
from cryptocore.settings import EmitterSettings, build_orphans
from cryptocore.spool.lock import SpoolLock, spools_of
from cryptocore.spool.orphans import Orphans
from cryptocore.spool.sender import Transport

_log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
"""Between two looks at the folder."""
MAX_PAUSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Drained:
    """What a look at the folder found and did."""

    ended: int
    in_use: int


class Drain:
    """Adopts and sends.

    Args:
        orphans: of the folder.
        transport: with which they send; closed by `close`.
    """

    def __init__(
        self,
        orphans: Orphans,
        transport: Transport,
        *,
        directory: Path,
        service: str,
        clock: Clock | None = None,
    ) -> None:
        self._orphans = orphans
        self._transport = transport
        self._dir = directory
        self._service = service
        self._clock = clock or SystemClock()
        self._stop = asyncio.Event()

    @classmethod
    def of(cls, settings: EmitterSettings) -> Self:
        """Make one of `KEYTRAIL_CORE_*`; it needs neither the key store's nor the KEK's.

        Raises:
            ConfigurationError: the settings contradict each other or the registry.
            RegistryInvalid: the registry file cannot be used.
        """
        orphans, transport = build_orphans(settings)
        return cls(orphans, transport, directory=settings.spool_dir, service=settings.service)

    async def run(self, told: Callable[[Drained], None], *, watch: bool, every_s: float = EVERY_S) -> None:
        """Empty the folder once, or until SIGTERM or Ctrl-C when it is to be watched.

        Raises:
            Exception: without `watch`, what the transport raised.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            if watch:
                await self.watch(told, every_s=every_s)
            else:
                drained = await self._until_stopped()
                if drained is not None:
                    told(drained)
        finally:
            await self.close()

    async def once(self) -> Drained:
        """Empty every spool whose process is gone.

        Raises:
            Exception: what the transport raised; what was not sent stays.
        """
        await self._orphans.adopt(self._clock.now_us())
        ended = await self._orphans.send()
        return Drained(ended, self._in_use() - self._orphans.waiting)

    async def watch(self, told: Callable[[Drained], None], *, every_s: float = EVERY_S) -> None:
        """Go on until `stop`; a log that does not answer is asked again, less and less often."""
        pause_s = every_s
        while not self._stop.is_set():
            try:
                drained = await self._until_stopped()
                pause_s = every_s
                if drained is not None and drained.ended:
                    told(drained)
            except Exception as err:  # noqa: BLE001 - whatever the transport raised, the spools stay and are sent again
                _log.warning("spools wait: %s: %s", type(err).__name__, err)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()

    def stop(self) -> None:
        """End `watch`; a send that is under way is given up, and its spool stays."""
        self._stop.set()

    async def close(self) -> None:
        """Let go of what could not be sent, and of the log."""
        self._orphans.let_go()
        await self._transport.close()

    async def _until_stopped(self) -> Drained | None:
        looking, stopped = asyncio.ensure_future(self.once()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((looking, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not looking.done():
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            return None
        return looking.result()

    def _in_use(self) -> int:
        held = 0
        for path in spools_of(self._dir, self._service):
            lock = SpoolLock.take(path)
            if lock is None:
                held += 1
            else:
                lock.release()
        return held
