"""Deliveries that a partition owes: only what is committed is sent, and what got through is marked in the next cut."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from alerts.model import Notification
from streams.messages import Effects
from streams.state import State

RETRY_S: Final = 10.0
"""A failed delivery is tried again after this long; deliverers retry what is quick themselves."""

Deliver = Callable[[Notification], Awaitable[tuple[str, ...]]]
"""Sends one notification and names the channels that took it; none = it shall be tried again."""


@runtime_checkable
class DeliveringStep(Protocol):
    """A step whose state owes deliveries to people (triage)."""

    def owed(self, state: State) -> list[Notification]:
        """What the state says is to be sent."""

    def owing(self) -> int:
        """How many records owe a delivery; where it grows, somebody waits for the next cut."""

    def delivered(
        self, notification_id: str, now_ms: int, state: State, effects: Effects, channels: tuple[str, ...]
    ) -> None:
        """Note that it was sent, and by which channels."""


class Owed:
    """What the last cut owes, what of it is due now, and what was sent since a cut was begun."""

    def __init__(self, deliver: Deliver | None, monotonic: Callable[[], float]) -> None:
        self._deliver = deliver
        self._monotonic = monotonic
        self._waiting: dict[str, Notification] = {}
        self._retry_s: dict[str, float] = {}
        self._sent: set[str] = set()

    def begin(self) -> None:
        """A cut takes its snapshot: what is sent from here on is not marked in it."""
        self._sent.clear()

    def replace(self, owed: Iterable[Notification]) -> None:
        """Take over what a commit owes, less what was sent while it was under way."""
        self._waiting = {notification.id: notification for notification in owed if notification.id not in self._sent}

    def next(self) -> Notification | None:
        """The first delivery that is due and not on its way."""
        if self._deliver is None:
            return None
        now_s = self._monotonic()
        for notification in self._waiting.values():
            if self._retry_s.get(notification.id, now_s) <= now_s:
                return notification
        return None

    async def send(self, notification: Notification) -> tuple[str, ...]:
        """Send one; returns the channels that took it, none when it shall be tried again."""
        assert self._deliver is not None, "nothing is due without a way to deliver"
        self._retry_s[notification.id] = self._monotonic() + RETRY_S
        channels = await self._deliver(notification)
        if channels:
            del self._retry_s[notification.id]
            self._sent.add(notification.id)
            self._waiting.pop(notification.id, None)
        return channels
