"""What a forked child may not touch, and who starts anew in it.

A database handle, a socket or an event loop of the parent is neither used nor closed in a child: closing would end
things that the parent is in the middle of. The child keeps such handles, unused, to the end of its life.
"""

import contextlib
import ctypes
import logging
import os
import sys
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from cryptocore.errors import ConfigurationError

_log = logging.getLogger(__name__)

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


_living: WeakKeyDictionary[Renewable, None] = WeakKeyDictionary()


def _renew() -> None:
    for thing in list(_living):
        try:
            thing.after_fork()
        except Exception:  # noqa: BLE001 - the child has other things to do, and uses of this one say what is wrong
            _log.exception("%s is of no use in this child", type(thing).__name__)


with contextlib.suppress(AttributeError):  # a platform without fork
    os.register_at_fork(after_in_child=_renew)
