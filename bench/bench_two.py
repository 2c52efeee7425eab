"""One, two and four workers on the same load, each a process of its own: what a second core adds, and where it stops.

The workers share the partitions before the load is sent; measured is from its first message to the last one applied.
`_cores`: CPU seconds that the workers took a second; the broker, on the same machine, takes from what they leave.
"""

import asyncio
from typing import NamedTuple

from bench.result import Result
from bench.sealed_load import Load
from bench.workers import deployment, running, send, serving, until
from streams.messages import KEY_EVENTS
from tests.servers.kafka import KafkaServer

BATCHES = 960
KEYS = 2_000
COUNTS = {1: "one", 2: "two", 4: "four"}


class Shared(NamedTuple):
    """Events a second of all workers together, and the cores they kept busy."""

    events_s: float
    cores: float


def run(*, batches: int = BATCHES, counts: tuple[int, ...] = tuple(COUNTS)) -> list[Result]:
    load = Load(batches=batches, keys=KEYS)
    with serving(KafkaServer) as kafka:
        measured = {count: asyncio.run(shared(kafka, load, count)) for count in counts}
    alone = measured[1].events_s
    rows = []
    for count, one in measured.items():
        name = f"worker_stub_{COUNTS[count]}"
        beside = () if count == 1 else ("one worker, same load", alone)
        rows += [
            Result(name, one.events_s, "events/s", load.events, *beside),
            Result(f"{name}_cores", one.cores, "cores", load.events),
        ]
    return [*rows, Result("worker_events_per_cpu_s", alone / measured[1].cores, "events/s", load.events)]


async def shared(kafka: str, load: Load, count: int) -> Shared:
    messages = [(number, batch.value, batch.headers()) for number, batch in load.batches]
    async with deployment(kafka) as settings, running(settings, load, count) as workers:
        cpu_s = sum(worker.now.cpu_s for worker in workers)
        sending = asyncio.create_task(send(kafka, settings.topic(KEY_EVENTS), messages))
        began = await until(lambda: any(worker.applied for worker in workers), workers)
        ended = await until(lambda: sum(worker.applied for worker in workers) == len(messages), workers)
        await sending
        cpu_s = sum(worker.now.cpu_s for worker in workers) - cpu_s
    return Shared(load.events / (ended - began), cpu_s / (ended - began))
