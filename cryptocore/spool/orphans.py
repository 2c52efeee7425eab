"""Spools in a folder whose process is gone: adopted, sent, ended and removed. Their check is adoption.py's.

An emitter does this beside its own spool; `keytrail drain` does nothing else.
"""

import asyncio
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptocore import forking
from cryptocore.clock import Clock
from cryptocore.signing import Signer
from cryptocore.spool.adoption import adopt, close_chain
from cryptocore.spool.file import Identity, Spool
from cryptocore.spool.lock import spool_path, spools_of
from cryptocore.spool.sender import Sender, Transport


class Orphans:
    """Takes over what others left.

    Args:
        directory: of the spools.
        identity: of the adopter; asked for each time, since a forked child has another.
        threads: look at files on threads, and send partitions side by side.
    """

    def __init__(
        self,
        directory: Path,
        *,
        identity: Callable[[], Identity],
        signer: Signer,
        transport: Transport,
        clock: Clock,
        ids: Callable[[int], bytes] = os.urandom,
        threads: bool = True,
    ) -> None:
        self._dir = directory
        self._identity = identity
        self._signer = signer
        self._transport = transport
        self._clock = clock
        self._ids = ids
        self._threads = threads
        self._adopted: list[tuple[Spool, Sender]] = []

    @property
    def waiting(self) -> int:
        """How many are adopted and not sent yet."""
        return len(self._adopted)

    async def adopt(self, now_us: int) -> None:
        """Take over every spool whose owner is gone; those in use are left alone."""
        identity = self._identity()
        own = spool_path(self._dir, identity.service, identity.instance).name
        held = {spool.path for spool, _ in self._adopted}
        for path in spools_of(self._dir, identity.service):
            if path.name == own or path in held:
                continue
            take = functools.partial(adopt, path, adopter=identity, signer=self._signer, now_us=now_us, ids=self._ids)
            spool = await self._elsewhere(take)
            if spool is not None:
                sender = Sender(spool, self._transport, call=self._elsewhere, concurrent=self._threads)
                self._adopted.append((spool, sender))

    async def send(self) -> int:
        """Send what was adopted, end each chain and remove its file.

        Returns:
            How many were ended.

        Raises:
            Exception: what the transport raised; what was not sent stays.
        """
        ended = 0
        while self._adopted:
            spool, sender = self._adopted[0]
            await sender.send()
            await self._elsewhere(close_chain, spool, now_us=self._clock.now_us(), ids=self._ids)
            await sender.send()
            self._adopted.pop(0)
            await self._elsewhere(spool.close, remove=True)
            ended += 1
        return ended

    def let_go(self) -> None:
        """Leave what could not be sent to whoever comes next."""
        for spool, _ in self._adopted:
            spool.close()
        self._adopted.clear()

    def abandon(self) -> list[tuple[Spool, Sender]]:
        """In a forked child: forget what the parent adopted, and give it out unused."""
        theirs, self._adopted = self._adopted, []
        return theirs

    async def _elsewhere(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run something with an adopted spool, to its end: whoever is cancelled meanwhile may close the spool next."""
        if not self._threads:
            return function(*args, **kwargs)
        work = asyncio.ensure_future(asyncio.to_thread(forking.whole, function, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait((work,))
            raise
