"""Who acts and what for: given with a call, or set once around many calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cryptocore.errors import MissingActor, MissingPurpose

_actor: ContextVar[str | None] = ContextVar("keytrail_actor", default=None)
_purpose: ContextVar[str | None] = ContextVar("keytrail_purpose", default=None)


@contextmanager
def acting(actor: str | None = None, purpose: str | None = None) -> Iterator[None]:
    """Set actor or purpose for every call inside; what is not given stays as it was around it."""
    actor_token = _actor.set(actor if actor is not None else _actor.get())
    purpose_token = _purpose.set(purpose if purpose is not None else _purpose.get())
    try:
        yield
    finally:
        _purpose.reset(purpose_token)
        _actor.reset(actor_token)


@contextmanager
def acting_anew(actor: str | None = None, purpose: str | None = None) -> Iterator[None]:
    """Set actor and purpose where something new begins, a request or a task: what is not given is not set inside."""
    actor_token, purpose_token = _actor.set(actor), _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(purpose_token)
        _actor.reset(actor_token)


def in_context() -> tuple[str | None, str | None]:
    """Give the actor and the purpose that are set around the caller, to carry them elsewhere."""
    return _actor.get(), _purpose.get()


def who_acts(actor: str | None, purpose: str | None) -> tuple[str, str]:
    """Take what a call gave, else what is set around it.

    Raises:
        MissingActor: neither says who.
        MissingPurpose: neither says what for.
    """
    actor = actor if actor is not None else _actor.get()
    purpose = purpose if purpose is not None else _purpose.get()
    if actor is None:
        raise MissingActor("no actor was given and none is in context (cryptocore.acting)")
    if purpose is None:
        raise MissingPurpose("no purpose was given and none is in context (cryptocore.acting)")
    return actor, purpose
