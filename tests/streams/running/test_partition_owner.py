import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.model import Notification, Severity
from streams.index.port import DocKind
from streams.index.writer import IndexWriter
from streams.log.statelog import Fenced, MemoryLog, MemoryStateLog
from streams.messages import FINDINGS, KEY_EVENTS, REJECTED, Effects, Message
from streams.running.offsets import Expected, IndexProgress, Place
from streams.running.partition_owner import PartitionOwner
from streams.state import Kind, State
from tests.streams.counting import Count, CountingStep, DictIndex, totals


class Ticking:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class World:
    """One partition's log, the index, and owners that come and go."""

    def __init__(self, held_bytes: int = 1 << 20, step: Callable[[], CountingStep] = CountingStep) -> None:
        self.log = MemoryLog({KEY_EVENTS: 1, FINDINGS: 1, REJECTED: 1})
        self.index = DictIndex()
        self.monotonic = Ticking()
        self.writer = IndexWriter(
            self.index, written=self._written, linger_s=0, first_pause_s=0.0005, held_bytes=held_bytes
        )
        self.owner: PartitionOwner
        self.step = step
        self.sent: list[str] = []
        self.delivering = True

    def append(self, value: bytes) -> None:
        self.log.append(KEY_EVENTS, 0, None, value)

    async def take_over(self) -> PartitionOwner:
        self.owner = PartitionOwner(
            self.step(),
            0,
            log=MemoryStateLog(self.log, KEY_EVENTS, 0),
            index=self.writer,
            monotonic=self.monotonic,
            deliver=self._deliver,
        )
        await self.owner.open(self.log.partition(KEY_EVENTS, 0).start)
        return self.owner

    def apply_all(self) -> None:
        for message in self.log.partition(KEY_EVENTS, 0).read(self.owner.applied, 1 << 30):
            assert self.owner.apply(message) is Place.NEXT

    async def finish(self) -> None:
        """Everything applied, in the index and committed."""
        self.apply_all()
        await self.writer.flush()
        while again := self.owner.again:
            self.owner.reread(
                self.log.partition(KEY_EVENTS, 0).read(again[0], again[0] + 3), min(again[0] + 3, again[1])
            )
            await self.writer.flush()
        await self.owner.cut()
        await self.writer.flush()
        self.owner.redocument()
        await self.writer.flush()
        self.owner.settle()
        await self.owner.cut()

    def outs(self, topic: str = FINDINGS) -> list[bytes]:
        return [message.value for message in self.log.partition(topic, 0).read(0, 1 << 30)]

    def _written(self, key: object, document: object) -> None:
        self.owner.written(document)  # type: ignore[arg-type]

    async def _deliver(self, notification: Notification) -> tuple[str, ...]:
        if self.delivering:
            self.sent.append(notification.id)
        return ("here",) if self.delivering else ()


def message(offset: int, value: bytes = b"a", append_ms: int = 0) -> Message:
    return Message(KEY_EVENTS, 0, offset, append_ms, None, value)


async def test_a_message_that_was_applied_is_skipped_and_counted() -> None:
    owner = await World().take_over()
    owner.apply(message(0))

    assert owner.apply(message(0)) is Place.BEHIND
    assert owner.skipped == 1
    assert totals(owner.state.dump()) == {"a": 1}


async def test_a_hole_is_asked_for_once_and_filled() -> None:
    owner = await World().take_over()
    owner.apply(message(0))

    assert [owner.apply(message(offset)) for offset in (2, 3, 1, 2)] == [
        Place.SEEK,
        Place.DROPPED,
        Place.NEXT,
        Place.NEXT,
    ]
    assert owner.applied == 3
    assert owner.gaps == 0


async def test_the_same_message_first_again_after_the_seek_is_a_true_gap() -> None:
    owner = await World().take_over()

    assert [owner.apply(message(offset)) for offset in (5, 6, 5, 6)] == [
        Place.SEEK,
        Place.DROPPED,
        Place.NEXT,
        Place.NEXT,
    ]
    assert (owner.applied, owner.gaps) == (7, 1)


def test_where_transactions_leave_markers_only_the_first_message_is_doubted() -> None:
    expected = Expected(10, markers=True)

    assert [expected.judge(offset) for offset in (11, 12, 11, 12, 14, 13)] == [
        Place.SEEK,
        Place.DROPPED,
        Place.NEXT,
        Place.NEXT,
        Place.NEXT,
        Place.BEHIND,
    ]


@given(st.sets(st.integers(0, 12)), st.lists(st.integers(0, 14), max_size=20))
def test_whatever_the_consumer_skips_every_message_of_the_log_is_applied_once_in_order(
    missing: set[int], starts: list[int]
) -> None:
    """The consumer may start anywhere at any time; what is truly not in the log is passed over after one seek."""
    log = [offset for offset in range(14) if offset not in missing]
    expected = Expected(0)
    applied = []
    position = 0
    jumps = iter(starts)
    for _ in range(600):
        offset = next((held for held in log if held >= position), None)
        if offset is None:
            break
        place = expected.judge(offset)
        if place is Place.NEXT:
            applied.append(offset)
        position = expected.next if place is Place.SEEK else offset + 1
        if place is Place.NEXT and (jump := next(jumps, None)) is not None:
            position = jump

    assert applied == sorted(set(applied))
    reached = max(applied, default=-1)
    assert applied == [offset for offset in log if offset <= reached]


async def test_a_cut_is_due_a_second_after_the_first_change_and_sooner_with_a_finding() -> None:
    world = World()
    owner = await world.take_over()
    world.monotonic.now_s += 10
    owner.apply(message(0))
    world.monotonic.now_s += 0.9
    owner.apply(message(1))
    assert not owner.cut_due()
    world.monotonic.now_s += 0.1
    assert owner.cut_due()
    assert await owner.cut()

    world.monotonic.now_s += 0.05
    owner.apply(message(2))  # the third: a finding
    assert not owner.cut_due()
    world.monotonic.now_s += 0.06

    assert owner.cut_due()


async def test_nothing_to_do_is_no_cut() -> None:
    owner = await World().take_over()

    owner.tick(59_000)

    assert not owner.dirty
    assert not await owner.cut()


async def test_messages_applied_while_a_commit_is_under_way_belong_to_the_next_cut() -> None:
    world = World()
    owner = await world.take_over()
    gate = asyncio.Event()
    commit = owner._log.commit

    async def slow_commit(*args: object) -> None:
        await gate.wait()
        await commit(*args)  # type: ignore[arg-type]

    owner._log.commit = slow_commit  # type: ignore[assignment, method-assign]
    owner.apply(message(0))
    cutting = asyncio.create_task(owner.cut())
    await asyncio.sleep(0)
    owner.apply(message(1))
    assert not await owner.cut()
    gate.set()
    assert await cutting

    successor = await world.take_over()
    assert successor.applied == 1
    assert totals(successor.state.dump()) == {"a": 1}


async def test_a_late_cut_of_a_paused_owner_is_refused_and_leaves_no_trace() -> None:
    world = World()
    for value in (b"a", b"a", b"a"):
        world.append(value)
    paused = await world.take_over()
    world.apply_all()
    successor = await world.take_over()
    world.apply_all()
    await successor.cut()

    try:
        await paused.cut()
    except Fenced:
        refused = True
    else:
        refused = False

    assert refused
    assert not paused.cut_due()
    assert world.outs() == [b"a=3"]


async def test_time_is_the_largest_append_time_and_is_moved_on_by_ticks() -> None:
    world = World()
    owner = await world.take_over()
    owner.apply(message(0, append_ms=5_000))
    owner.apply(message(1, append_ms=4_000))
    assert owner.now_ms == 5_000
    owner.tick(3_000)
    assert owner.now_ms == 5_000
    owner.tick(61_000)
    await owner.cut()

    successor = await world.take_over()

    assert successor.now_ms == 61_000
    count = successor.state.get(Kind.KEY, b"a", Count)
    assert count is not None
    assert count.ticked_ms == 61_000


async def test_a_cut_does_not_wait_for_the_index_and_the_successor_reads_again_what_is_missing() -> None:
    world = World()
    for value in (b"a", b"b", b"a"):
        world.append(value)
    owner = await world.take_over()
    world.index.down = True
    world.apply_all()
    await owner.cut()
    assert (owner.applied, owner.indexed) == (3, 0)

    successor = await world.take_over()
    assert successor.again == (0, 3)
    world.index.down = False
    await world.finish()

    assert successor.indexed == 3
    assert world.index.ids(DocKind.EVENT) == ["0/0", "0/1", "0/2"]
    assert world.index.kept[DocKind.ALERT, "a"].version == 2
    assert totals(successor.state.dump()) == {"a": 2, "b": 1}


async def test_documents_beyond_the_memory_bound_are_read_again_when_the_index_answers() -> None:
    world = World(held_bytes=100)
    owner = await world.take_over()
    world.index.down = True
    for number in range(20):
        world.append(b"v%d" % number)
    world.apply_all()
    await owner.cut()
    assert owner.again is not None

    world.index.down = False
    await world.finish()

    assert len(world.index.ids(DocKind.EVENT)) == 20
    assert owner.indexed == 20


async def test_a_versioned_document_is_written_after_the_cut_that_holds_its_record() -> None:
    world = World()
    world.append(b"a")
    owner = await world.take_over()
    world.apply_all()
    await world.writer.flush()
    assert world.index.ids(DocKind.ALERT) == []

    await owner.cut()
    await world.writer.flush()

    assert world.index.ids(DocKind.ALERT) == ["a"]


async def test_a_refused_document_goes_to_rejected_and_is_not_tried_again() -> None:
    world = World()
    world.index.refusing = {"0/0"}
    world.append(b"a")
    world.append(b"b")
    owner = await world.take_over()
    world.apply_all()
    await world.writer.flush()
    owner.settle()
    await owner.cut()
    await world.writer.flush()

    assert len(world.outs(REJECTED)) == 1
    assert b"document_refused" in world.outs(REJECTED)[0]
    assert b"document_refused" in world.outs(FINDINGS)[0]
    assert owner.indexed == 2
    assert world.index.ids(DocKind.REJECTED) == ["key-events/0/0"]


def test_the_index_position_never_passes_what_must_be_read_again() -> None:
    progress = IndexProgress(4, 8, skip=(5,))
    progress.advance(applied=10, unconfirmed=None)
    assert (progress.indexed, progress.again, progress.skip) == (4, (4, 8), {5})
    progress.read_again(6)
    progress.advance(applied=10, unconfirmed=None)
    assert (progress.indexed, progress.skip) == (6, set())
    progress.lost(9)
    progress.read_again(10)
    progress.advance(applied=10, unconfirmed=9)

    assert (progress.indexed, progress.again) == (9, None)


class OwingStep(CountingStep):
    """Owes one delivery for each value it has seen, until it was sent."""

    def owed(self, state: State) -> list[Notification]:
        return [
            Notification(
                id=ident.decode(), alert_id="x", kind="opened", severity=Severity.HIGH, subject="", text="", alert={}
            )
            for ident in state.idents(Kind.KEY)
            if state.get(Kind.SEEN, ident, Count) is None
        ]

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[bytes] = set()

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        super().apply(message, now_ms, state, effects)
        self.seen.add(message.value)

    def owing(self) -> int:
        return len(self.seen)

    def delivered(
        self, notification_id: str, now_ms: int, state: State, effects: Effects, channels: tuple[str, ...]
    ) -> None:
        state.put(Kind.SEEN, notification_id.encode(), Count())
        self.seen.discard(notification_id.encode())


async def test_a_delivery_waits_for_the_cut_that_owes_it_and_is_marked_in_the_next() -> None:
    world = World(step=OwingStep)
    world.append(b"a")
    owner = await world.take_over()
    world.apply_all()
    await owner.send_owed()
    assert world.sent == []
    await owner.cut()
    await owner.send_owed()
    await owner.send_owed()
    assert world.sent == ["a"]
    await owner.cut()

    await (await world.take_over()).send_owed()

    assert world.sent == ["a"]


async def test_a_cut_that_a_new_delivery_waits_for_is_due_at_once() -> None:
    world = World(step=OwingStep)
    owner = await world.take_over()
    world.monotonic.now_s += 10
    owner.apply(message(0))
    assert owner.cut_due()
    await owner.cut()

    world.monotonic.now_s += 0.2
    owner.apply(message(1))  # the same value: what is owed is owed already
    assert not owner.cut_due()
    owner.apply(message(2, b"b"))

    assert owner.cut_due()


async def test_a_delivery_that_was_sent_but_not_marked_is_sent_again() -> None:
    world = World(step=OwingStep)
    world.append(b"a")
    owner = await world.take_over()
    world.apply_all()
    await owner.cut()
    await owner.send_owed()

    await (await world.take_over()).send_owed()

    assert world.sent == ["a", "a"]


async def test_a_failed_delivery_is_tried_again_later() -> None:
    world = World(step=OwingStep)
    world.append(b"a")
    owner = await world.take_over()
    world.apply_all()
    await owner.cut()
    world.delivering = False
    await owner.send_owed()
    world.delivering = True
    await owner.send_owed()
    assert world.sent == []
    world.monotonic.now_s += 10
    await owner.send_owed()

    assert world.sent == ["a"]


OPERATIONS = st.sampled_from(["append", "append", "apply", "apply", "cut", "tick", "crash", "down", "up", "breathe"])


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, max_size=60), st.sampled_from([60, 400, 1 << 20]))
def test_whatever_happens_state_outputs_and_documents_end_as_in_a_calm_run(
    operations: list[str], held_bytes: int
) -> None:
    async def storm() -> None:
        world = World(held_bytes)
        await world.take_over()
        appended = 0
        for operation in operations:
            match operation:
                case "append":
                    world.append(b"v%d" % (appended % 3))
                    appended += 1
                case "apply":
                    for held in world.log.partition(KEY_EVENTS, 0).read(world.owner.applied, world.owner.applied + 2):
                        world.owner.apply(held)
                case "cut":
                    await world.owner.cut()
                case "tick":
                    world.owner.tick(world.owner.now_ms + 30_000)
                case "crash":
                    await world.take_over()
                case "down" | "up":
                    world.index.down = operation == "down"
                case _:
                    await asyncio.sleep(0.001)
                    world.owner.settle()
        world.index.down = False
        await world.finish()

        values = [b"v%d" % (number % 3) for number in range(appended)]
        assert totals(world.owner.state.dump()) == {v.decode(): values.count(v) for v in set(values)}
        assert world.outs() == [
            b"%s=%d" % (value, values[: place + 1].count(value))
            for place, value in enumerate(values)
            if values[: place + 1].count(value) % 3 == 0
        ]
        assert world.index.ids(DocKind.EVENT) == sorted(f"0/{number}" for number in range(appended))
        assert {ident: world.index.kept[DocKind.ALERT, ident].version for ident in world.index.ids(DocKind.ALERT)} == {
            value.decode(): values.count(value) for value in set(values)
        }
        assert world.owner.indexed == appended
        await world.writer.close()

    asyncio.run(storm())
