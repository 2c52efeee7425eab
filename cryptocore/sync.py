"""The blocking face of a core or a trail, for Flask, Django, Celery and scripts: the same calls without `await`.

The work runs on the event loop on which the core was opened or, when nobody opened it, on a loop of its own in a thread
of its own: one a process, started by the first call, also in a forked child, and closed when the process ends. Actor
and purpose of the calling thread go along. On a running event loop a blocking call would stop that loop: refused.
"""

import asyncio
import atexit
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar
from weakref import WeakMethod

from cryptocore import forking
from cryptocore.emitter import Emitter
from cryptocore.errors import WrongEventLoop

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.stats import CoreStats
    from cryptocore.trail import AuditTrail

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S: Final = 30.0
"""How long the end of the process waits for what is under way; more than the emitter takes to close."""


class _Closes(Protocol):
    async def close(self) -> None: ...


class Blocking:
    """Every coroutine method of a core, or of a trail, blocking.

    Args:
        of: whose methods.
        emitter: with which it opens.
    """

    def __init__(self, of: _Closes, emitter: Emitter) -> None:
        self._of = of
        self._emitter = emitter
        self._own: _LoopThread | None = None
        self._starting = threading.Lock()
        forking.renew_in_child(self)

    if not TYPE_CHECKING:  # the kinds below name the methods for whoever checks types

        def __getattr__(self, name: str) -> Callable[..., Any]:
            method = getattr(self._of, name, None) if not name.startswith("_") else None
            if not iscoroutinefunction(method):
                raise AttributeError(f"there is no coroutine method {name!r} that could block")

            @wraps(method)
            def blocking(*args: Any, **kwargs: Any) -> Any:
                self._refuse_to_block(name)
                return self.run(method(*args, **kwargs))

            return blocking

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that uses the core, and wait for it.

        Raises:
            WrongEventLoop: this thread runs an event loop, or the core is open on one that has ended.
            Exception: what the coroutine raised.
        """
        try:
            self._refuse_to_block("run")
            future = _submit(self._loop(), work)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:  # also a signal that ends the wait
            future.cancel()
            raise

    def close(self) -> None:
        """Close the core, and end the thread if there is one; a closed core is of no more use in this process."""
        self._refuse_to_block("close")
        if self._own is None and not self._emitter.is_open:
            return
        self.run(self._of.close())
        with self._starting:
            own, self._own = self._own, None
        if own is not None:
            own.stop()

    def after_fork(self) -> None:
        """Forget the parent's thread, which is not in this process."""
        forking.keep(self._own)
        self._own = None
        self._starting = threading.Lock()

    def _refuse_to_block(self, name: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise WrongEventLoop(f"sync.{name} would stop the event loop that runs here: await {name} itself instead")

    def _loop(self) -> asyncio.AbstractEventLoop:
        opened = self._emitter.loop
        if opened is not None:
            if opened.is_running():
                return opened
            raise WrongEventLoop(
                "the core is open on an event loop that no longer runs: close it before that loop ends"
            )
        with self._starting:
            if self._own is None:
                forking.refuse_green_threads()
                self._own = _LoopThread()
                _at_exit(self._close_at_exit)
            return self._own.loop

    def _close_at_exit(self) -> None:
        own, self._own = self._own, None
        if own is None:  # closed already, or the parent's, whose arrangement a child inherits
            return
        try:
            _submit(own.loop, self._of.close()).result(CLOSE_TIMEOUT_S)
        except Exception as err:  # noqa: BLE001 - the process ends; the next one adopts what is left
            _log.warning("the core was not closed in order: %s", type(err).__name__)
        own.stop()


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """For types only: what `Blocking` makes of a coroutine method."""
    raise NotImplementedError(method)


class SyncCore(Blocking):
    """`core.sync`."""

    def __init__(self, core: "CryptoCore", emitter: Emitter) -> None:
        super().__init__(core, emitter)
        self._core = core

    def stats(self) -> "CoreStats":
        """Look at the core, as `core.stats()`, which waits for nothing: also on a running event loop."""
        return self._core.stats()

    if TYPE_CHECKING:
        encrypt = _blocking(CryptoCore.encrypt)
        decrypt = _blocking(CryptoCore.decrypt)
        create_key = _blocking(CryptoCore.create_key)
        activate = _blocking(CryptoCore.activate)
        rotate = _blocking(CryptoCore.rotate)
        revoke = _blocking(CryptoCore.revoke)
        suspend = _blocking(CryptoCore.suspend)
        resume = _blocking(CryptoCore.resume)
        archive = _blocking(CryptoCore.archive)
        describe = _blocking(CryptoCore.describe)
        versions = _blocking(CryptoCore.versions)
        records = _blocking(CryptoCore.records)
        change_owner = _blocking(CryptoCore.change_owner)
        rotation = _blocking(CryptoCore.rotation)
        rotations = _blocking(CryptoCore.rotations)
        report_reencrypted = _blocking(CryptoCore.report_reencrypted)
        retire = _blocking(CryptoCore.retire)
        rewrap = _blocking(CryptoCore.rewrap)
        reencrypt = _blocking(CryptoCore.reencrypt)
        grant_recovery = _blocking(CryptoCore.grant_recovery)
        import_key = _blocking(CryptoCore.import_key)
        request_destruction = _blocking(CryptoCore.request_destruction)
        restore = _blocking(CryptoCore.restore)
        destroy = _blocking(CryptoCore.destroy)
        certify_destruction = _blocking(CryptoCore.certify_destruction)
        destructions = _blocking(CryptoCore.destructions)
        disbelieved_destructions = _blocking(CryptoCore.disbelieved_destructions)
        label = _blocking(CryptoCore.label)
        labels = _blocking(CryptoCore.labels)
        overdue = _blocking(CryptoCore.overdue)
        blast_radius = _blocking(CryptoCore.blast_radius)
        compromise = _blocking(CryptoCore.compromise)
        offboard = _blocking(CryptoCore.offboard)
        resign = _blocking(CryptoCore.resign)
        open = _blocking(CryptoCore.open)
        relay = _blocking(CryptoCore.relay)


class SyncTrail(Blocking):
    """`trail.sync`; around a call to a vault, `run` takes a coroutine of the service's own."""

    if TYPE_CHECKING:
        record = _blocking(AuditTrail.record)
        open = _blocking(AuditTrail.open)


class _LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="keytrail-sync"))
        self._thread = threading.Thread(target=self._run, name="keytrail-sync", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


def _submit(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> "Future[T]":
    """Start a coroutine on another thread's loop, in the context of the calling thread."""
    future: Future[T] = Future()

    def start() -> None:
        task = loop.create_task(work)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(task.cancel) if done.cancelled() else None)
        task.add_done_callback(lambda done: _hand_over(done, future))

    loop.call_soon_threadsafe(start, context=copy_context())
    return future


def _hand_over(task: "asyncio.Task[T]", future: "Future[T]") -> None:
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def _at_exit(close: Callable[[], None]) -> None:
    """Run before the interpreter takes no more work for threads, which closing needs; `atexit` would be too late.

    What was registered last runs first, and thread pools registered when this module imported them.
    """
    weak = WeakMethod(close)

    def run() -> None:
        living = weak()
        if living is not None:
            living()

    getattr(threading, "_register_atexit", atexit.register)(run)
