"""Ends a worker that lives and does not work: Faust's consumers have been seen to die without a word."""

import asyncio
from collections.abc import Callable
from typing import NoReturn, Protocol

from streams.index.writer import OwnerKey
from streams.running.shell import KafkaShell

LOOK_EVERY_S = 10.0
STUCK_AFTER_S = 120.0
"""A partition that grows and of which nothing was applied for so long."""


class Ends(Protocol):
    """What the watchdog asks of the application."""

    @property
    def crashed(self) -> BaseException | None:
        """What ended it."""

    async def ends(self, keys: list[OwnerKey]) -> dict[OwnerKey, int]:
        """Where the partitions end."""


class Watchdog:
    """Looks at every owned partition now and then; `look` is one look."""

    def __init__(
        self, app: Ends, shell: KafkaShell, *, die: Callable[[str], NoReturn], monotonic: Callable[[], float]
    ) -> None:
        self._app = app
        self._shell = shell
        self._die = die
        self._monotonic = monotonic
        self.lags: dict[OwnerKey, int] = {}
        """Messages not applied yet, at the last look."""
        self._seen: dict[OwnerKey, tuple[int, int, float]] = {}  # applied, end, when last nothing new was waiting

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._app.crashed is not None:
                self._die(f"the application crashed: {self._app.crashed!r}")
            owners = dict(self._shell.owners)
            async with asyncio.timeout(LOOK_EVERY_S * 3):
                ends = await self._app.ends(list(owners))
            self.look({key: (owner.applied, ends.get(key, 0)) for key, owner in owners.items()})

    def look(self, places: dict[OwnerKey, tuple[int, int]]) -> None:
        """Judge by (applied, end) of each partition."""
        now_s = self._monotonic()
        self.lags = {key: max(0, end - applied) for key, (applied, end) in places.items()}
        self._seen = {key: seen for key, seen in self._seen.items() if key in places}
        for key, (applied, end) in places.items():
            seen = self._seen.get(key)
            if seen is None or seen[0] != applied or end <= seen[1]:  # quiet for hours is not stuck for hours
                self._seen[key] = (applied, end, now_s)
            elif now_s - seen[2] > STUCK_AFTER_S:
                self._die(f"{key} has grown to {end}, and nothing was applied after {applied}")
