"""How long a new worker needs until it owns a million keys' state: before an hour's load was compacted, and after.

The hour: 2,000 events a second on a million keys, each used seven times, and each use of a key in another cut is a
record. The broker compacts whenever a fifth of a partition is old, so that what a successor finds is at worst the
state, a fifth of it again and the segment that is being written: `worker_recovery_1m_dirty` writes that much over the
state. The worker is a process; counted is from its start to the moment it owns all partitions.
"""

import asyncio
from pathlib import Path

from bench.result import Result
from bench.sealed_load import PARTITIONS, Load
from bench.workers import WorkerProcess, deployment, remember_keys, until
from streams.messages import KEY_EVENTS
from streams.settings import Settings
from tests.servers.kafka import KafkaServer

KEYS = 1_000_000
LIMIT_S = 30.0
OLD = 0.2
SEGMENT_BYTES = 64 * 1024 * 1024


def run(*, keys: int = KEYS) -> list[Result]:
    small = Load(batches=0, keys=keys // 10, told=False)
    load = Load(batches=0, keys=keys, told=False)
    with KafkaServer() as server:
        took_s = asyncio.run(recovery_of(server, small))
        beside = [Result("worker_recovery_100k", took_s, "s", keys // 10)]
        return beside + asyncio.run(recovery(server, load))


async def recovery_of(server: KafkaServer, load: Load) -> float:
    async with deployment(server.address) as settings:
        await remember_keys(settings, load)
        return await _owns(settings, load, "fresh")


async def recovery(server: KafkaServer, load: Load) -> list[Result]:
    rows = []
    keys = sum(len(idents) for idents in load.keys.values())
    async with deployment(server.address) as settings:
        await remember_keys(settings, load)
        state = state_bytes(server.folder, settings)
        rows.append(Result("state_bytes_per_key", state / keys, "B", keys))
        rows.append(Result("worker_recovery_1m", await _owns(settings, load, "fresh"), "s", keys, "aim", LIMIT_S))
        share = OLD + SEGMENT_BYTES * PARTITIONS / state if keys >= KEYS else OLD
        written = keys + await remember_keys(settings, load, share=share)
        rows.append(
            Result("worker_recovery_1m_dirty", await _owns(settings, load, "dirty"), "s", written, "aim", LIMIT_S)
        )
    return rows


async def _owns(settings: Settings, load: Load, name: str) -> float:
    worker = await WorkerProcess.start(settings, load, name=name)
    try:
        await until(lambda: worker.owned_s is not None, [worker])
        assert worker.owned_s is not None
        return worker.owned_s - worker.started_s
    finally:
        await worker.stop()


def state_bytes(folder: Path, settings: Settings) -> int:
    """Bytes of the state topic of key-events on the broker's disk."""
    return topic_bytes(folder, settings.state_topic(KEY_EVENTS))


def topic_bytes(folder: Path, topic: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"data/{topic}-*/*.log"))
