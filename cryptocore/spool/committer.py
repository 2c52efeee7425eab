"""Group commit: whoever waits while one commit runs shares the next, and all are woken at once.

With a thread, the event loop never waits for the disk. A commit starts when the loop has run everybody who was ready:
started sooner, with half of them, it was slower, since thread and loop then fight over the interpreter's lock. Without
a thread (a simulation with its own clock) the commit runs where it is asked for, so that the order is the program's.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from cryptocore import forking
from cryptocore.clock import Clock
from cryptocore.errors import AuditUnavailable, WrongEventLoop
from cryptocore.spool.entries import Entry
from cryptocore.spool.file import Spool

P = ParamSpec("P")
T = TypeVar("T")

RESERVED_SHARE: Final = 10
"""One part in ten of the quota is kept for outcomes, denials and the life cycle (docs/formats.md, "Sealed batch")."""

_Waiter = tuple[Sequence[Entry], "asyncio.Future[None]"]


class Committer:
    """The one user of a spool.

    Args:
        committed: called on the event loop after each commit that succeeded, before its waiters are woken.
        failed: called there with the number of callers whose lines could not be written.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        clock: Clock,
        quota_bytes: int,
        threaded: bool,
        committed: Callable[[Sequence[Entry]], None],
        failed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._quota = quota_bytes
        self._ordinary = quota_bytes - quota_bytes // RESERVED_SHARE
        self._committed = committed
        self._failed = failed
        self.loop = asyncio.get_running_loop()
        self._waiting: list[_Waiter] = []
        self._waiting_bytes = 0
        self._scheduled = False
        self._busy = False
        self._closed = False
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="keytrail-spool", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def submit(self, entries: Sequence[Entry]) -> "asyncio.Future[None]":
        """Queue lines for the next commit; the future ends when they are durable.

        Raises:
            AuditUnavailable: the spool is closed, or its quota is used up.
            WrongEventLoop: it was opened on another event loop.
        """
        if asyncio.get_running_loop() is not self.loop:
            raise WrongEventLoop("the core was opened on another event loop: keep to that one, or use core.sync")
        if self._closed:
            raise AuditUnavailable("the audit spool is closed", retryable=False)
        size = 0
        ordinary = False
        for entry in entries:
            size += len(entry.line)
            ordinary = ordinary or not entry.manner.reserved
        if self._spool.used + self._waiting_bytes + size > (self._ordinary if ordinary else self._quota):
            self._failed(1)
            raise AuditUnavailable("the audit spool is full: its batches do not reach the log", retryable=True)
        future = self.loop.create_future()
        self._waiting.append((entries, future))
        self._waiting_bytes += size
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)
        return future

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something else with the spool, after the commits asked for before."""
        if self._thread is None:
            return function(*args, **kwargs)
        future: asyncio.Future[T] = self.loop.create_future()

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as err:  # noqa: BLE001 - handed to the caller, whatever it is
                self._post(_fail, future, err)
            else:
                self._post(_finish, future, result)

        self._jobs.put(job)
        return await future

    async def drain(self) -> None:
        """Take no more lines, and wait until those taken are committed."""
        last = None if self._closed else self.submit(())
        self._closed = True
        if last is not None:
            await last

    async def stop(self) -> None:
        """End the thread; the spool stays open."""
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _flush(self) -> None:
        self._scheduled = False
        if self._busy or not self._waiting:
            return
        group, self._waiting, self._waiting_bytes = self._waiting, [], 0
        entries = group[0][0] if len(group) == 1 else [entry for waiter in group for entry in waiter[0]]
        self._busy = True
        if self._thread is None:
            self._done(group, entries, self._commit(entries))
        else:
            self._jobs.put(lambda: self._post(self._done, group, entries, self._commit(entries)))

    def _commit(self, entries: Sequence[Entry]) -> AuditUnavailable | None:
        try:
            self._spool.commit(entries, now_ms=self._clock.now_us() // 1000)
        except AuditUnavailable as err:
            return err
        except Exception as err:  # noqa: BLE001 - a caller must hear of it, whatever it is
            return AuditUnavailable(f"the audit spool failed: {type(err).__name__}", retryable=False)
        return None

    def _done(self, group: list[_Waiter], entries: Sequence[Entry], error: AuditUnavailable | None) -> None:
        self._busy = False
        if error is None:
            self._committed(entries)
        else:
            self._failed(len(group))
        for _, future in group:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(AuditUnavailable(str(error), retryable=error.retryable))
        self._flush()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            forking.whole(job)

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            self.loop.call_soon_threadsafe(function, *args)


def _finish(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[T]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
