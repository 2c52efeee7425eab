import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from cryptocore.batch import SealedBatch
from cryptocore.emitter import Emitter
from cryptocore.errors import AuditUnavailable, ConfigurationError, EventInvalid
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Heartbeat, KeyRef, Operation, Outcome
from cryptocore.partitions import MAX_PARTITIONS
from cryptocore.signing import Signer
from cryptocore.testing import CountedIds, ManualClock, MemoryTransport
from tests.cryptocore.filelog import FileTransport, read_log
from tests.cryptocore.spooling import DEPLOYMENT, SERVICE, received, registry_of, unwrapping, used

SIGNER = Signer.generate()
REGISTRY = registry_of(SIGNER)


def emitter_in(directory: Path, transport: MemoryTransport, **options: object) -> Emitter:
    settings: dict[str, object] = {"background": False, "clock": ManualClock(), "ids": CountedIds("emitter")}
    return Emitter(
        spool_dir=directory,
        signer=SIGNER,
        deployment=DEPLOYMENT,
        service=SERVICE,
        transport=transport,
        **({"partitions": 3} | settings | options),  # type: ignore[arg-type]
    )


async def test_the_first_line_opens_the_chain_and_the_last_one_closes_it(tmp_path: Path) -> None:
    transport = MemoryTransport()
    emitter = emitter_in(tmp_path, transport)

    await emitter.open()
    await emitter.record(used(1, CountedIds()))
    await emitter.close()

    lines = received(transport.batches, REGISTRY)
    assert len(lines) == 3
    assert [type(line) for line in lines if not isinstance(line, AuditEvent)] == [ChainOpen, ChainClose]
    close = lines[-1]
    assert isinstance(close, ChainClose)
    assert [(tally.operation, tally.outcome, tally.count) for tally in close.tallies] == [
        (Operation.DECRYPT, Outcome.SUCCEEDED, 1)
    ]
    assert len(close.heads) == len({partition for partition, _ in transport.batches})
    assert transport.closed
    assert list(tmp_path.iterdir()) == []


async def test_a_heartbeat_names_the_heads_as_they_were_before_its_batch(tmp_path: Path) -> None:
    transport, clock = MemoryTransport(), ManualClock()
    emitter = emitter_in(tmp_path, transport, clock=clock)
    await emitter.open()
    await emitter.step()
    sent = len(transport.batches)

    clock.advance(29.9)
    await emitter.step()
    assert len(transport.batches) == sent
    clock.advance(0.1)
    await emitter.step()

    beat = received(transport.batches, REGISTRY)[-1]
    assert isinstance(beat, Heartbeat)
    assert [(head.partition, head.sequence) for head in beat.heads] == [(transport.batches[-1][0], 0)]
    assert beat.oldest_unsent_at is None
    await emitter.close()


async def test_heartbeats_do_not_pile_up_while_the_log_is_down(tmp_path: Path) -> None:
    transport, clock = MemoryTransport(), ManualClock()
    emitter = emitter_in(tmp_path, transport, clock=clock)
    await emitter.open()
    transport.down = True
    for _ in range(5):
        clock.advance(30)
        with pytest.raises(ConnectionError):
            await emitter.step()
    transport.down = False
    await emitter.step()

    beats = [line for line in received(transport.batches, REGISTRY) if isinstance(line, Heartbeat)]
    assert len(beats) == 1
    assert beats[0].oldest_unsent_at is not None
    await emitter.close()


async def test_the_same_clock_and_ids_give_the_same_bytes(tmp_path: Path) -> None:
    async def run(directory: Path) -> list[tuple[int, SealedBatch]]:
        transport, clock, ids = MemoryTransport(), ManualClock(), CountedIds()
        emitter = emitter_in(directory, transport, clock=clock)
        await emitter.open()
        for number in range(20):
            await asyncio.gather(emitter.record(used(number, ids)), emitter.record(used(number + 1, ids)))
            clock.advance(7)
            await emitter.step()
        await emitter.close()
        return transport.batches

    assert await run(tmp_path / "one") == await run(tmp_path / "two")


async def test_what_the_log_does_not_take_is_there_for_the_next_process(tmp_path: Path) -> None:
    transport, ids = MemoryTransport(), CountedIds()
    first = emitter_in(tmp_path, transport)
    await first.open()
    await first.record(unwrapping(1, ids))
    transport.down = True
    await first.close()
    transport.down = False

    second = emitter_in(tmp_path, transport, ids=CountedIds("second"))
    await second.open()
    await second.step()
    await second.close()

    lines = received(transport.batches, REGISTRY)
    assert sum(isinstance(line, AuditEvent) for line in lines) == 1, "a chain closed in order is not opened again"
    assert sum(isinstance(line, ChainClose) for line in lines) == 2
    assert list(tmp_path.iterdir()) == []


async def test_two_emitters_of_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    one, two = MemoryTransport(), MemoryTransport()
    first, second = emitter_in(tmp_path, one), emitter_in(tmp_path, two, ids=CountedIds("second"))
    await first.open()
    await second.open()
    await first.record(used(1, CountedIds()))
    await second.step()
    await second.close()
    await first.close()

    assert sum(isinstance(line, AuditEvent) for line in received(one.batches, REGISTRY)) == 1
    assert not [line for line in received(two.batches, REGISTRY) if isinstance(line, AuditEvent)]


async def test_the_last_tenth_of_the_quota_is_for_outcomes_and_denials(tmp_path: Path) -> None:
    transport, ids = MemoryTransport(), CountedIds()
    emitter = emitter_in(tmp_path, transport, quota_bytes=10_000)
    await emitter.open()
    with pytest.raises(AuditUnavailable, match="full"):
        await record_many(emitter, 100)
    with pytest.raises(AuditUnavailable):
        await emitter.record(unwrapping(1, ids))

    await emitter.record(used(1, ids, Outcome.DENIED))
    await emitter.record(unwrapping(1, ids, unwrapping(1, ids)))

    await emitter.step()
    await emitter.record(used(1, ids))
    await emitter.close()


async def test_an_event_that_a_receiver_would_refuse_is_not_recorded(tmp_path: Path) -> None:
    emitter = emitter_in(tmp_path, MemoryTransport())
    await emitter.open()

    with pytest.raises(EventInvalid):
        await emitter.record(replace(used(1, CountedIds()), key=KeyRef(id="00" * 16, version=0)))
    assert not emitter.committed
    await emitter.close()


async def test_recording_before_open_and_after_close_is_refused(tmp_path: Path) -> None:
    emitter = emitter_in(tmp_path, MemoryTransport())
    with pytest.raises(AuditUnavailable):
        await emitter.record(used(1, CountedIds()))
    await emitter.open()
    await emitter.close()

    with pytest.raises(AuditUnavailable):
        await emitter.record(used(1, CountedIds()))


async def test_under_durability_broker_the_caller_waits_for_the_log(tmp_path: Path) -> None:
    transport, ids = MemoryTransport(), CountedIds()
    emitter = emitter_in(tmp_path, transport, durability="broker")
    await emitter.open()

    await emitter.record(used(1, ids))
    assert any(isinstance(line, AuditEvent) for line in received(transport.batches, REGISTRY))
    transport.down = True
    with pytest.raises(AuditUnavailable):
        await emitter.record(used(1, ids))

    transport.down = False
    await emitter.close()


@pytest.mark.parametrize("durability", ["volume", "broker"])
async def test_in_the_background_many_callers_share_commits_and_everything_arrives(
    tmp_path: Path, durability: str
) -> None:
    transport, ids = MemoryTransport(), CountedIds()
    emitter = Emitter(
        spool_dir=tmp_path,
        signer=SIGNER,
        deployment=DEPLOYMENT,
        service=SERVICE,
        transport=transport,
        partitions=3,
        linger_ms=5,
        heartbeat_s=0.05,
        durability=durability,
    )
    await emitter.open()
    events = [used(number % 7, ids) for number in range(500)]
    await asyncio.gather(*map(emitter.record, events))
    await asyncio.sleep(0.2)

    lines = received(transport.batches, REGISTRY)
    assert {line.id for line in lines if isinstance(line, AuditEvent)} == {event.id for event in events}
    assert any(isinstance(line, Heartbeat) for line in lines)
    assert emitter.committed == Counter({(Operation.DECRYPT, Outcome.SUCCEEDED): 500})
    await emitter.close()


async def test_in_the_background_a_log_that_comes_back_gets_everything(tmp_path: Path) -> None:
    transport, ids = MemoryTransport(), CountedIds()
    emitter = emitter_in(tmp_path, transport, background=True, linger_ms=1, clock=None)
    transport.down = True
    await emitter.open()
    await emitter.record(*(used(number, ids, Outcome.DENIED) for number in range(9)))
    await asyncio.sleep(0.05)
    transport.down = False
    await wait_until(lambda: len(received(transport.batches, REGISTRY)) == 10)
    await emitter.close()


async def test_a_caller_that_gives_up_does_not_take_its_event_away(tmp_path: Path) -> None:
    transport = MemoryTransport()
    emitter = emitter_in(tmp_path, transport)
    await emitter.open()
    task = asyncio.create_task(emitter.record(used(1, CountedIds())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await emitter.close()

    assert sum(isinstance(line, AuditEvent) for line in received(transport.batches, REGISTRY)) == 1


async def test_after_a_fork_the_emitter_refuses_by_name(tmp_path: Path) -> None:
    emitter = emitter_in(tmp_path, MemoryTransport())
    await emitter.open()
    emitter._pid = os.getpid() + 1

    with pytest.raises(AuditUnavailable, match="fork"):
        await emitter.record(used(1, CountedIds()))
    emitter._pid = os.getpid()
    await emitter.close()


def test_a_forked_child_does_not_hold_its_parents_spool(tmp_path: Path) -> None:
    script = (
        "import os, sys, time, pathlib\n"
        "from cryptocore.spool.lock import SpoolLock\n"
        "lock = SpoolLock.take(pathlib.Path(sys.argv[1]))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    time.sleep(30)\n"
        "print(pid, flush=True)\n"
        "os._exit(0)\n"
    )
    from cryptocore.spool.lock import SpoolLock  # noqa: PLC0415 - the child has its own

    path = tmp_path / "billing.00.spool"
    parent = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.wait()
    parent.stdout.close()

    try:
        deadline = time.monotonic() + 5
        while (lock := SpoolLock.take(path)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock is not None
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_killed_again_and_again_no_event_that_was_called_durable_is_lost(tmp_path: Path) -> None:
    SIGNER.write_file(tmp_path / "signer")
    chance = random.Random(3)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    (tmp_path / "durable").touch()
    kills = 24
    for number in range(kills):
        before = (tmp_path / "durable").stat().st_size
        child = subprocess.Popen(  # noqa: ASYNC220 - it is killed by this very function
            [sys.executable, "-m", "tests.cryptocore.child_emitter", tmp_path, str(number)], env=environment
        )
        await wait_until(lambda size=before: (tmp_path / "durable").stat().st_size > size)  # type: ignore[misc]
        await asyncio.sleep(chance.random() * 0.06)
        child.kill()
        child.wait()
    last = Emitter(
        spool_dir=tmp_path / "spool",
        signer=SIGNER,
        deployment=DEPLOYMENT,
        service=SERVICE,
        transport=FileTransport(tmp_path / "log"),
        partitions=3,
    )
    await last.open()
    await last.close()

    lines = received(read_log(tmp_path / "log"), REGISTRY)
    arrived = Counter(line.id for line in lines if isinstance(line, AuditEvent))
    durable = (tmp_path / "durable").read_text().splitlines()
    assert len(durable) > kills
    assert set(durable) <= arrived.keys()
    assert set(arrived.values()) == {1}
    assert sum(isinstance(line, ChainClose) for line in lines) == kills + 1
    assert [path.name for path in (tmp_path / "spool").iterdir()] == []


async def record_many(emitter: Emitter, count: int) -> None:
    ids = CountedIds("many")
    for _ in range(count):
        await emitter.record(used(1, ids))


async def wait_until(reached: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.005)


def test_more_partitions_than_a_heartbeat_can_name_are_refused_at_once(tmp_path: Path) -> None:
    assert emitter_in(tmp_path, MemoryTransport(), partitions=MAX_PARTITIONS).identity.partitions == MAX_PARTITIONS
    with pytest.raises(ConfigurationError, match="partitions"):
        emitter_in(tmp_path, MemoryTransport(), partitions=MAX_PARTITIONS + 1)
