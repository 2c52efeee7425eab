"""Workers and services as real processes, and what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tests.faults.service import Job

ROOT = Path(__file__).parents[2]
DEAD = 70
WORKER = "from streams.cli import app; app()"


class Processes:
    """Starts processes and, on the way out, kills what still runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**os.environ, **environment}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.given_up: list[str] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self.workers.values(), *self.services.values()]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def worker(self) -> str:
        self._count += 1
        name = f"worker{self._count}"
        own = {**self.environment, "KEYTRAIL_DATA_DIR": str(self.folder / name)}
        self.workers[name] = self._start(name, ["-c", WORKER, "worker"], own)
        return name

    def service(self, job: Job) -> None:
        arguments = ["-m", "tests.faults.service", msgspec.json.encode(job).decode()]
        self.services[job.name] = self._start(job.name, arguments, self.environment)

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=dict(environment), stdout=log, stderr=subprocess.STDOUT
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def takeovers(self, name: str) -> int:
        return self.log(name).read_text().count('"event": "took over"')

    def tend(self) -> None:
        """Start a worker again that gave up, as an orchestrator does; any other end is a fault."""
        for name, process in list(self.workers.items()):
            code = process.poll()
            if code is None or code == -signal.SIGKILL:
                continue
            assert code == DEAD, f"{name} ended with {code}:\n{self.log(name).read_text()[-4000:]}"
            self.given_up.append(name)
            del self.workers[name]
            self.worker()
        for name, process in self.services.items():
            code = process.poll()
            assert code in (None, 0, -signal.SIGKILL), (
                f"{name} ended with {code}:\n{self.log(name).read_text()[-4000:]}"
            )

    def stop_workers(self, within_s: float) -> dict[str, int]:
        """SIGTERM to all; returns how each ended."""
        for process in self.workers.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + within_s
        return {
            name: process.wait(max(0.1, deadline - time.monotonic()))
            for name, process in self.workers.items()
            if process.returncode != -signal.SIGKILL
        }
