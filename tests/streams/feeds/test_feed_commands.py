"""`keytrail vault-feed` as its operators run it: a process with an environment, ended by SIGTERM and started again."""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from cryptocore.clock import SystemClock
from streams.commands.terminal import SOME_REJECTED, UNREACHABLE
from streams.demo.loopback import LOOPBACK, certificates
from streams.feeds.durable import load_cursor
from streams.settings import Settings
from tests.servers.kafka import SecureKafkaServer
from tests.streams.feeds.conftest import CONNECTION_STRING
from tests.streams.feeds.landing import accesses, deployment, landed
from tests.streams.feeds.test_eventhub import committed, envelope, fill
from tests.streams.feeds.test_log_analytics import AUDIT, audit_row
from tests.streams.feeds.workspace import WORKSPACE, Workspace, refused

pytestmark = pytest.mark.servers

KEYTRAIL = str(Path(sys.executable).with_name("keytrail"))
SECOND = 1_000_000
HOUR = 3_600 * SECOND


@asynccontextmanager
async def command(
    feed: str, settings: Settings, folder: Path, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process of its own; it is gone afterwards, whatever the test found."""
    ours = {
        "KEYTRAIL_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix,
        "KEYTRAIL_PARTITIONS": str(settings.partitions),
        "KEYTRAIL_FEED_STATE_DIR": str(folder / "positions"),
    }
    process = await asyncio.create_subprocess_exec(
        KEYTRAIL, "vault-feed", feed, env=os.environ | ours | environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process, *, tell: bool = True) -> tuple[int, str]:
    """Tell it to end, as an orchestrator does; return its exit code and what it logged."""
    if tell:
        process.send_signal(signal.SIGTERM)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


# Event Hubs


def of_hub(hub: SecureKafkaServer, name: str, **changes: str) -> dict[str, str]:
    return {
        "KEYTRAIL_FEED_EVENTHUB_CONNECTION_STRING": CONNECTION_STRING,
        "KEYTRAIL_FEED_EVENTHUB_BOOTSTRAP": hub.secure_address,
        "KEYTRAIL_FEED_EVENTHUB_NAME": name,
        "KEYTRAIL_FEED_EVENTHUB_CA_FILE": str(hub.ca_file),
    } | changes


async def test_a_hub_is_read_until_sigterm_and_from_there_on_at_the_next_start(
    hub: SecureKafkaServer, tmp_path: Path
) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(at * 50, 50) for at in range(4)])

    async with command("eventhub", settings, tmp_path, **of_hub(hub, name)) as first:
        await landed(settings, wait_for=200)
        async with asyncio.timeout(30):
            while await committed(hub, name) != 4:  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.1)
        code, said = await ended(first)
    await more(hub, name, [b"no json", envelope(200, 30)])
    async with command("eventhub", settings, tmp_path, **of_hub(hub, name)) as second:
        found = await landed(settings, wait_for=230)
        async with asyncio.timeout(30):
            while await committed(hub, name) != 6:  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.1)
        code_after, said_after = await ended(second)

    assert (code, code_after) == (0, SOME_REJECTED), said + said_after
    assert len(found) == len(set(accesses(found))) == 230, "nothing twice, nothing lost"
    assert fed(said)["published"] == 200
    assert fed(said_after)["published"] == 30
    assert "Traceback" not in said + said_after


async def test_sigterm_in_the_middle_of_a_hub_loses_nothing(hub: SecureKafkaServer, tmp_path: Path) -> None:
    settings = await deployment(hub.address, tmp_path)
    name = await fill(hub, [envelope(at * 100, 100) for at in range(40)])

    async with command("eventhub", settings, tmp_path, **of_hub(hub, name)) as first:
        await landed(settings, wait_for=1)
        code, said = await ended(first)
    async with command("eventhub", settings, tmp_path, **of_hub(hub, name)) as second:
        found = await landed(settings, wait_for=4_000)
        async with asyncio.timeout(60):
            while len(set(accesses(found))) < 4_000:
                found = await landed(settings)
        code_after, _ = await ended(second)

    assert (code, code_after) == (0, 0), said
    assert len(accesses(found)) == 4_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"KEYTRAIL_FEED_EVENTHUB_CONNECTION_STRING": "Endpoint=sb://127.0.0.1/;SharedAccessKey=d3Jvbmc="},
        {"KEYTRAIL_FEED_EVENTHUB_CA_FILE": ""},
    ],
    ids=["a wrong connection string", "an unknown certificate"],
)
async def test_a_hub_that_refuses_ends_the_command_with_a_sentence(
    hub: SecureKafkaServer, tmp_path: Path, wrong: dict[str, str]
) -> None:
    settings = await deployment(hub.address, tmp_path)
    environment = {name: value for name, value in of_hub(hub, "any", **wrong).items() if value}

    async with command("eventhub", settings, tmp_path, **environment) as process:
        code, said = await ended(process, tell=False)

    assert code == UNREACHABLE, said
    assert f"keytrail: cannot use Kafka at {hub.secure_address} (the hub)" in said or "cannot reach Kafka" in said
    assert "Traceback" not in said
    assert "d3Jvbmc" not in said


async def more(hub: SecureKafkaServer, name: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=hub.address)
    await producer.start()
    for value in values:
        await producer.send_and_wait(name, value, partition=0)
    await producer.stop()


def fed(said: str) -> dict[str, Any]:
    """The last line `fed` that the feed logged."""
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{") and '"fed"' in line]
    last: dict[str, Any] = found[-1]
    return last


# Log Analytics


@asynccontextmanager
async def azure(workspace: Workspace, folder: Path) -> AsyncIterator[dict[str, str]]:
    """The workspace behind TLS and the endpoint of a managed identity, both on loopback; yields how to find them."""
    made = certificates(["localhost"])
    workspace.now_us = 1 << 62
    app = web.Application()
    app.router.add_post("/v1/workspaces/{workspace}/query", workspace.answer)
    secure, plain = web.AppRunner(app), web.AppRunner(_identity())
    for runner in (secure, plain):
        await runner.setup()
    try:
        await web.TCPSite(secure, LOOPBACK, 0, ssl_context=made.server).start()
        await web.TCPSite(plain, LOOPBACK, 0).start()
        [certificate] = made.client.get_ca_certs(binary_form=True)
        (folder / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(certificate))
        yield {
            "KEYTRAIL_FEED_WORKSPACE_ID": WORKSPACE,
            "KEYTRAIL_FEED_LOG_ANALYTICS_ENDPOINT": f"https://localhost:{secure.addresses[0][1]}",
            "KEYTRAIL_FEED_TABLES": json.dumps([AUDIT]),
            "KEYTRAIL_FEED_POLL_S": "5",
            "KEYTRAIL_FEED_OVERLAP_S": "60",
            "KEYTRAIL_FEED_WINDOW_S": "600",
            "KEYTRAIL_FEED_PAGE_ROWS": "50",
            "IDENTITY_ENDPOINT": f"http://{LOOPBACK}:{plain.addresses[0][1]}/token",
            "IDENTITY_HEADER": "of-this-machine",
            "SSL_CERT_FILE": str(folder / "ca.pem"),
            "NO_PROXY": "*",
        }
    finally:
        for runner in (secure, plain):
            await runner.cleanup()


def _identity() -> web.Application:
    """The endpoint that App Service and its like give a process for the tokens of its identity."""

    async def token(request: web.Request) -> web.Response:
        assert request.headers["X-IDENTITY-HEADER"] == "of-this-machine"
        expires = SystemClock().now_us() // SECOND + 3_600
        told = {"access_token": "token-of-this-test", "expires_on": str(expires), "token_type": "Bearer"}
        return web.json_response(told | {"resource": request.query["resource"]})

    app = web.Application()
    app.router.add_get("/token", token)
    return app


def grow(workspace: Workspace, first: int, count: int, *, at_us: int) -> None:
    for number in range(first, first + count):
        workspace.add(AUDIT, audit_row(number), ingested_us=at_us + number)


async def test_a_workspace_is_polled_until_sigterm_and_the_next_start_asks_only_for_what_is_new(
    kafka: str, tmp_path: Path
) -> None:
    settings, workspace = await deployment(kafka, tmp_path), Workspace()
    now_us = SystemClock().now_us()
    grow(workspace, 0, 500, at_us=now_us - HOUR)

    async with azure(workspace, tmp_path) as environment:
        async with command("log-analytics", settings, tmp_path, **environment) as first:
            await landed(settings, wait_for=500)
            await polled(tmp_path, now_us)
            code, said = await ended(first)
        cursor = load_cursor(tmp_path / "positions" / f"{WORKSPACE}.{AUDIT}.json")
        grow(workspace, 500, 70, at_us=SystemClock().now_us())
        asked = len(workspace.queries)
        async with command("log-analytics", settings, tmp_path, **environment) as second:
            found = await landed(settings, wait_for=570)
            code_after, said_after = await ended(second)

    assert (code, code_after) == (0, 0), said + said_after
    assert cursor is not None
    assert cursor.ingested_before_us >= now_us
    assert len(found) == len(set(accesses(found))) == 570, "nothing twice, nothing lost"
    assert len(workspace.queries) - asked < 5, "it does not begin again a day back"
    assert "Traceback" not in said + said_after
    assert "token-of-this-test" not in said + said_after


async def test_sigterm_while_pages_are_read_keeps_the_cursor_behind_what_arrived(kafka: str, tmp_path: Path) -> None:
    settings, workspace = await deployment(kafka, tmp_path), Workspace()
    grow(workspace, 0, 1_200, at_us=SystemClock().now_us() - HOUR)

    async with azure(workspace, tmp_path) as environment:
        async with command("log-analytics", settings, tmp_path, **environment) as first:
            await landed(settings, wait_for=1)
            code, said = await ended(first)
        at_end = len(await landed(settings))
        async with command("log-analytics", settings, tmp_path, **environment) as second:
            found = await landed(settings, wait_for=1_200)
            async with asyncio.timeout(60):
                while len(set(accesses(found))) < 1_200:
                    found = await landed(settings)
            code_after, _ = await ended(second)

    assert (code, code_after) == (0, 0), said
    assert 0 < at_end < 1_200, "it ended too late to show anything"
    assert len(accesses(found)) == 1_200


async def test_a_missing_right_ends_the_command_with_what_azure_said(kafka: str, tmp_path: Path) -> None:
    settings, workspace = await deployment(kafka, tmp_path), Workspace()
    workspace.faults = [refused(403, "InsufficientAccessError")]

    async with (
        azure(workspace, tmp_path) as environment,
        command("log-analytics", settings, tmp_path, **environment) as process,
    ):
        code, said = await ended(process, tell=False)

    assert code == UNREACHABLE
    assert "keytrail: Azure refused: HttpResponseError, HTTP 403, InsufficientAccessError" in said
    assert "Traceback" not in said


async def test_a_machine_without_an_identity_is_told_so(kafka: str, tmp_path: Path) -> None:
    settings, workspace = await deployment(kafka, tmp_path), Workspace()

    async with azure(workspace, tmp_path) as environment:
        environment["IDENTITY_ENDPOINT"] = f"http://{LOOPBACK}:9/token"
        async with command("log-analytics", settings, tmp_path, **environment) as process:
            code, said = await ended(process, tell=False)

    assert code == UNREACHABLE, said
    assert "keytrail: Azure refused: " in said
    assert "Traceback" not in said


async def polled(folder: Path, until_us: int) -> None:
    """Wait for the cursor to be at a moment."""
    async with asyncio.timeout(60):
        while True:
            path = folder / "positions" / f"{WORKSPACE}.{AUDIT}.json"
            cursor = load_cursor(path) if path.exists() else None
            if cursor is not None and cursor.ingested_before_us >= until_us:
                return
            await asyncio.sleep(0.1)
