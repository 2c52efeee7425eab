"""What a worker holds: bytes a key and a principal, and whether it stays flat while the index is away.

Keys and principals are state records as the steps write them, in a process of their own. `worker_outage_…` is a worker
with a million keys whose index answers nobody, given as many events as fill its budget for documents many times over:
an hour at 2,000 events a second is more events, but not more memory, once the budget is full. `_growth` is what the
second half of the load added to the first: the uses that keys remember, up to their bound, and callers met anew.
"""

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection

from alerts.model import AccessClass, AccessOutcome, PrincipalKind
from alerts.thresholds import Limits
from bench.result import Result
from bench.sealed_load import USES_BEFORE, Load
from bench.worker_process import rss_mib
from bench.workers import applied, deployment, remember_keys, running, send, serving
from streams.conduct.observations import Seen, encode
from streams.conduct.who import WhoStep
from streams.index.writer import HELD_BYTES
from streams.messages import KEY_EVENTS, WHO, Effects, Message
from streams.state import Kind, State
from streams.trail.key_history import KeyHistory
from tests.servers.kafka import KafkaServer

KEYS = 1_000_000
PRINCIPALS = 100_000
BATCHES = 1_200
MIB = 2**20
MANY_USES = 100
"""More than a key remembers."""
OBJECTS = 3
"""Keys that a principal uses."""
EVERY_MS = 20
CUT_EVERY = 5_000
BEGAN_MS = 1_795_000_000_000
HOUR_MS = 3_600_000


def run(*, keys: int = KEYS, principals: int = PRINCIPALS, batches: int = BATCHES) -> list[Result]:
    rows = [
        Result("memory_per_key", _apart(_keys_held, keys), "B", keys),
        Result("memory_per_key_full", _apart(_full_keys_held, keys // 10), "B", keys // 10),
        Result("memory_per_key_live", _apart(_keys_live, keys // 20), "B", keys // 20),
        Result("memory_per_principal", _apart(_principals_held, principals), "B", principals),
    ]
    load = Load(batches=batches, keys=keys, told=False, actors=principals)
    with serving(KafkaServer) as kafka:
        return rows + asyncio.run(outage(kafka, load, keys))


async def outage(kafka: str, load: Load, keys: int) -> list[Result]:
    messages = [(number, batch.value, batch.headers()) for number, batch in load.batches]
    half = len(messages) // 2
    async with deployment(kafka) as settings:
        await remember_keys(settings, load)
        async with running(settings, load, closed=True) as [worker]:
            started = worker.now.rss_mib
            topic = settings.topic(KEY_EVENTS)
            held = 0
            marks = []
            for part, until_applied in ((messages[:half], half), (messages[half:], len(messages))):
                await send(kafka, topic, part)
                await applied(worker, until_applied)
                await asyncio.sleep(2)
                marks.append(worker.now.rss_mib)
                held = max(held, worker.now.held)
    return [
        Result("worker_restored_rss", started, "MiB", keys),
        Result("worker_outage_rss", worker.most_rss_mib, "MiB", load.events),
        Result("worker_outage_growth", marks[1] - marks[0], "MiB", load.events),
        Result("worker_outage_held", held / MIB, "MiB", load.events, "budget", HELD_BYTES / MIB),
    ]


def _apart(measure: Callable[[int], float], count: int) -> float:
    """Run in a fresh process, whose memory holds nothing else."""
    receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(measure, count, sending))
    process.start()
    grown = receiving.recv()
    process.join()
    return float(grown)


def _measured(measure: Callable[[int], float], count: int, sending: Connection) -> None:
    sending.send(measure(count) / count)


def _keys_held(count: int, *, uses: int = USES_BEFORE) -> float:
    """Bytes that restored keys take: records as they were read, none decoded."""
    state, before = State(), rss_mib()
    for ident, raw in _key_records(count, uses=uses):
        state.load(bytes((Kind.KEY,)) + ident, raw)
    return (rss_mib() - before) * MIB


def _full_keys_held(count: int) -> float:
    return _keys_held(count, uses=MANY_USES)


def _keys_live(count: int) -> float:
    """Bytes that a decoded key takes beyond its record."""
    state = State()
    for ident, raw in _key_records(count):
        state.load(bytes((Kind.KEY,)) + ident, raw)
    before = rss_mib()
    for ident in state.idents(Kind.KEY):
        assert state.get(Kind.KEY, ident, KeyHistory) is not None
    return (rss_mib() - before) * MIB


def _key_records(count: int, *, uses: int = USES_BEFORE) -> Iterator[tuple[bytes, bytes]]:
    """Records of keys with a life and a few uses, each with bytes of its own, as they come from a log."""
    [(_, history)] = islice(Load(batches=0, keys=16, told=False).histories(0, uses=uses), 1)
    state = State()
    state.put(Kind.KEY, b"", history)
    [(_, raw)] = state.cut()
    assert raw is not None
    for number in range(count):
        yield number.to_bytes(16, "big"), bytes(bytearray(raw))


def _principals_held(count: int) -> float:
    """Bytes that a principal takes who uses a few objects of a vault: its baseline."""
    step, state, effects = WhoStep(limits=Limits()), State(), Effects()
    before = rss_mib()
    for offset in range(count * OBJECTS):
        seen = _seen(offset % count, offset)
        now_ms = seen.append_ms
        step.apply(Message(WHO, 0, offset, now_ms, None, encode(seen), ()), now_ms, state, effects)
        if offset % CUT_EVERY == 0:
            step.tick(now_ms, state, effects)
            state.cut()
            effects = Effects()
    step.tick(now_ms + 2 * HOUR_MS, state, effects)
    state.cut()
    assert state.count(Kind.PRINCIPAL) == count
    return (rss_mib() - before) * MIB


def _seen(principal: int, number: int) -> Seen:
    at_ms = BEGAN_MS + number * EVERY_MS
    return Seen(
        v=1,
        access_id=f"{number:032x}",
        principal=f"tid/{principal:08x}",
        kind=PrincipalKind.WORKLOAD,
        vault="kv-prod",
        object_kind="key",
        object_name=f"kek-{number % 7}",
        operation="KeyUnwrap",
        access_class=AccessClass.USE,
        outcome=AccessOutcome.SUCCEEDED,
        time_us=at_ms * 1000,
        append_ms=at_ms,
    )
