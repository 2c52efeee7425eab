"""Who acts in a request, for FastAPI, Starlette and every other ASGI framework. Plain ASGI: nothing to install."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cryptocore.context import acting_anew

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Says = Callable[[Scope], str | None]


class ActorMiddleware:
    """Runs each request and websocket as whoever `actor` says it is from.

    Put it inside the middleware that authenticates: `actor` reads what that one left in the scope, such as
    `lambda scope: f"user:{scope['state']['user_id']}"`. What it does not know it says with None; a use of keys in such
    a request raises `MissingActor`.

    Args:
        actor: gives `kind:opaque-id` for a scope, or None.
        purpose: likewise what for, one word for a scope; left out, calls say it themselves.
    """

    def __init__(self, app: App, *, actor: Says, purpose: Says | None = None) -> None:
        self._app = app
        self._actor = actor
        self._purpose = purpose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with acting_anew(self._actor(scope), None if self._purpose is None else self._purpose(scope)):
            await self._app(scope, receive, send)
