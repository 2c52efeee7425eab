"""Whoever logs in a process, each line of its stderr is one JSON object of the same form."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from cryptocore.clock import SystemClock
from cryptocore.development import make_registry
from tests.servers.machine import free_port
from tests.streams.working import fresh

WORKER = "from streams.cli import app; app()"
READY = b'"took over"'
SPEAKERS = """
import logging, sys, warnings
import structlog
from streams.stderr import log_to_stderr

log_to_stderr(sys.argv[1])
structlog.get_logger().info("ours", number=1)
for name in ("aiokafka.conn", "faust.app", "mode.services", "azure.core", "elsewhere"):
    for number in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(name).log(number, "%s of %s\\nsecond line", logging.getLevelName(number), name)
warnings.warn("python warns")
try:
    raise ValueError("broken")
except ValueError:
    logging.getLogger("aiokafka").exception("it failed")
    structlog.get_logger().exception("we failed")
"""


async def said(*arguments: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPEAKERS, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, stderr.decode()
    return lines(stderr)


def lines(stderr: bytes) -> list[dict[str, Any]]:
    """Every line, read; one that is no JSON object fails here, with its text."""
    found: list[dict[str, Any]] = []
    for line in stderr.decode().splitlines():
        assert line.startswith("{"), line
        found.append(json.loads(line))
    assert all({"event", "level", "timestamp"} <= set(one) for one in found), found
    return found


def heard(found: list[dict[str, Any]], name: str) -> set[str]:
    return {one["level"] for one in found if one.get("logger") == name and "exception" not in one}


async def test_libraries_and_python_itself_speak_in_the_form_of_our_own_lines() -> None:
    found = await said("INFO")

    ours = next(one for one in found if one["event"] == "ours")
    theirs = next(one for one in found if one.get("logger") == "aiokafka.conn")
    assert (ours["level"], ours["number"]) == ("info", 1)
    assert theirs["event"] == "WARNING of aiokafka.conn\nsecond line", "one line, whatever is in it"
    assert len(theirs["timestamp"]) == len(ours["timestamp"])
    assert any("python warns" in one["event"] for one in found)
    failed = [one for one in found if one["event"] in {"it failed", "we failed"}]
    assert [one["exception"].splitlines()[-1] for one in failed] == ["ValueError: broken"] * 2


@pytest.mark.parametrize(
    ("level", "kafka", "azure", "others"),
    [
        ("INFO", {"warning"}, {"warning"}, {"info", "warning"}),
        ("DEBUG", {"info", "warning"}, {"warning"}, {"debug", "info", "warning"}),
        ("ERROR", set(), set(), set()),
    ],
)
async def test_how_much_libraries_say(level: str, kafka: set[str], azure: set[str], others: set[str]) -> None:
    found = await said(level)

    assert [heard(found, name) for name in ("aiokafka.conn", "faust.app", "mode.services")] == [kafka] * 3
    assert heard(found, "azure.core") == azure
    assert heard(found, "elsewhere") == others


@pytest.mark.servers
async def test_every_line_of_a_worker_that_starts_and_stops_has_the_form(kafka: str, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path)
    make_registry(tmp_path / "deployment", services=["billing"], now_ms=SystemClock().now_us() // 1000, days=1)
    environment = {
        "KEYTRAIL_KAFKA_BOOTSTRAP": kafka,
        "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix,
        "KEYTRAIL_PARTITIONS": str(settings.partitions),
        "KEYTRAIL_ELASTICSEARCH_URL": f"http://127.0.0.1:{free_port()}",
        "KEYTRAIL_SOURCES_FILE": str(tmp_path / "deployment" / "sources.json"),
        "KEYTRAIL_DATA_DIR": str(tmp_path / "data"),
        "KEYTRAIL_WEB_PORT": "0",
        "KEYTRAIL_LOG_LEVEL": "DEBUG",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, "worker", env=os.environ | environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    stderr = b""
    try:
        async with asyncio.timeout(60):
            while READY not in stderr and (line := await process.stderr.readline()):
                stderr += line
            process.send_signal(signal.SIGTERM)
            stderr += await process.stderr.read()
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    found = lines(stderr)
    assert code == 0
    assert {"index unavailable at the start", "stopped"} <= {one["event"] for one in found}
    assert {"aiokafka", "mode"} <= {one["logger"].partition(".")[0] for one in found if "logger" in one}
