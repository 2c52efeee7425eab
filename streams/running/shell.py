"""The owners of one worker's partitions on Kafka: taken over at a rebalance, cut and ticked by the machine's clock.

Knows nothing of Faust: `app` brings messages and assignments. Whatever leaves this process without a right to go on
(fenced, a commit that never ends, an error in a step) ends it: the orchestrator starts it again, and the state log
tells the next owner where to begin.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn

import structlog

from alerts.model import Notification
from alerts.system import system_finding
from cryptocore.clock import Clock
from streams.index.port import Document
from streams.index.writer import IndexWriter, OwnerKey
from streams.log.statelog import Fenced, StateLog
from streams.messages import CORRELATE, FINDINGS, SOURCES, WHO, Message, Step
from streams.running.backlog import LATE_MS, Backlog
from streams.running.gate import Gate
from streams.running.index_watch import IndexWatch
from streams.running.offsets import Place
from streams.running.owed import Deliver
from streams.running.partition_owner import PartitionOwner
from streams.running.rereading import Rereader

PULSE_S: Final = 0.05
TICK_S: Final = 1.0
OPEN_AT_ONCE: Final = 8
COMMIT_WITHIN_S: Final = 60.0
"""A change that is not committed after this long ends the process (design: takeover)."""
LOW_ROOM: Final = 16 * 1024 * 1024
"""Below so many bytes of room, agents wait while the index answers."""
CLOSE_WITHIN_S: Final = 5.0

MARKED: Final = frozenset({CORRELATE, WHO, SOURCES, FINDINGS})
"""Inputs that workers write in transactions."""

_log = structlog.get_logger(__name__)


class KafkaShell:
    """Everything one worker owns; all methods belong to one event loop."""

    def __init__(
        self,
        *,
        steps: Mapping[str, Callable[[int], Step]],
        state_log: Callable[[str, int], StateLog],
        writer: IndexWriter,
        rereader: Rereader,
        clock: Clock,
        die: Callable[[str], NoReturn],
        deliver: Deliver | None = None,
    ) -> None:
        self.owners: dict[OwnerKey, PartitionOwner] = {}
        self.messages: Counter[str] = Counter()
        self.strays = 0
        self.takeovers = 0
        self._steps = steps
        self._state_log = state_log
        self._writer = writer
        self._clock = clock
        self._index_watch = IndexWatch(writer, rereader, monotonic=clock.monotonic)
        self._die = die
        self._deliver = deliver
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[OwnerKey] = set()
        self._backlog = Backlog()
        self.gate = Gate()
        self._yielded_s = 0.0
        self.pulsed_s = float("-inf")
        writer.written = self._written

    # Assignments

    def let_go(self) -> None:
        """Stop owning, at once: from here on a successor may fence what is under way, and that is no fault.

        To be called while the group waits for this worker to give its partitions up.
        """
        for owner in self.owners.values():
            owner.release()
            self._spawn(self._close(owner))
        self.owners = {}
        self._backlog.clear()
        self.gate.clear()

    async def take_over(self, assigned: Iterable[OwnerKey], log_starts: Mapping[OwnerKey, int]) -> None:
        """Own exactly `assigned`, each made afresh; their state is read and nothing has been applied yet.

        Numbers as in docs/decisions: the old owners are let go (1), predecessors are fenced and the state is read (2,
        3); seeking to each owner's `applied` (4) is the caller's.
        """
        began = time.monotonic()
        self.let_go()
        limit = asyncio.Semaphore(OPEN_AT_ONCE)
        opened = [self._make(key) for key in sorted(assigned)]
        try:
            await asyncio.gather(*(self._open(owner, log_starts[owner.key], limit) for owner in opened))
        except BaseException:  # the group may have moved on meanwhile
            for owner in opened:
                self._spawn(self._close(owner))
            raise
        self.owners = {owner.key: owner for owner in opened}
        self.takeovers += 1
        _log.info("took over", partitions=len(opened), seconds=round(time.monotonic() - began, 3))
        for owner in opened:
            await self._check_log_start(owner, log_starts[owner.key])
            self._send_owed(owner)

    def _make(self, key: OwnerKey) -> PartitionOwner:
        topic, partition = key
        return PartitionOwner(
            self._steps[topic](partition),
            partition,
            log=self._state_log(topic, partition),
            index=self._writer,
            monotonic=self._clock.monotonic,
            deliver=None if self._deliver is None else self._send_marked,
            markers=topic in MARKED,
        )

    async def _open(self, owner: PartitionOwner, log_start: int, limit: asyncio.Semaphore) -> None:
        async with limit:
            await owner.open(log_start)
        self._backlog.late(owner.key, self._clock.monotonic())

    async def _check_log_start(self, owner: PartitionOwner, log_start: int) -> None:
        """Stop where the log has deleted what was never applied: an audit gap is reported, never jumped over."""
        if owner.applied >= log_start:
            return
        topic, partition = owner.key
        problem = f"{topic}/{partition} begins at {log_start}, and {owner.applied} was never applied"
        owner.report(
            system_finding(
                "audit_gap",
                summary=f"The log has deleted messages before they were read: {problem}",
                effective_ms=self._now_ms(),
                key=f"{topic}/{partition}",
                facts={"log_start": str(log_start), "applied": str(owner.applied)},
            )
        )
        await owner.cut()
        self._die(f"audit gap: {problem}")

    async def _close(self, owner: PartitionOwner) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await owner.close()
        except Exception:  # noqa: BLE001 - a producer that was fenced may say anything; nobody listens to it any more
            _log.info("left behind", owner=owner.key, exc_info=True)

    # Messages

    async def take(self, message: Message) -> int | None:
        """Apply one message; returns the offset to seek to when something before it is missing."""
        key = (message.topic, message.partition)
        owner = self.owners.get(key)
        if owner is None:
            self.strays += 1
            return None
        place = owner.apply(message)
        if place is Place.SEEK:
            return owner.applied
        self.messages[message.topic] += place is Place.NEXT
        now_s = self._clock.monotonic()
        if self._now_ms() - message.append_ms > LATE_MS:
            self._backlog.late(key, now_s)
        if owner.cut_due():
            self._spawn(self._cut(owner))
        if owner.rejections and (opens_s := self.gate.opens_s(key, owner.rejections, now_s)) > now_s:
            await self._hold(owner, opens_s)
        if self._writer.room() < LOW_ROOM:
            await self._wait_for_room(key)
        elif now_s - self._yielded_s > PULSE_S / 10:
            self._yielded_s = now_s
            await asyncio.sleep(0)
        return None

    async def _hold(self, owner: PartitionOwner, opens_s: float) -> None:
        """Take nothing more of a flood that nobody can read until its minute is over."""
        _log.warning("stopped for a while", owner=owner.key, rejections=owner.rejections)
        self._backlog.blocked.add(owner.key)
        while not owner.closed and self._clock.monotonic() < opens_s:  # noqa: ASYNC110 - a closed owner ends it too
            await asyncio.sleep(PULSE_S)
        self._backlog.blocked.discard(owner.key)

    async def _wait_for_room(self, key: OwnerKey) -> None:
        """Let the index catch up; when it does not answer at all, detection goes on without it."""
        self._backlog.blocked.add(key)
        while self._writer.room() < LOW_ROOM and self._writer.unavailable_since is None:  # noqa: ASYNC110 - room has no event
            await asyncio.sleep(PULSE_S / 10)
        self._backlog.blocked.discard(key)

    # The clock

    async def run(self) -> None:
        """Cut, tick, settle and read again until cancelled."""
        ticked_s = float("-inf")
        while True:
            now_s = self.pulsed_s = self._clock.monotonic()
            if now_s - ticked_s >= TICK_S:
                ticked_s = now_s
                self._tick(now_s)
            for owner in self.owners.values():
                if owner.cut_due():
                    self._spawn(self._cut(owner))
            await asyncio.sleep(PULSE_S)

    def _tick(self, now_s: float) -> None:
        now_ms = self._now_ms()
        behind = self._backlog.behind(now_s)
        for owner in self.owners.values():
            owner.tick(owner.now_ms if owner.key[0] in behind else now_ms)
            owner.tick_reports()
            owner.settle()
            self._send_owed(owner)
            if owner.waiting_s > COMMIT_WITHIN_S:
                self._die(f"no commit of {owner.key} for {COMMIT_WITHIN_S:.0f} s")
        self._index_watch.look(self.owners, now_ms, self._spawn)

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1000

    # Cuts, documents, deliveries

    async def _cut(self, owner: PartitionOwner) -> None:
        try:
            await owner.cut()
        except Fenced as problem:
            if not owner.closed:
                self._die(f"fenced: {problem}")
        except Exception as problem:  # noqa: BLE001 - whatever it was, this owner is ahead of its log
            if not owner.closed:
                _log.error("cut failed", owner=owner.key, exc_info=True)
                self._die(f"cut of {owner.key} failed: {type(problem).__name__}")
        else:
            self._send_owed(owner)

    def _send_owed(self, owner: PartitionOwner) -> None:
        if owner.owes and owner.key not in self._sending:
            self._sending.add(owner.key)
            self._spawn(self._send(owner))

    async def _send_marked(self, notification: Notification) -> tuple[str, ...]:
        assert self._deliver is not None
        return await self._deliver(self._index_watch.marked(notification, self._now_ms()))

    async def _send(self, owner: PartitionOwner) -> None:
        try:
            await owner.send_owed()
        finally:
            self._sending.discard(owner.key)

    def _written(self, key: OwnerKey, document: Document) -> None:
        owner = self.owners.get(key)
        if owner is not None:
            owner.written(document)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("task failed", exc_info=problem)
            self._die(f"{type(problem).__name__}: {problem}")

    # The end

    async def finish(self, within_s: float) -> None:
        """Cut what is applied and write what is held, as far as it goes in the time; then let go."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._last_cut(owner) for owner in self.owners.values()))
                await self._writer.flush()
                for owner in self.owners.values():
                    owner.settle()
                await asyncio.gather(*(self._last_cut(owner) for owner in self.owners.values()))
        except TimeoutError:
            _log.warning("stopped before everything was written; the next owner begins where the state log says")
        owners, self.owners = self.owners, {}
        await asyncio.gather(*(self._close(owner) for owner in owners.values()))

    async def _last_cut(self, owner: PartitionOwner) -> None:
        while owner.cutting:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(PULSE_S / 10)
        await self._cut(owner)
