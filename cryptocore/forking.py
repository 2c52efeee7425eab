"""What a fork may not cut in half, what a forked child may not touch, and who starts anew in it.

SQLite has locks of the whole process. A fork at the moment at which a thread of the parent holds one would leave it
held for ever in the child, where that thread is not: so forks wait for such work, and such work waits for forks.

A database handle, a socket or an event loop of the parent is neither used nor closed in a child: closing would end
things that the parent is in the middle of. The child keeps such handles, unused, to the end of its life.
"""

import contextlib
import ctypes
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from cryptocore.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

QUIET_S: Final = 5.0
"""How long a fork waits for a thread that is in the middle of a commit or a query; then it goes ahead."""
_PATCHED: Final = (("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched"))


class Renewable(Protocol):
    """Whoever holds something that belongs to one process."""

    def after_fork(self) -> None:
        """Start anew in a child: as it was before its first use."""


def renew_in_child(thing: Renewable) -> None:
    """Have `after_fork` called in every child that this process forks from now on; parts before their whole."""
    _living[thing] = None


def keep(*handles: Any) -> None:
    """Never let go of a parent's handles: not even the end of the interpreter may close them."""
    for handle in handles:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def whole(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run something on a thread that no fork may cut in half. It waits for nothing that is `whole` itself."""
    with _gate.changed:
        _gate.changed.wait_for(lambda: not _gate.forking)
        _gate.inside += 1
    try:
        return function(*args, **kwargs)
    finally:
        with _gate.changed:
            _gate.inside -= 1
            if _gate.forking:
                _gate.changed.notify_all()


def refuse_green_threads() -> None:
    """Refuse to run where waiting was rewritten: commits wait for the disk on a thread that must be a real one.

    Raises:
        ConfigurationError: names gevent or eventlet.
    """
    for module, asks in _PATCHED:
        patched = getattr(sys.modules.get(module), asks, None)
        if patched is not None and (patched("threading") or patched("thread")):
            name = module.partition(".")[0]
            raise ConfigurationError(
                f"{name} has patched threads, and the audit spool needs real ones: "
                f"run this service with threads, processes or asyncio workers instead of {name}"
            )


class _Gate:
    """How many threads are in the middle of something, and how many are about to fork."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.inside = 0
        self.forking = 0


_gate = _Gate()


def _wait_until_whole() -> None:
    with _gate.changed:
        _gate.forking += 1
        _gate.changed.wait_for(lambda: not _gate.inside, QUIET_S)


def _go_on() -> None:
    with _gate.changed:
        _gate.forking -= 1
        _gate.changed.notify_all()


_living: WeakKeyDictionary[Renewable, None] = WeakKeyDictionary()


def _renew() -> None:
    global _gate  # noqa: PLW0603 - its threads are not in this process
    _gate = _Gate()
    for thing in list(_living):
        try:
            thing.after_fork()
        except Exception:  # noqa: BLE001 - the child has other things to do, and uses of this one say what is wrong
            _log.exception("%s is of no use in this child", type(thing).__name__)


with contextlib.suppress(AttributeError):  # a platform without fork
    os.register_at_fork(before=_wait_until_whole, after_in_parent=_go_on, after_in_child=_renew)
