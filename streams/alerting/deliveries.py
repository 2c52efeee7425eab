"""From what triage owes to the channels of this deployment: each channel once per notification, as far as we know."""

from collections import Counter
from collections.abc import Mapping

import structlog

from alerts.delivery import DeliveryFailed, Notifier
from alerts.model import Notification
from streams.alerting import canaries

NOWHERE = "nowhere"

_log = structlog.get_logger(__name__)


class LogNotifier:
    """Writes the alert into the worker's log, so that one is never seen by nobody."""

    async def send(self, notification: Notification) -> None:
        _log.warning(
            "alert",
            notification=notification.id,
            alert_id=notification.alert_id,
            kind=notification.kind,
            severity=notification.severity.value,
            subject=notification.subject,
        )


class Deliveries:
    """Sends to every channel; one that failed is tried again without the others being told twice."""

    def __init__(self, channels: Mapping[str, Notifier], *, canary: Notifier | None = None) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """Notifications by (channel, "taken" or "failed")."""
        self._channels = dict(channels)
        self._canary = {} if canary is None else {canaries.KIND: canary}
        self._took: dict[str, set[str]] = {}

    async def send(self, notification: Notification) -> tuple[str, ...]:
        """Returns the channels that have it, all of them; empty while one does not.

        A canary goes to its own route only, and nowhere where there is none.
        """
        channels = self._canary if notification.kind == canaries.KIND else self._channels
        if not channels:
            return (NOWHERE,)
        took = self._took.setdefault(notification.id, set())
        for name, notifier in channels.items():
            if name in took:
                continue
            try:
                await notifier.send(notification)
            except DeliveryFailed as problem:
                self.counts[name, "failed"] += 1
                _log.warning("delivery failed", channel=name, notification=notification.id, problem=str(problem))
            else:
                self.counts[name, "taken"] += 1
                took.add(name)
        if len(took) < len(channels):
            return ()
        del self._took[notification.id]
        return tuple(channels)
