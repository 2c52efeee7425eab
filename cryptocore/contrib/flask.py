"""Who acts in a request, for Flask; views use `core.sync`."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from flask import Flask, g

from cryptocore.context import acting_anew
from cryptocore.contrib.answers import http_status
from cryptocore.core import CryptoCore
from cryptocore.errors import CoreError

_ACTING: Final = "_keytrail_acting"
Says = Callable[[], str | None]


class Keytrail:
    """The extension: `Keytrail(app, core, actor=lambda: f"user:{current_user.id}")`, or `init_app` later.

    Runs each request as whoever `actor` says it is from, and answers errors of the core that a view does not handle
    with the status of `http_status` and no detail.

    Args:
        core: whose `sync` the views use; also in `app.extensions["keytrail"]`.
        actor: gives `kind:opaque-id` inside a request, or None for nobody.
        purpose: likewise what for; left out, calls say it themselves.
    """

    def __init__(
        self, app: Flask | None = None, core: CryptoCore | None = None, *, actor: Says, purpose: Says | None = None
    ) -> None:
        self._actor = actor
        self._purpose = purpose
        if app is not None and core is not None:
            self.init_app(app, core)

    def init_app(self, app: Flask, core: CryptoCore) -> None:
        """Tie an application to a core."""
        app.extensions["keytrail"] = core
        app.before_request(self._begin)
        app.teardown_request(self._end)
        app.register_error_handler(CoreError, self._answer)

    def _begin(self) -> None:
        stack = ExitStack()
        stack.enter_context(acting_anew(self._actor(), None if self._purpose is None else self._purpose()))
        setattr(g, _ACTING, stack)

    def _end(self, _: BaseException | None) -> None:
        stack = g.pop(_ACTING, None)
        if stack is not None:
            stack.close()

    def _answer(self, error: CoreError) -> Any:
        status = http_status(error)
        return {"error": type(error).__name__, "retryable": error.retryable}, status
