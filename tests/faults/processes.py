"""Workers, services and the feed as real processes, and what they leave behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tests.faults.service import Job
from tests.faults.worker import Over

ROOT = Path(__file__).parents[2]
DEAD, UNREACHABLE = 70, 4
WORKER = "from streams.cli import app; app()"
FEED = "feed"
PATIENT_S = 150.0
"""How long something may take on a machine that does everything at once; nothing here usually takes a tenth of it."""


class Processes:
    """Starts processes and, on the way out, kills what still runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str], over: Over = Over.FAUST) -> None:
        self.folder = folder
        self.over = over
        self.environment = {**os.environ, **environment}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.feed: subprocess.Popen[bytes] | None = None
        self.given_up: Counter[int] = Counter()
        """Workers that ended by themselves and were started again, by exit code."""
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        feeds = [] if self.feed is None else [self.feed]
        for process in [*self.workers.values(), *self.services.values(), *feeds]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def worker(self) -> str:
        self._count += 1
        name = f"worker{self._count}"
        own = {**self.environment, "KEYTRAIL_DATA_DIR": str(self.folder / name)}
        self.workers[name] = self._start(name, ["-m", "tests.faults.worker", self.over], own)
        return name

    def service(self, job: Job) -> None:
        arguments = ["-m", "tests.faults.service", msgspec.json.encode(job).decode()]
        self.services[job.name] = self._start(job.name, arguments, self.environment)

    def feed_from(self, logs: Path) -> None:
        self.feed = self._start(FEED, ["-c", WORKER, "vault-feed", "files", str(logs), "--watch"], self.environment)
        self._logs = logs

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=dict(environment), stdout=log, stderr=subprocess.STDOUT
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def tail(self, name: str) -> str:
        return self.log(name).read_text()[-4000:]

    def takeovers(self, name: str) -> int:
        return self.log(name).read_text().count('"event": "took over"')

    def living(self) -> list[str]:
        """Every worker, after those that gave up were started again."""
        self.tend()
        return list(self.workers)

    def begun(self) -> list[str]:
        """The workers that have had an assignment."""
        return [name for name in self.living() if self.takeovers(name) > 0]

    def kill(self, name: str) -> None:
        process = self.workers.pop(name, None) or self.services[name]
        process.kill()
        process.wait()

    def tend(self) -> None:
        """Start again what gave up, as an orchestrator does; any other end is a fault."""
        for name, process in list(self.workers.items()):
            code = process.poll()
            if code is None:
                continue
            assert code in {DEAD, UNREACHABLE}, f"{name} ended with {code}:\n{self.tail(name)}"
            self.given_up[code] += 1
            del self.workers[name]
            self.worker()
        for name, process in self.services.items():
            code = process.poll()
            assert code in {None, 0, -signal.SIGKILL}, f"{name} ended with {code}:\n{self.tail(name)}"
        if self.feed is not None and (code := self.feed.poll()) is not None:
            assert code in {UNREACHABLE, -signal.SIGKILL}, f"the feed ended with {code}:\n{self.tail(FEED)}"
            self.feed_from(self._logs)

    def stop_workers(self, within_s: float) -> dict[str, int]:
        """SIGTERM to all; returns how each ended."""
        for process in self.workers.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + within_s
        return {name: process.wait(max(0.1, deadline - time.monotonic())) for name, process in self.workers.items()}

    async def until(self, true: Callable[[], bool], what: str, within_s: float = PATIENT_S) -> None:
        """Tend until something is so."""
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
            self.tend()
            await asyncio.sleep(0.1)

    async def calmly(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        await self.until(lambda: time.monotonic() >= end, "time passes", seconds + 30)
