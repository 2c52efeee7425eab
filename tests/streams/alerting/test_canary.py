"""What the canary believes: deliveries that are signed, young and new; everything else is no sign of life."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from alerts.delivery import DeliveryFailed, WebhookNotifier
from alerts.model import Notification
from alerts.rules.canary import SOURCE
from alerts.text import unindexed
from cryptocore import AuditTrail, Signer
from cryptocore.clock import SystemClock
from cryptocore.emitter import Emitter
from cryptocore.events import Operation, Outcome
from cryptocore.testing import Events, MemoryTransport, register
from streams.alerting import canaries
from streams.alerting.canary import YOUNG, Canary
from streams.alerting.deliveries import NOWHERE, Deliveries
from streams.state import Kind, State

SECRET = b"c" * 32
EVERY_S = 2.0


class Singing:
    """A canary over a log in memory."""

    def __init__(self, folder: Path, beat_url: str | None) -> None:
        signer, transport = Signer.generate(), MemoryTransport()
        registry = register(signer, source=SOURCE)
        self.trail = AuditTrail(
            Emitter(
                spool_dir=folder,
                signer=signer,
                deployment=registry.deployment,
                service=SOURCE,
                transport=transport,
                partitions=2,
                linger_ms=0,
            )
        )
        self.events = Events(transport, registry)
        self.canary = Canary(
            self.trail,
            host="127.0.0.1",
            port=0,
            secret=SECRET,
            beat_url=beat_url,
            every_s=EVERY_S,
            clock=SystemClock(),
        )

    async def send(self, notification: Notification, secret: bytes = SECRET) -> None:
        host, port = self.canary.address
        notifier = WebhookNotifier(f"http://{host}:{port}/", secret=secret, clock=SystemClock(), attempts=1)
        try:
            await notifier.send(notification)
        finally:
            await notifier.close()


@asynccontextmanager
async def singing(folder: Path, beat_url: str | None = None) -> AsyncIterator[Singing]:
    made = Singing(folder, beat_url)
    running = asyncio.create_task(made.canary.run())
    async with asyncio.timeout(5):
        while not made.canary.address[1]:  # noqa: ASYNC110 - a test looks
            await asyncio.sleep(0.01)
    try:
        yield made
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def state_with(event_id: str, at_ms: int) -> State:
    state = State()
    state.put(Kind.METER, b"canary", canaries.Canary(event_id=event_id, at_ms=at_ms))
    return state


def now_ms() -> int:
    return SystemClock().now_us() // 1000


async def test_a_young_canary_beats_once_also_when_its_text_says_that_the_index_is_away(tmp_path: Path) -> None:
    async with singing(tmp_path) as made:
        (first,) = canaries.owed(state_with("one", now_ms()))
        (second,) = canaries.owed(state_with("two", now_ms()))
        await made.send(first)
        await made.send(first)
        await made.send(unindexed(second, since_ms=now_ms() - 60_000))

    assert made.canary.beats == 2


async def test_that_nobody_is_told_is_said_at_the_start(tmp_path: Path) -> None:
    with capture_logs() as told_nobody:
        async with singing(tmp_path / "a"):
            pass
    with capture_logs() as told_somebody:
        async with singing(tmp_path / "b", beat_url="http://127.0.0.1:9/"):
            pass

    assert ["BEAT_URL is not set" in one["event"] for one in told_nobody if one["log_level"] == "warning"] == [True]
    assert [one for one in told_somebody if "BEAT_URL" in one["event"]] == []


async def test_old_forged_and_foreign_deliveries_are_no_sign_of_life(tmp_path: Path) -> None:
    async with singing(tmp_path) as made:
        (old,) = canaries.owed(state_with("old", now_ms() - round(YOUNG * EVERY_S * 1000) - 500))
        (young,) = canaries.owed(state_with("young", now_ms()))
        await made.send(old)
        with pytest.raises(DeliveryFailed, match="403"):
            await made.send(young, b"d" * 32)
        await made.send(msgspec.structs.replace(young, kind="opened"))
        with pytest.raises(DeliveryFailed, match="400"):
            await made.send(msgspec.structs.replace(young, alert={"alert_id": "x"}))
        host, port = made.canary.address
        async with httpx.AsyncClient(trust_env=False) as client:
            unsigned = await client.post(f"http://{host}:{port}/", content=b"{}")

    assert unsigned.status_code == 403
    assert made.canary.beats == 0


async def test_it_leaves_a_refused_use_that_its_rule_sees(tmp_path: Path) -> None:
    async with singing(tmp_path) as made:
        async with asyncio.timeout(5):
            while not list(made.events):  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.05)

    left = next(iter(made.events))
    assert (left.operation, left.outcome, left.service) == (Operation.REENCRYPT, Outcome.DENIED, SOURCE)


async def test_a_canary_goes_to_its_own_route_and_alerts_do_not() -> None:
    class Route:
        def __init__(self) -> None:
            self.kinds: list[str] = []

        async def send(self, notification: object) -> None:
            self.kinds.append(getattr(notification, "kind", ""))

    chat, route = Route(), Route()
    (canary,) = canaries.owed(state_with("one", 1))
    alert = msgspec.structs.replace(canary, kind="opened")

    assert await Deliveries({"chat": chat}, canary=route).send(canary) == (canaries.KIND,)
    assert await Deliveries({"chat": chat}, canary=route).send(alert) == ("chat",)
    assert await Deliveries({"chat": chat}).send(canary) == (NOWHERE,)
    assert (chat.kinds, route.kinds) == (["opened"], ["canary"])


def test_triage_keeps_the_newest_and_owes_it_until_it_got_through() -> None:
    state = state_with("two", 2)
    assert not canaries.delivered("0a-1", state)
    assert canaries.delivered("canary:one", state)
    assert [one.id for one in canaries.owed(state)] == ["canary:two"]
    assert canaries.delivered("canary:two", state)
    assert canaries.owed(state) == []
