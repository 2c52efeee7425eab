"""Deliveries against real servers on a loopback port."""

import asyncio
import hmac
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from rich.console import Console

from alerts import text
from alerts.delivery import ConsoleNotifier, DeliveryFailed, Notifier, WebhookNotifier
from alerts.model import Notification
from cryptocore.clock import SystemClock
from tests.alerts.alerting import LATER_MS, alert_of, told

SECRET = b"a secret of the receiver"


@dataclass
class Receiver:
    """A webhook's far end: answers in the given order, the last one for ever, and keeps what it was sent."""

    answers: list[int]
    silent: bool = False
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((headers, body))
                if self.silent:
                    await asyncio.sleep(60)
                status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                extra = "Location: http://127.0.0.1:1/\r\n" if status == 302 else ""
                writer.write(f"HTTP/1.1 {status} X\r\n{extra}Content-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        try:
            yield self
        finally:
            server.close()


def _notification() -> Notification:
    alert = alert_of(told(count=14))
    [owed] = alert.owed
    return Notification(
        id="n-1",
        alert_id=alert.alert_id,
        kind="opened",
        severity=alert.severity,
        subject=text.subject(alert, owed),
        text=text.notice(alert, owed),
        alert={"alert_id": alert.alert_id},
    )


def _webhook(url: str, *, timeout_s: float = 2.0, attempts: int = 3) -> WebhookNotifier:
    return WebhookNotifier(url, secret=SECRET, clock=SystemClock(), timeout_s=timeout_s, attempts=attempts, wait_s=0.01)


async def test_a_receiver_can_check_who_sent_it_and_when() -> None:
    async with Receiver([204]).serving() as receiver:
        notifier = _webhook(receiver.url)
        await notifier.send(_notification())
        await notifier.close()

    [(headers, body)] = receiver.requests
    signed = headers["keytrail-timestamp"].encode() + b"." + body
    assert headers["keytrail-signature"] == "v1=" + hmac.new(SECRET, signed, sha256).hexdigest()
    assert abs(int(headers["keytrail-timestamp"]) - SystemClock().now_us() // 1_000_000) < 60
    assert headers["idempotency-key"] == "n-1"
    sent = json.loads(body)
    assert (sent["id"], sent["kind"], sent["severity"]) == ("n-1", "opened", "critical")
    assert sent["text"].startswith("CRITICAL  KEK used outside our services")


@pytest.mark.parametrize("answer", [500, 503, 429])
async def test_what_may_pass_is_tried_again_under_the_same_id(answer: int) -> None:
    async with Receiver([answer, answer, 200]).serving() as receiver:
        notifier = _webhook(receiver.url)
        await notifier.send(_notification())
        await notifier.close()

    assert [headers["idempotency-key"] for headers, _ in receiver.requests] == ["n-1"] * 3


@pytest.mark.parametrize(
    ("answer", "retryable", "requests"), [(400, False, 1), (401, False, 1), (302, False, 1), (500, True, 3)]
)
async def test_a_failure_says_whether_trying_again_can_help(answer: int, retryable: object, requests: int) -> None:
    async with Receiver([answer]).serving() as receiver:
        notifier = _webhook(receiver.url)
        with pytest.raises(DeliveryFailed, match=str(answer)) as failure:
            await notifier.send(_notification())
        await notifier.close()

    assert failure.value.retryable is retryable
    assert len(receiver.requests) == requests, "a redirect is not followed"


async def test_a_receiver_that_does_not_answer_is_given_up_in_time() -> None:
    async with Receiver([200], silent=True).serving() as receiver:
        notifier = _webhook(receiver.url, timeout_s=0.1, attempts=1)
        with pytest.raises(DeliveryFailed) as failure:
            await asyncio.wait_for(notifier.send(_notification()), 2)
        await notifier.close()

    assert failure.value.retryable


async def test_nobody_listening_is_a_failure_that_may_pass() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    notifier = _webhook(f"http://127.0.0.1:{port}/", attempts=1)

    with pytest.raises(DeliveryFailed) as failure:
        await notifier.send(_notification())

    await notifier.close()
    assert failure.value.retryable


@pytest.mark.parametrize(
    "url", ["http://hooks.example/x", "http://127.0.0.1.example/x", "ftp://127.0.0.1/x", "https:///x", "hooks"]
)
def test_nothing_leaves_the_machine_unencrypted(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        _webhook(url)


@pytest.mark.parametrize("url", ["https://hooks.example/x", "http://localhost:1/x", "http://[::1]:1/x"])
def test_https_and_loopback_are_fine(url: str) -> None:
    _webhook(url)


def test_a_short_secret_is_refused_and_a_good_one_does_not_print() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        WebhookNotifier("https://hooks.example/x", secret=b"short", clock=SystemClock())

    assert "secret of the receiver" not in repr(vars(_webhook("https://hooks.example/x")))


async def test_the_console_shows_the_text_as_it_is_and_takes_nothing_for_markup() -> None:
    out = io.StringIO()
    notifier: Notifier = ConsoleNotifier(Console(file=out, width=40, color_system=None))
    sent = _notification()

    await notifier.send(
        Notification(
            id=sent.id,
            alert_id=sent.alert_id,
            kind=sent.kind,
            severity=sent.severity,
            subject=sent.subject,
            text=sent.text + "\nWho    [bold]x[/bold] :smile:",
            alert={},
        )
    )

    assert out.getvalue() == sent.text + "\nWho    [bold]x[/bold] :smile:\n\n"


async def test_the_console_says_the_time_by_the_clock_it_is_given() -> None:
    class Stopped(SystemClock):
        def now_us(self) -> int:
            return LATER_MS * 1000

    out = io.StringIO()

    await ConsoleNotifier(Console(file=out, color_system=None), clock=Stopped()).send(_notification())

    assert out.getvalue().startswith("02:41:37  CRITICAL  KEK used outside our services")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
async def test_apprise_reaches_its_url_and_says_when_it_does_not() -> None:
    pytest.importorskip("apprise", reason="the monitor extra is not installed")
    from alerts.delivery_apprise import AppriseNotifier  # noqa: PLC0415 - apprise is optional

    async with Receiver([200]).serving() as receiver:
        await AppriseNotifier([receiver.url.replace("http://", "json://")]).send(_notification())
    async with Receiver([500]).serving() as refusing:
        with pytest.raises(DeliveryFailed):
            await AppriseNotifier([refusing.url.replace("http://", "json://")]).send(_notification())

    sent = json.loads(receiver.requests[0][1])
    assert sent["title"].startswith("CRITICAL  KEK used outside our services")
    assert "disable the identity" in sent["message"]
    with pytest.raises(ValueError, match="number 2"):
        AppriseNotifier(["json://localhost", "nothing"])
