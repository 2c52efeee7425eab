"""From a spool to the log: the oldest batch of each partition first, the next one when the log has it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptocore.batch import SealedBatch
from cryptocore.spool.chain import Unsent
from cryptocore.spool.file import Spool


class Transport(Protocol):
    """Where sealed batches go."""

    async def send(self, partition: int, batch: SealedBatch) -> None:
        """Return when the log has the batch on all replicas; any exception means: try again later."""

    async def close(self) -> None:
        """Let go of connections."""


class Call(Protocol):
    """How to run something with the spool: on its thread, or here."""

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


@dataclass(slots=True)
class Sent:
    """What the log took from one process, in batches and in lines."""

    batches: int = 0
    lines: int = 0


class Sender:
    """Sends what a spool has sealed; partitions side by side, or one after the other where order must be repeatable."""

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        *,
        call: Call,
        concurrent: bool,
        sent: Callable[[Unsent], None] = lambda _: None,
        count: Sent | None = None,
    ) -> None:
        self._spool = spool
        self._transport = transport
        self._call = call
        self._concurrent = concurrent
        self._sent = sent
        self._count = count or Sent()

    async def send(self) -> None:
        """Send everything that is sealed, resends with the bytes of the first time.

        Raises:
            Exception: what the transport raised; the batch and those after it in its partition stay.
        """
        partitions = await self._call(self._spool.unsent_partitions)
        if not self._concurrent:
            for partition in partitions:
                await self._send_partition(partition)
            return
        results = await asyncio.gather(*map(self._send_partition, partitions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_partition(self, partition: int) -> None:
        unsent = await self._call(self._spool.next_unsent, partition)
        while unsent is not None:
            batch: SealedBatch = await self._call(self._spool.read, unsent)
            await self._transport.send(partition, batch)
            self._count.batches += 1
            self._count.lines += batch.value.count(b"\n")
            following = await self._call(self._advance, unsent)
            self._sent(unsent)
            unsent = following

    def _advance(self, unsent: Unsent) -> Unsent | None:
        self._spool.sent(unsent)
        return self._spool.next_unsent(unsent.partition)
