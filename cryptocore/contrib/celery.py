"""Who acts in a Celery task: whoever sent it. Actor and purpose travel in the task's headers; tasks use `core.sync`."""

from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery import Celery, Task, signals

from cryptocore import forking
from cryptocore.context import acting_anew, in_context
from cryptocore.core import CryptoCore

ACTOR: Final = "keytrail_actor"
PURPOSE: Final = "keytrail_purpose"


class Keytrail:
    """Ties a Celery application to a core: `Keytrail(app, core)`; keep what it returns as long as the application.

    A task that is sent by somebody who acts runs as that somebody, also when it is retried or sends further tasks.
    What nobody sent, such as a task of beat, runs as `actor`. The header is as trustworthy as the broker: whoever may
    send tasks may send them in anybody's name, and the event says so of the service whose worker ran it.

    The core may be made at the top of the module: each worker process opens it with the first task that needs it, and
    closes it when it is recycled. A process that is killed leaves its spool to the next one.

    Args:
        actor: of tasks that carry none, `kind:opaque-id`; None leaves them without, and their uses raise MissingActor.
        purpose: of tasks that carry none.
    """

    def __init__(self, app: Celery, core: CryptoCore, *, actor: str | None = None, purpose: str | None = None) -> None:
        self._app = app
        self._core = core
        self._actor = actor
        self._purpose = purpose
        self._running: WeakKeyDictionary[Any, ExitStack] = WeakKeyDictionary()
        signals.before_task_publish.connect(self._send)
        signals.task_prerun.connect(self._begin)
        signals.task_postrun.connect(self._end)
        signals.worker_process_init.connect(self._start)
        signals.worker_process_shutdown.connect(self._stop)

    def _send(self, headers: MutableMapping[str, Any] | None = None, **_: Any) -> None:
        """Put who acts into the headers, unless the sender did."""
        if headers is None:
            return
        for name, value in zip((ACTOR, PURPOSE), in_context(), strict=True):
            if value is not None:
                headers.setdefault(name, value)

    def _begin(self, task: "Task[Any, Any] | None" = None, **_: Any) -> None:
        if task is None or task.app is not self._app:
            return
        around = in_context() if task.request.is_eager else (None, None)  # run where it is called, so by who calls it
        actor = _header(task.request, ACTOR) or around[0] or self._actor
        purpose = _header(task.request, PURPOSE) or around[1] or self._purpose
        stack = ExitStack()
        stack.enter_context(acting_anew(actor, purpose))
        self._running[task.request] = stack

    def _end(self, task: "Task[Any, Any] | None" = None, **_: Any) -> None:
        stack = None if task is None else self._running.pop(task.request, None)
        if stack is not None:
            stack.close()

    def _start(self, **_: Any) -> None:
        """Refuse what cannot work before a task is taken: a patched process shows here, not in a customer's task."""
        forking.refuse_green_threads()

    def _stop(self, **_: Any) -> None:
        self._core.sync.close()


def _header(request: Any, name: str) -> str | None:
    value = request.get(name) or (request.headers or {}).get(name)
    return value if isinstance(value, str) else None
