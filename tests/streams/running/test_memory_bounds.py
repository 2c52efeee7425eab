"""What a worker holds is bounded by its budget and its records, not by how long the index is away or a load lasts."""

import gc
import tracemalloc

import pytest

from alerts.model import AccessClass, AccessOutcome, PrincipalKind
from alerts.thresholds import HOUR_MS, Limits
from bench.sealed_load import Load
from cryptocore.clock import SystemClock
from streams.conduct.observations import Seen, encode
from streams.conduct.who import WhoStep
from streams.index.port import DocKind
from streams.index.writer import IndexWriter
from streams.log.statelog import MemoryLog, MemoryStateLog
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, REJECTED, SOURCES, WHO, Effects, Message
from streams.running.partition_owner import PartitionOwner
from streams.state import MAX_LIVE, Kind, State
from streams.trail.keys import KeysStep
from tests.streams.counting import DictIndex

BUDGET = 256 * 1024
EVENTS_A_BATCH = 50
PRINCIPALS = 200
T0 = 1_795_000_000_000


@pytest.fixture(scope="module")
def load() -> Load:
    return Load(batches=480, keys=64, events_a_batch=EVENTS_A_BATCH, actors=50)


class Outage:
    """One partition of key-events on a log in memory, and an index that is away until `index.down` is taken back."""

    def __init__(self, load: Load) -> None:
        self.log = MemoryLog(dict.fromkeys((KEY_EVENTS, CORRELATE, FINDINGS, REJECTED, SOURCES, WHO), 1))
        self.log.now_ms = SystemClock().now_us() // 1000
        for partition, batch in load.batches:
            if partition == 0:
                self.log.append(KEY_EVENTS, 0, None, batch.value, tuple(batch.headers()))
        self.index = DictIndex()
        self.index.down = True
        self.writer = IndexWriter(self.index, linger_s=0, first_pause_s=0.0005, held_bytes=BUDGET)
        step = KeysStep(registry=load.registry, limits=Limits(), generation=1, partition=0)
        self.owner = PartitionOwner(
            step,
            0,
            log=MemoryStateLog(self.log, KEY_EVENTS, 0),
            index=self.writer,
            monotonic=lambda: 0.0,
        )

    def messages(self, since: int, until: int) -> list[Message]:
        return self.log.partition(KEY_EVENTS, 0).read(since, until)

    @property
    def end(self) -> int:
        return self.log.partition(KEY_EVENTS, 0).end

    async def apply(self, until: int) -> None:
        for message in self.messages(self.owner.applied, until):
            self.owner.apply(message)
            assert self.writer.held <= BUDGET
        await self.owner.cut()
        for topic in (CORRELATE, FINDINGS, SOURCES, WHO):  # the log is no part of the worker's memory
            self.log.partition(topic, 0).trim(1 << 40)


async def test_documents_of_a_long_outage_take_their_budget_and_no_more(load: Load) -> None:
    outage = Outage(load)
    await outage.owner.open()
    await outage.apply(outage.end // 3)
    gc.collect()
    tracemalloc.start()
    await outage.apply(2 * outage.end // 3)
    gc.collect()
    settled, _ = tracemalloc.get_traced_memory()
    await outage.apply(outage.end)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - settled
    tracemalloc.stop()
    await outage.writer.close()

    assert outage.owner.applied == outage.end
    assert grown < BUDGET / 2


async def test_all_that_was_let_go_in_the_outage_is_in_the_index_afterwards(load: Load) -> None:
    outage = Outage(load)
    await outage.owner.open()
    await outage.apply(outage.end)
    outage.index.down = False
    await outage.writer.flush()
    outage.owner.settle()
    while again := outage.owner.again:
        until = min(again[0] + 3, again[1])
        outage.owner.reread(outage.messages(again[0], until), until)
        assert outage.writer.held <= BUDGET
        await outage.writer.flush()
        outage.owner.settle()

    events = sum(batch.value.count(b"\n") for partition, batch in load.batches if partition == 0)
    assert len(outage.index.ids(DocKind.EVENT)) == events
    assert outage.owner.indexed == outage.end


async def test_keys_stay_decoded_until_the_cut_only_when_they_are_many() -> None:
    many = Load(batches=400, keys=6 * MAX_LIVE, events_a_batch=100, told=False)
    outage = Outage(many)
    await outage.owner.open()
    await outage.apply(outage.end)
    state = outage.owner.state

    assert state.count(Kind.KEY) > MAX_LIVE
    assert sum(len(state.records(kind).live) for kind in Kind) <= MAX_LIVE


def test_a_key_takes_no_more_however_often_it_is_used() -> None:
    sizes = {}
    for batches in (40, 400):
        outage = Outage(Load(batches=batches, keys=8, events_a_batch=EVENTS_A_BATCH, actors=3))
        step, state = outage.owner.step, State()
        for message in outage.messages(0, outage.end):
            step.apply(message, message.append_ms, state, Effects())
        state.cut()
        sizes[batches] = max(len(raw) for key, raw in state.dump().items() if key[0] == Kind.KEY)

    assert sizes[400] <= sizes[40] + 16  # the digits of counters


@pytest.mark.parametrize("hours", [3, 12])
def test_principals_keep_a_baseline_and_their_open_bins(hours: int) -> None:
    step, state, now_ms = WhoStep(limits=Limits()), State(), T0
    for offset in range(PRINCIPALS * hours * 4):  # each four times an hour
        now_ms = T0 + offset * HOUR_MS // (4 * PRINCIPALS)
        step.apply(seen(offset, now_ms), now_ms, state, Effects())
        step.tick(now_ms, state, Effects())
    state.cut()

    assert state.count(Kind.PRINCIPAL) == PRINCIPALS
    assert state.count(Kind.BIN) <= 4 * PRINCIPALS


def seen(offset: int, now_ms: int) -> Message:
    said = Seen(
        v=1,
        access_id=f"{offset:032x}",
        principal=f"tid/{offset % PRINCIPALS:08x}",
        kind=PrincipalKind.WORKLOAD,
        vault="kv-prod",
        object_kind="key",
        object_name="kek",
        operation="KeyUnwrap",
        access_class=AccessClass.USE,
        outcome=AccessOutcome.SUCCEEDED,
        time_us=now_ms * 1000,
        append_ms=now_ms,
    )
    return Message(WHO, 0, offset, now_ms, None, encode(said), ())
