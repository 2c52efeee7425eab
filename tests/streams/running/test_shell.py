import asyncio
from typing import NoReturn, cast

import msgspec
import pytest

from alerts.delivery import DeliveryFailed
from alerts.model import FindingMessage, Notification, Severity
from streams.alerting.deliveries import Deliveries
from streams.index.writer import IndexWriter
from streams.log.statelog import MemoryLog, MemoryStateLog
from streams.messages import FINDINGS, KEY_EVENTS, REJECTED, SOURCES, Effects, Message
from streams.rejected import reject
from streams.running.backlog import LATE_FOR_S
from streams.running.gate import MOST_A_MINUTE, WINDOW_S
from streams.running.index_watch import UNAVAILABLE_AFTER_S
from streams.running.rereading import Rereader
from streams.running.shell import PULSE_S, KafkaShell
from streams.running.watchdog import STUCK_AFTER_S, Ends, Watchdog
from streams.state import State
from tests.streams.counting import CountingStep, DictIndex
from tests.streams.running.test_memory import Alarm

HOUR_MS = 3_600_000
KEYS = (KEY_EVENTS, 0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def now_us(self) -> int:
        return int(self.now_s * 1_000_000)

    def now_ms(self) -> int:
        return self.now_us() // 1000

    def monotonic(self) -> float:
        return self.now_s


class Died(Exception):
    pass


class World:
    """A shell over logs in memory, with a clock that a test moves."""

    def __init__(self) -> None:
        self.log = MemoryLog({KEY_EVENTS: 1, SOURCES: 1, FINDINGS: 1, REJECTED: 1})
        self.clock = Clock()
        self.deaths: list[str] = []
        self.writer = IndexWriter(DictIndex(), linger_s=0)
        self.shell = self.make()

    def make(self) -> KafkaShell:
        return KafkaShell(
            steps={KEY_EVENTS: lambda _: CountingStep(), SOURCES: lambda _: CountingStep(SOURCES)},
            state_log=lambda topic, partition: MemoryStateLog(self.log, topic, partition),
            writer=self.writer,
            rereader=Rereader(full_name=str, connection={}),
            clock=self.clock,
            die=self.die,
        )

    def die(self, reason: str) -> NoReturn:
        self.deaths.append(reason)
        raise Died(reason)

    async def own(self, *keys: tuple[str, int], start: int = 0) -> None:
        await self.shell.take_over(keys, dict.fromkeys(keys, start))

    def tick(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.shell._tick(self.clock.now_s)

    def message(self, offset: int, *, ago_ms: int = 0) -> Message:
        return Message(KEY_EVENTS, 0, offset, self.clock.now_ms() - ago_ms, None, b"a")

    def findings(self) -> list[FindingMessage]:
        held = self.log.partition(FINDINGS, 0).read(0, 99)
        return [msgspec.json.decode(message.value, type=FindingMessage) for message in held]


async def test_while_there_is_a_backlog_the_machines_clock_does_not_count() -> None:
    """A worker that comes back after an hour must not take the hour for silence."""
    world = World()
    await world.own(KEYS, (SOURCES, 0))
    world.tick(LATE_FOR_S + 1)
    assert world.shell.owners[KEYS].now_ms == world.clock.now_ms()
    await world.shell.take(world.message(0, ago_ms=-HOUR_MS))  # the clock of the log is the one that counts
    world.clock.now_s += 2 * HOUR_MS / 1000
    await world.shell.take(world.message(1, ago_ms=HOUR_MS))
    before_ms = world.shell.owners[SOURCES, 0].now_ms
    world.tick(1)

    assert world.shell.owners[KEYS].now_ms < world.clock.now_ms() - HOUR_MS // 2
    assert world.shell.owners[SOURCES, 0].now_ms == before_ms
    world.tick(LATE_FOR_S + 1)
    assert {owner.now_ms for owner in world.shell.owners.values()} == {world.clock.now_ms()}


async def test_half_a_minute_without_the_index_is_reported_once_a_minute() -> None:
    world = World()
    await world.own(KEYS)
    world.writer.unavailable_since = world.clock.now_s
    world.tick(UNAVAILABLE_AFTER_S - 1)
    await world.shell.owners[KEYS].cut()
    assert world.findings() == []
    world.tick(2)
    world.tick(2)
    await world.shell.owners[KEYS].cut()

    assert [message.finding.rule_id for message in world.findings()] == ["index_unavailable"]


async def test_messages_deleted_before_they_were_applied_are_reported_and_end_the_worker() -> None:
    world = World()
    await world.own(KEYS)
    await world.shell.take(world.message(0))
    await world.shell.owners[KEYS].cut()

    with pytest.raises(Died):
        await world.own(KEYS, start=5)

    assert [message.finding.rule_id for message in world.findings()] == ["audit_gap"]
    assert "begins at 5, and 1 was never applied" in world.deaths[0]


async def test_a_partition_without_a_position_begins_where_the_log_begins() -> None:
    world = World()

    await world.own(KEYS, start=5)

    assert world.shell.owners[KEYS].applied == 5


async def test_who_is_fenced_ends_unless_it_has_let_go_before() -> None:
    world = World()
    await world.own(KEYS)
    await world.shell.take(world.message(0))
    paused, owner = world.shell, world.shell.owners[KEYS]
    world.shell = world.make()
    await world.own(KEYS)
    with pytest.raises(Died, match="fenced"):
        await paused._cut(owner)

    await world.shell.take(world.message(0))
    owner = world.shell.owners[KEYS]
    world.shell.let_go()
    await MemoryStateLog(world.log, *KEYS).open(State())
    await world.shell._cut(owner)

    assert len(world.deaths) == 1
    assert world.shell.owners == {}


async def test_a_message_of_a_partition_that_was_let_go_is_not_applied() -> None:
    world = World()
    await world.own(KEYS)
    owner = world.shell.owners[KEYS]
    world.shell.let_go()

    await world.shell.take(world.message(0))

    assert (owner.applied, world.shell.strays) == (0, 1)


async def test_a_hole_is_answered_with_the_offset_to_seek_to() -> None:
    world = World()
    await world.own(KEYS)

    assert await world.shell.take(world.message(3)) == 0
    assert await world.shell.take(world.message(0)) is None


async def test_a_change_that_cannot_be_committed_for_a_minute_ends_the_worker() -> None:
    world = World()
    await world.own(KEYS)
    await world.shell.take(world.message(0))
    world.tick(59)

    with pytest.raises(Died, match="no commit"):
        world.tick(2)


async def test_what_is_applied_is_committed_and_written_at_the_end() -> None:
    world = World()
    await world.own(KEYS)
    await world.shell.take(world.message(0))
    await world.shell.finish(5)

    await world.own(KEYS)

    assert world.shell.owners[KEYS].applied == 1
    assert world.shell.owners[KEYS].indexed == 1


def test_the_watchdog_ends_a_worker_that_applies_nothing_of_a_partition_that_grows() -> None:
    world = World()
    watchdog = Watchdog(cast("Ends", None), world.shell, die=world.die, monotonic=world.clock.monotonic)
    watchdog.look({KEYS: (5, 5)})
    world.clock.now_s += STUCK_AFTER_S + 1
    watchdog.look({KEYS: (5, 5)})  # nothing came: nothing is stuck
    watchdog.look({KEYS: (6, 9)})
    world.clock.now_s += STUCK_AFTER_S - 1
    watchdog.look({KEYS: (6, 12)})
    world.clock.now_s += 2

    with pytest.raises(Died, match="grown to 12"):
        watchdog.look({KEYS: (6, 12)})


def test_a_message_that_just_came_after_a_long_silence_is_not_stuck() -> None:
    world = World()
    watchdog = Watchdog(cast("Ends", None), world.shell, die=world.die, monotonic=world.clock.monotonic)
    watchdog.look({KEYS: (0, 0)})
    for _ in range(30):
        world.clock.now_s += STUCK_AFTER_S / 12
        watchdog.look({KEYS: (0, 0)})
    world.clock.now_s += STUCK_AFTER_S / 12

    watchdog.look({KEYS: (0, 1)})

    world.clock.now_s += STUCK_AFTER_S
    with pytest.raises(Died, match="grown to 1"):
        watchdog.look({KEYS: (0, 1)})


class Channel:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.down = False

    async def send(self, notification: Notification) -> None:
        if self.down:
            raise DeliveryFailed("it is down", retryable=True)
        self.sent.append(notification.id)


async def test_a_channel_that_was_down_is_tried_again_and_the_others_are_not_told_twice() -> None:
    chat, page = Channel(), Channel()
    page.down = True
    deliveries = Deliveries({"chat": chat, "page": page})
    notification = Notification(
        id="n1", alert_id="a", kind="opened", severity=Severity.HIGH, subject="s", text="t", alert={}
    )
    assert await deliveries.send(notification) == ()
    page.down = False

    assert await deliveries.send(notification) == ("chat", "page")
    assert (chat.sent, page.sent) == (["n1"], ["n1"])


class Refusing(CountingStep):
    """Takes nothing."""

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        reject(message, "seal_invalid", "kt-sig", "does not hold", now_ms, effects)


async def test_a_flood_of_what_cannot_be_taken_stops_its_agent_until_the_minute_is_over() -> None:
    world = World()
    world.shell._steps = {KEY_EVENTS: lambda _: Refusing()}
    await world.own(KEYS)
    for offset in range(MOST_A_MINUTE):
        await world.shell.take(world.message(offset))
        world.clock.now_s += 0.001
    assert world.shell.gate.holds == 0

    taking = asyncio.create_task(world.shell.take(world.message(MOST_A_MINUTE)))
    await asyncio.sleep(3 * PULSE_S)
    held = not taking.done()
    world.clock.now_s += WINDOW_S
    await asyncio.wait_for(taking, 2)
    after = asyncio.create_task(world.shell.take(world.message(MOST_A_MINUTE + 1)))
    await asyncio.wait_for(after, 2)

    assert held
    assert world.shell.gate.holds == 1
    assert world.shell.owners[KEYS].applied == MOST_A_MINUTE + 2


async def test_an_agent_that_is_stopped_lets_go_when_its_partition_goes_to_somebody_else() -> None:
    world = World()
    world.shell._steps = {KEY_EVENTS: lambda _: Refusing()}
    await world.own(KEYS)
    for offset in range(MOST_A_MINUTE):
        await world.shell.take(world.message(offset))
    taking = asyncio.create_task(world.shell.take(world.message(MOST_A_MINUTE)))
    await asyncio.sleep(PULSE_S)

    world.shell.let_go()

    await asyncio.wait_for(taking, 2)


async def test_while_the_index_is_away_alerts_go_out_and_say_that_their_evidence_is_not_there_yet() -> None:
    world = World()
    sent: list[Notification] = []

    async def deliver(notification: Notification) -> tuple[str, ...]:
        sent.append(notification)
        return ("chat",)

    world.shell._deliver = deliver
    world.shell._steps = {FINDINGS: lambda _: Alarm()}
    await world.own((FINDINGS, 0))

    async def alarm(offset: int, value: bytes) -> None:
        await world.shell.take(Message(FINDINGS, 0, offset, world.clock.now_ms(), None, value))
        owner = world.shell.owners[FINDINGS, 0]
        await world.shell._cut(owner)
        async with asyncio.timeout(2):
            while not any(one.id == value.decode() for one in sent):  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.01)

    await alarm(0, b"before")
    world.writer.unavailable_since = world.clock.monotonic()
    await alarm(1, b"soon")
    world.clock.now_s += UNAVAILABLE_AFTER_S
    await alarm(2, b"during")
    world.writer.unavailable_since = None
    await alarm(3, b"after")

    marked = {one.id: "evidence not indexed yet" in one.text for one in sent}
    assert marked == {"before": False, "soon": False, "during": True, "after": False}
    assert [one.alert.get("evidence_indexed") for one in sent] == [None, None, False, None]
    assert "1970-01-12 13:46:40 UTC" in sent[2].text
