"""Getting notifications to people: to the console, and to a webhook whose receiver can tell that it was us.

A notification is sent at least once; its id is the same each time, so a receiver that remembers ids shows it once.
"""

import hashlib
import hmac
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
import stamina
from rich.console import Console
from rich.text import Text

from alerts.model import Notification, Severity
from cryptocore.clock import Clock, rfc3339

SIGNATURE_HEADER: Final = "Keytrail-Signature"
TIMESTAMP_HEADER: Final = "Keytrail-Timestamp"
ID_HEADER: Final = "Idempotency-Key"

_encode = msgspec.json.Encoder().encode
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500


class Notifier(Protocol):
    """One channel to people."""

    async def send(self, notification: Notification) -> None:
        """Deliver it.

        Raises:
            DeliveryFailed: it did not get through; `.retryable` says whether trying again can help.
        """


class DeliveryFailed(Exception):
    """A notification did not get through."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


_STYLES: Final = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}


class ConsoleNotifier:
    """Prints alerts whole when they open and by their first line later; nothing in a text is taken for markup.

    Args:
        console: where to.
        clock: where given, the time of day (UTC) stands before each alert; the demo's clock is a simulated one.
    """

    def __init__(self, console: Console, *, clock: Clock | None = None) -> None:
        self._console = console
        self._clock = clock

    async def send(self, notification: Notification) -> None:
        shown = Text()
        if self._clock is not None:
            shown.append(rfc3339(self._clock.now_us())[11:19] + "  ", style="dim")
        later = notification.kind != "opened"
        shown.append(notification.text.partition("\n")[0] if later else notification.text)
        shown.highlight_words([notification.severity.upper()], _STYLES[notification.severity])
        self._console.print(shown, soft_wrap=True)
        self._console.print()


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Sign as the webhook's receiver has to check: `v1=` and HMAC-SHA256 over timestamp, a full stop, and the body."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookNotifier:
    """Posts each notification as JSON to one URL.

    The receiver recomputes `signature` over the `Keytrail-Timestamp` header and the body as received, compares in
    constant time, refuses old timestamps, and drops an `Idempotency-Key` that it has seen.

    Args:
        url: https, or http on a loopback address.
        secret: shared with the receiver, at least 16 bytes.
        clock: for the timestamp.
        timeout_s: for connecting, sending and receiving, each.
        attempts: tries before `send` gives up; the shell that owes the notification tries again later.
        wait_s: before the second try, doubled for each further one.

    Raises:
        ValueError: the URL or the secret is not acceptable.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes,
        clock: Clock,
        timeout_s: float = 5.0,
        attempts: int = 3,
        wait_s: float = 0.5,
    ) -> None:
        if not _acceptable(url):
            raise ValueError("a webhook needs https, or http on a loopback address")
        if len(secret) < 16:  # noqa: PLR2004 - 128 bits
            raise ValueError("the secret of a webhook has at least 16 bytes")
        self._url = url
        self._sign: Callable[[str, bytes], str] = lambda timestamp, body: signature(secret, timestamp, body)
        self._clock = clock
        self._attempts = attempts
        self._wait_s = wait_s
        self._client = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, trust_env=False)

    async def send(self, notification: Notification) -> None:
        body = _encode(notification)
        async for attempt in stamina.retry_context(
            on=_retryable,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._wait_s,
            wait_jitter=self._wait_s / 4,
        ):
            with attempt:
                await self._post(notification.id, body)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _post(self, ident: str, body: bytes) -> None:
        timestamp = str(self._clock.now_us() // 1_000_000)
        headers = {
            "Content-Type": "application/json",
            ID_HEADER: ident,
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: self._sign(timestamp, body),
        }
        try:
            response = await self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as err:
            raise DeliveryFailed(f"the webhook did not answer: {type(err).__name__}", retryable=True) from err
        if response.is_success:
            return
        retryable = response.status_code >= _SERVER_ERROR or response.status_code in _TRY_AGAIN
        raise DeliveryFailed(f"the webhook answered {response.status_code}", retryable=retryable)


def _retryable(error: Exception) -> bool:
    return isinstance(error, DeliveryFailed) and error.retryable


def _acceptable(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    if parts.scheme != "http" or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
