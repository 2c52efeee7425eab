import sys
from collections.abc import Callable
from types import FrameType

from alerts.model import Notification, Severity
from streams.index.port import DocKind
from streams.messages import FINDINGS, KEY_EVENTS, REJECTED, VAULT_ACCESS, Effects, Message, Step
from streams.running.memory import MemoryShell
from streams.state import Kind, State
from tests.streams.counting import Count, CountingStep, DictIndex, totals


class Alarm:
    """Counts findings; the first of each value owes a delivery."""

    topic = FINDINGS

    def restore(self, state: State) -> None:
        return

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        ident = message.value.split(b"=")[0]
        count = state.get(Kind.KEY, ident, Count) or Count()
        count.total += 1
        state.put(Kind.KEY, ident, count)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        return

    def reindex(self, message: Message, effects: Effects) -> None:
        return

    def redocument(self, state: State, effects: Effects) -> None:
        return

    def indexed(self, document: object, state: State) -> None:
        return

    def owed(self, state: State) -> list[Notification]:
        return [
            Notification(
                id=ident.decode(), alert_id="", kind="opened", severity=Severity.LOW, subject="", text="", alert={}
            )
            for ident in state.idents(Kind.KEY)
            if (count := state.get(Kind.KEY, ident, Count)) is not None and not count.doc_indexed
        ]

    def owing(self) -> int:
        return 0

    def delivered(
        self, notification_id: str, now_ms: int, state: State, effects: Effects, channels: tuple[str, ...]
    ) -> None:
        count = state.get(Kind.KEY, notification_id.encode(), Count)
        assert count is not None
        count.doc_indexed = 1
        state.put(Kind.KEY, notification_id.encode(), count)


class Inbox:
    def __init__(self) -> None:
        self.ids: list[str] = []

    async def send(self, notification: Notification) -> None:
        self.ids.append(notification.id)


def shell(index: DictIndex, *, notifiers: tuple[Inbox, ...] = (), partitions: int = 4) -> MemoryShell:
    steps: dict[str, Callable[[int], Step]] = {
        KEY_EVENTS: lambda _: CountingStep(),
        VAULT_ACCESS: lambda _: CountingStep(VAULT_ACCESS),
        FINDINGS: lambda _: Alarm(),
    }
    return MemoryShell(
        steps=steps,
        partitions={KEY_EVENTS: partitions, VAULT_ACCESS: partitions},
        index=index,
        notifiers=notifiers,
    )


async def test_messages_run_through_every_step_and_into_the_index() -> None:
    index, inbox = DictIndex(), Inbox()
    pipeline = shell(index, notifiers=(inbox,))
    for number in range(30):
        pipeline.append(KEY_EVENTS, key=b"%d" % (number % 3), value=b"v%d" % (number % 3), append_ms=1_000 + number)
    await pipeline.run()

    counted: dict[str, int] = {}
    for owner in pipeline.owners:
        if owner.key[0] == KEY_EVENTS:
            counted |= totals(owner.state.dump())
    assert counted == {"v0": 10, "v1": 10, "v2": 10}
    assert len(index.ids(DocKind.EVENT)) == 30
    assert {index.kept[DocKind.ALERT, ident].version for ident in ("v0", "v1", "v2")} == {10}
    assert sorted(inbox.ids) == ["v0", "v1", "v2"]


async def test_a_second_run_has_nothing_to_do_and_sends_nothing_again() -> None:
    index, inbox = DictIndex(), Inbox()
    pipeline = shell(index, notifiers=(inbox,))
    for _ in range(3):
        pipeline.append(KEY_EVENTS, key=b"a", value=b"a", append_ms=1)
    await pipeline.run()
    writes = index.writes
    await pipeline.run()
    await pipeline.tick(5_000)

    assert index.writes == writes
    assert inbox.ids == ["a"]


async def test_a_tick_reaches_every_partition_and_its_results_are_cut() -> None:
    pipeline = shell(DictIndex())
    pipeline.append(KEY_EVENTS, key=b"a", value=b"a", append_ms=1_000)
    await pipeline.run()
    await pipeline.tick(120_000)

    owners = [owner for owner in pipeline.owners if totals(owner.state.dump())]
    count = owners[0].state.get(Kind.KEY, b"a", Count)
    assert count is not None
    assert count.ticked_ms == 120_000
    assert {owner.now_ms for owner in pipeline.owners} == {120_000}
    assert not any(owner.dirty for owner in pipeline.owners)


async def test_the_same_input_gives_the_same_output_in_the_same_order() -> None:
    async def outputs() -> list[Message]:
        index = DictIndex()
        pipeline = shell(index)
        index.refusing = {f"{partition}/1" for partition in range(4)}
        for number in range(60):
            pipeline.append(KEY_EVENTS, key=b"%d" % (number % 7), value=b"v%d" % (number % 7), append_ms=number)
            pipeline.append(VAULT_ACCESS, key=b"%d" % (number % 5), value=b"w%d" % (number % 5), append_ms=number)
            if number % 10 == 0:
                await pipeline.run()
                await pipeline.tick(number)
        await pipeline.close()
        return pipeline.messages(REJECTED)

    first = await outputs()

    assert len(first) > 3
    assert await outputs() == first


async def test_applied_and_indexed_messages_are_let_go() -> None:
    pipeline = shell(DictIndex(), partitions=1)
    for number in range(1_000):
        pipeline.append(KEY_EVENTS, key=b"a", value=b"v%d" % number, append_ms=number)
    await pipeline.run()

    assert pipeline.messages(KEY_EVENTS) == []
    assert pipeline.append(KEY_EVENTS, key=b"a", value=b"next", append_ms=2_000) == 1_000


async def test_the_ten_thousandth_idle_tick_of_twenty_partitions_does_no_more_than_the_second() -> None:
    """Counted in calls, not in seconds: work that grows with what is idle shows on the slowest machine."""
    pipeline = shell(DictIndex(), partitions=10)
    pipeline.append(KEY_EVENTS, key=b"a", value=b"a", append_ms=0)
    await pipeline.run()
    await pipeline.tick(0)

    second = await _calls(pipeline, 60_000)
    for minute in range(2, 10_000):
        await pipeline.tick(minute * 60_000)

    assert 0 < await _calls(pipeline, 10_000 * 60_000) <= second


async def _calls(pipeline: MemoryShell, now_ms: int) -> int:
    """Calls of functions within one tick."""
    seen = 0

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal seen
        seen += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        await pipeline.tick(now_ms)
    finally:
        sys.setprofile(None)
    return seen
