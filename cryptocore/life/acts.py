"""Acts of the life cycle: run to their end, and told of when they are refused, whatever becomes of who asked."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from cryptocore.audit import Refusal, Subject, no_arrow
from cryptocore.events import Operation
from cryptocore.relay import Relay
from cryptocore.store.key_store import StoreConflict

T = TypeVar("T")


class Acts:
    """Runs acts of one process.

    Args:
        relay: sends what they leave in the outbox, and tells of refusals.
        opened: opens the core, unless it is open.
    """

    def __init__(self, relay: Relay, opened: Callable[[], Awaitable[None]]) -> None:
        self._relay = relay
        self._opened = opened
        self._tasks: set[asyncio.Task[Any]] = set()

    async def live(
        self, operation: Operation, subject: Subject, work: Coroutine[Any, Any, T], *, restrictive: bool = False
    ) -> T:
        """Run an act to its end, even when its caller is cancelled meanwhile; a refusal leaves its event.

        Args:
            operation: names the event of a refusal.
            subject: what that event is about.
            work: the act.
            restrictive: it needs the database only, so nothing is opened unless it is refused.

        Raises:
            CoreError: the refusal's.
            AuditUnavailable: the event of the refusal is not durable.
        """

        async def act() -> T:
            try:
                result = await work
            except Refusal as error:
                refusal = error
            except StoreConflict:
                refusal = no_arrow("the key was changed meanwhile")
            else:
                self._relay.wake()
                return result
            await self._opened()
            return await self._relay.refuse(operation, subject, refusal)

        if not restrictive:
            try:
                await self._opened()
            except BaseException:
                work.close()  # nobody will begin it
                raise
        return await self._to_its_end(act())

    async def in_database(self, work: Coroutine[Any, Any, T]) -> T:
        """Run an act that needs the database and nothing else: nothing is opened for it, no spool and no log.

        What it does and what it refuses is in the outbox when it returns; some process of the service relays it.
        """
        result = await self._to_its_end(work)
        self._relay.wake()
        return result

    async def finish(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: its caller, if still there, has it too
