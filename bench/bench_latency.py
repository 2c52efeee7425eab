"""From the append of an event to the delivery of its alert, while one worker takes 2,000 events a second.

The worker is a process of its own on a real broker; messages of 50 events come in time. Every now and then one of them
holds a denied decrypt of a revoked key: each opens an alert, and each alert is delivered. What is told is the time from
the broker's own timestamp of the message to the call of the channel: keys agent, cut, findings, triage, cut, delivery.
"""

import asyncio
import time
from statistics import quantiles
from typing import Any, NamedTuple

from bench.result import Result
from bench.sealed_load import Load
from bench.workers import deployment, running, sending, serving, until
from streams.messages import KEY_EVENTS
from tests.servers.kafka import KafkaServer

EVENTS_S = 2_000
EVENTS_A_MESSAGE = 50
SECONDS = 40
PLANTED = 160
KEYS = 2_000
AIM_MS = 1_000.0


class Latency(NamedTuple):
    """Milliseconds from append to delivery, and how busy the worker was: CPU seconds a second."""

    p50_ms: float
    p99_ms: float
    alerts: int
    cpu: float


def run(*, seconds: int = SECONDS, planted: int = PLANTED) -> list[Result]:
    with serving(KafkaServer) as kafka:
        measured = asyncio.run(latency(kafka, seconds=seconds, planted=planted))
    return [
        Result("worker_latency_p50_ms", measured.p50_ms, "ms", measured.alerts),
        Result("worker_latency_p99_ms", measured.p99_ms, "ms", measured.alerts, "aim", AIM_MS),
        Result("worker_cpu_at_2000", measured.cpu, "cores", EVENTS_S * seconds),
    ]


async def latency(kafka: str, *, seconds: int, planted: int) -> Latency:
    load = Load(
        batches=seconds * EVENTS_S // EVENTS_A_MESSAGE,
        keys=KEYS,
        events_a_batch=EVENTS_A_MESSAGE,
        planted=planted,
        every_us=1_000_000 // EVENTS_S,
    )
    async with deployment(kafka) as settings, running(settings, load) as [worker]:
        topic = settings.topic(KEY_EVENTS)
        async with sending(kafka) as producer:

            async def send(number: int) -> Any:
                partition, batch = load.batches[number]
                return await producer.send(topic, batch.value, partition=partition, headers=batch.headers())

            for sent in [await send(number) for number in range(load.uses_from)]:
                await sent
            await until(lambda: worker.applied == load.uses_from, [worker])
            cpu_s = worker.now.cpu_s
            began = time.monotonic()
            futures = {}
            for number in range(load.uses_from, len(load.batches)):
                due = began + (number - load.uses_from) * EVENTS_A_MESSAGE / EVENTS_S
                await asyncio.sleep(max(0, due - time.monotonic()))
                futures[number] = await send(number)
            took = time.monotonic() - began
            appended = {load.plants[number]: (await futures[number]).timestamp for number in load.plants}
        await until(lambda: len(_opened(worker.delivered, appended)) == planted, [worker])
        took_ms = [at_ms - appended[key] for key, at_ms in _opened(worker.delivered, appended).items()]
        cpu = (worker.now.cpu_s - cpu_s) / took
    marks = quantiles(took_ms, n=100, method="inclusive")
    return Latency(marks[49], marks[98], len(took_ms), cpu)


def _opened(delivered: list[Any], planted: dict[str, float]) -> dict[str, float]:
    """The first delivery of each planted key."""
    first: dict[str, float] = {}
    for one in delivered:
        if one.key in planted and one.rule == "revoked_key_decrypt":
            first.setdefault(one.key, one.at_ms)
    return first
