"""The sign of life stops when any part of the way to an alert stops, and comes back with it: real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from alerts.rules.canary import SOURCE
from cryptocore.clock import SystemClock
from cryptocore.development import make_registry
from streams.alerting.canary import YOUNG
from streams.log import topics
from streams.settings import Settings
from tests.faults.processes import ROOT, WORKER
from tests.servers.kafka import KafkaServer
from tests.servers.machine import free_port

EVERY_S = 2.0
SILENT_S = (YOUNG + 1) * EVERY_S
"""Three intervals: beats that come later than this are the fault of the canary."""


class Switch:
    """The dead man's switch outside: notes when it was called."""

    def __init__(self) -> None:
        self.beats: list[float] = []

    async def beat(self, _: web.Request) -> web.Response:
        self.beats.append(asyncio.get_running_loop().time())
        return web.Response()

    def since(self, moment_s: float) -> int:
        return sum(beat > moment_s for beat in self.beats)


@asynccontextmanager
async def switch() -> AsyncIterator[tuple[Switch, str]]:
    made, app, port = Switch(), web.Application(), free_port()
    app.add_routes([web.get("/", made.beat)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield made, f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


class Parts:
    """The canary and a worker as processes over one broker."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {**os.environ, **environment}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-c", WORKER, name], cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))


@pytest.mark.faults
@pytest.mark.timeout(480)
async def test_beats_stop_with_each_part_and_come_back_with_it(tmp_path: Path) -> None:
    with KafkaServer() as kafka:
        async with switch() as (made, url):
            environment = _deployment(kafka.address, url, tmp_path)
            assert await topics.ensure(_settings(environment)) == []
            parts = Parts(tmp_path, environment)
            try:
                parts.start("worker")
                parts.start("canary")
                await _beats(made, parts, within_s=60)

                def pause(name: str, number: int) -> Callable[[], None]:
                    return lambda: parts.running[name].send_signal(number)

                faults: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
                    "canary killed": (lambda: parts.kill("canary"), lambda: parts.start("canary")),
                    "worker killed": (lambda: parts.kill("worker"), lambda: parts.start("worker")),
                    "worker stopped": (pause("worker", signal.SIGSTOP), pause("worker", signal.SIGCONT)),
                    "broker stopped": (kafka.pause, kafka.resume),
                }
                for name, (break_it, mend_it) in faults.items():
                    break_it()
                    await _is_silent(made, name)
                    mend_it()
                    await _beats(made, parts, within_s=90)
            finally:
                parts.end()


async def _is_silent(made: Switch, name: str) -> None:
    """After three intervals nothing beats any more."""
    await asyncio.sleep(SILENT_S)
    silent_from_s = asyncio.get_running_loop().time()
    await asyncio.sleep(2 * EVERY_S)
    assert made.since(silent_from_s) == 0, name


async def _beats(made: Switch, parts: Parts, *, within_s: float) -> None:
    """Beats come one after the other."""
    begin_s = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(within_s):
            while made.since(begin_s) < 2:  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(parts.logs()) from None


def _deployment(kafka: str, url: str, folder: Path) -> dict[str, str]:
    make_registry(folder, [SOURCE], now_ms=SystemClock().now_us() // 1000 - 60_000, days=1)
    canary_port, unique = free_port(), uuid4().hex[:8]
    return {
        "KEYTRAIL_KAFKA_BOOTSTRAP": kafka,
        "KEYTRAIL_KAFKA_SESSION_TIMEOUT_S": "6",
        "KEYTRAIL_TOPIC_PREFIX": f"c{unique}.",
        "KEYTRAIL_PARTITIONS": "2",
        "KEYTRAIL_APP_ID": f"canary-{unique}",
        "KEYTRAIL_ELASTICSEARCH_URL": f"http://127.0.0.1:{free_port()}",  # nobody: alerts do not wait for the index
        "KEYTRAIL_SOURCES_FILE": str(folder / "sources.json"),
        "KEYTRAIL_DATA_DIR": str(folder / "worker"),
        "KEYTRAIL_WEB_PORT": "0",
        "KEYTRAIL_CANARY_ROUTE": f"http://127.0.0.1:{canary_port}/",
        "KEYTRAIL_CANARY_PORT": str(canary_port),
        "KEYTRAIL_CANARY_SECRET": "c" * 32,
        "KEYTRAIL_CANARY_BEAT_URL": url,
        "KEYTRAIL_CANARY_EVERY_S": str(EVERY_S),
        "KEYTRAIL_CORE_SERVICE": SOURCE,
        "KEYTRAIL_CORE_SPOOL_DIR": str(folder / "spool"),
        "KEYTRAIL_CORE_REGISTRY_FILE": str(folder / "sources.json"),
        "KEYTRAIL_CORE_SIGNER_FILE": str(folder / f"{SOURCE}.key"),
        "KEYTRAIL_CORE_KAFKA_BOOTSTRAP": kafka,
        "KEYTRAIL_CORE_KAFKA_TOPIC": f"c{unique}.key-events",
        "KEYTRAIL_CORE_KAFKA_PARTITIONS": "2",
        "KEYTRAIL_CORE_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    }


def _settings(environment: dict[str, str]) -> Settings:
    return Settings(
        kafka_bootstrap=environment["KEYTRAIL_KAFKA_BOOTSTRAP"],
        topic_prefix=environment["KEYTRAIL_TOPIC_PREFIX"],
        partitions=int(environment["KEYTRAIL_PARTITIONS"]),
    )
