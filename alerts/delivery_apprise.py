"""Notifications through Apprise: Slack, mail, Teams and the rest, by its URLs. Only this file imports it."""

from collections.abc import Sequence
from typing import Final

import apprise

from alerts.delivery import DeliveryFailed
from alerts.model import Notification, Severity

_TYPES: Final = {
    Severity.CRITICAL: apprise.NotifyType.FAILURE,
    Severity.HIGH: apprise.NotifyType.FAILURE,
    Severity.MEDIUM: apprise.NotifyType.WARNING,
    Severity.LOW: apprise.NotifyType.INFO,
    Severity.INFO: apprise.NotifyType.INFO,
}


class AppriseNotifier:
    """Sends to every URL; Apprise has no idempotency, so a retry can show a notification twice.

    Raises:
        ValueError: Apprise does not understand one of the URLs, named by its place: it may hold a password.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._apprise = apprise.Apprise()
        for place, url in enumerate(urls):
            if not self._apprise.add(url):
                raise ValueError(f"Apprise does not understand URL number {place + 1}")

    async def send(self, notification: Notification) -> None:
        delivered = await self._apprise.async_notify(
            title=notification.subject,
            body=notification.text,
            notify_type=_TYPES[notification.severity],
            body_format=apprise.NotifyFormat.TEXT,
        )
        if not delivered:
            raise DeliveryFailed("Apprise could not deliver to every URL", retryable=True)
