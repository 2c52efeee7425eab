"""A worker as a process of its own, over a stubbed index, that reports what it did on standard output.

`python -m bench.worker_process '<job>'`; every line is a `Report` or a `Delivered`. It is `keytrail worker` in all but
its index and its channel, and so are its rules, its state and its cuts.
"""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from alerts.model import Notification
from alerts.thresholds import Limits
from cryptocore.registry import Registry
from streams.index.port import Document, IndexUnavailable, Refused
from streams.messages import KEY_EVENTS
from streams.pipeline import steps
from streams.running.process import Worker
from streams.settings import Settings
from streams.stderr import log_to_stderr

REPORT_S = 0.05


class Job(Struct, forbid_unknown_fields=True):
    """What one worker is to do; `closed`: its index answers nobody."""

    settings: dict[str, Any]
    registry: str
    closed: bool = False


class Report(Struct, tag="report"):
    """Where the worker is; `at_s` is the machine's monotonic clock, the same for all processes."""

    at_s: float
    owned: int
    applied: dict[str, int]
    held: int
    cpu_s: float
    rss_mib: float


class Delivered(Struct, tag="delivered"):
    """A notification was delivered, at the machine's clock."""

    key: str | None
    rule: str
    kind: str
    at_ms: float


class StubIndex:
    """Takes everything and keeps nothing, or, `closed`, answers nobody."""

    def __init__(self, *, closed: bool = False) -> None:
        self._closed = closed

    async def ensure(self) -> None:
        return

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        del documents
        if self._closed:
            raise IndexUnavailable("closed for this measurement")
        return []

    async def find(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return []

    async def count_by(self, *_: Any, **__: Any) -> dict[tuple[str, ...], int]:
        return {}

    async def close(self) -> None:
        return


async def deliver(notification: Notification) -> tuple[str, ...]:
    alert = notification.alert
    say(Delivered(alert.get("key"), alert.get("rule_id", ""), notification.kind, time.time() * 1000))
    return ("bench",)


def say(line: Struct) -> None:
    os.write(1, msgspec.json.encode(line) + b"\n")


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def report(worker: Worker) -> Report:
    applied: dict[str, int] = {}
    owners = worker.shell.owners
    for (topic, _), owner in owners.items():
        applied[topic] = applied.get(topic, 0) + owner.applied
    owned = sum(topic == KEY_EVENTS for topic, _ in owners)
    return Report(time.monotonic(), owned, applied, worker.writer.held, time.process_time(), rss_mib())


async def main(job: Job) -> None:
    log_to_stderr("ERROR")
    settings = Settings(**job.settings)
    made = steps(Registry.load(job.registry), Limits())
    worker = Worker(settings, made, StubIndex(closed=job.closed), die=_die, deliver=deliver)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await worker.start()
    while not told.is_set():
        say(report(worker))
        await asyncio.sleep(REPORT_S)
    await worker.stop()


def _die(reason: str) -> NoReturn:
    sys.stderr.write(f"the worker gave up: {reason}\n")
    os._exit(70)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Job)))
