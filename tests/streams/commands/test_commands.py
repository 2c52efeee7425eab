"""Commands as people call them: what they print, and how they end when something is not there."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from typer.testing import CliRunner, Result

from alerts.words import short_id
from streams.cli import app
from streams.commands.terminal import NOT_ALL_WELL, SOME_REJECTED, UNREACHABLE, WRONG_USE
from streams.conduct.observations import BaselineCommand, decode
from streams.log import statelog_kafka
from streams.log.statelog import Position, partition_of
from streams.log.statelog_kafka import KafkaStateLog
from streams.messages import VAULT_ACCESS, WHO
from streams.running.rereading import committed
from streams.settings import Settings
from streams.state import State
from streams.vaultlogs.messages import decode as decode_access
from tests.servers.machine import free_port
from tests.streams.vaultlogs.records import record
from tests.streams.watching import SERVICE, Watch, past
from tests.streams.working import fresh

DEFAULT_PARTITIONS = {"KEYTRAIL_PARTITIONS": "2"}


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment)


def environment(settings: Settings) -> dict[str, str]:
    named = {"KEYTRAIL_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix}
    return named | DEFAULT_PARTITIONS


def nowhere(tmp_path: Path) -> dict[str, str]:
    """Settings that name a broker which nobody runs, and an empty folder for positions."""
    address = f"127.0.0.1:{free_port()}"
    return {"KEYTRAIL_KAFKA_BOOTSTRAP": address, "KEYTRAIL_FEED_STATE_DIR": str(tmp_path / "state")}


async def read_a_state_topic(connection: dict[str, Any]) -> None:
    await statelog_kafka.read("state", 0, State(), connection=connection)


async def read_a_topic(connection: dict[str, Any]) -> None:
    assert [record async for record in committed(connection, "rejected", 0)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("topics", "ensure"),
        ("rejected", "list"),
        ("baselines", "show", SERVICE),
        ("baselines", "accept", SERVICE, "--by", "user:ann"),
        ("vault-feed", "files", "."),
    ],
)
def test_a_broker_that_is_not_there_is_told_in_a_sentence(arguments: tuple[str, ...], tmp_path: Path) -> None:
    settings = nowhere(tmp_path)

    result = run(*arguments, **settings)

    assert result.exit_code == UNREACHABLE
    assert f"keytrail: cannot reach Kafka at {settings['KEYTRAIL_KAFKA_BOOTSTRAP']}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("read", [read_a_state_topic, read_a_topic])
async def test_a_reader_that_cannot_reach_the_log_leaves_no_consumer_open(
    read: Callable[[dict[str, Any]], Awaitable[object]], recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(KafkaConnectionError):
        await read({"bootstrap_servers": f"127.0.0.1:{free_port()}"})
    gc.collect()

    assert [str(one.message) for one in recwarn if "Unclosed" in str(one.message)] == []


def test_a_worker_without_a_broker_ends_with_a_sentence(tmp_path: Path) -> None:
    registry = tmp_path / "deployment"
    assert run("sources", "init", "--out", str(registry), "--service", "billing").exit_code == 0

    result = run("worker", KEYTRAIL_SOURCES_FILE=str(registry / "sources.json"), **nowhere(tmp_path))

    assert result.exit_code == UNREACHABLE
    assert "keytrail: cannot reach Kafka at" in result.stderr


def test_a_worker_with_an_unusable_registry_ends_with_the_field_that_is_wrong(tmp_path: Path) -> None:
    registry = tmp_path / "sources.json"
    registry.write_text("{}")

    result = run("worker", KEYTRAIL_SOURCES_FILE=str(registry))

    assert result.exit_code == WRONG_USE
    assert f"keytrail: {registry} is no registry of signers" in result.stderr
    assert "file.v: missing" in result.stderr
    assert isinstance(result.exception, SystemExit), "no traceback"


@pytest.mark.parametrize("variable", ["KEYTRAIL_VAULTS_FILE", "KEYTRAIL_ALLOWED_FILE"])
def test_a_worker_names_the_reviewed_file_that_it_cannot_use(tmp_path: Path, variable: str) -> None:
    assert run("sources", "init", "--out", str(tmp_path / "dev"), "--service", "billing").exit_code == 0
    (tmp_path / "file.toml").write_text("nonsense")
    files = {"KEYTRAIL_SOURCES_FILE": str(tmp_path / "dev" / "sources.json"), variable: str(tmp_path / "file.toml")}

    result = run("worker", **files)

    assert result.exit_code == WRONG_USE
    assert f"keytrail: {tmp_path / 'file.toml'} ({variable}): file: not TOML" in result.stderr


def test_a_feed_that_is_not_configured_names_the_variable(tmp_path: Path) -> None:
    hub = run("vault-feed", "eventhub", **nowhere(tmp_path))
    workspace = run("vault-feed", "log-analytics", **nowhere(tmp_path))

    assert (hub.exit_code, workspace.exit_code) == (WRONG_USE, WRONG_USE)
    assert "KEYTRAIL_FEED_EVENTHUB_BOOTSTRAP is not set" in hub.stderr
    assert "KEYTRAIL_FEED_WORKSPACE_ID is not set" in workspace.stderr


def test_settings_that_are_wrong_are_named_without_their_values(tmp_path: Path) -> None:
    result = run("topics", "ensure", KEYTRAIL_PARTITIONS="many")
    feed = run("vault-feed", "files", str(tmp_path), KEYTRAIL_FEED_FILES_POLL_S="often")

    assert (result.exit_code, feed.exit_code) == (WRONG_USE, WRONG_USE)
    assert "partitions: " in result.stderr
    assert "many" not in result.stderr
    assert "files_poll_s: " in feed.stderr


def test_files_are_fed_once_and_a_bad_line_shows_in_the_exit_code(kafka: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    export = tmp_path / "PT1H.json"
    export.write_text(json.dumps(record("KeyUnwrap")) + "\n" + "no json\n")
    state = {"KEYTRAIL_FEED_STATE_DIR": str(tmp_path / "state")}

    first = run("vault-feed", "files", str(export), **environment(settings), **state)
    again = run("vault-feed", "files", str(export), **environment(settings), **state)

    assert (first.exit_code, again.exit_code) == (SOME_REJECTED, 0)
    [value] = asyncio.run(read_all(settings, VAULT_ACCESS))
    assert decode_access(value).feed == "files"


def test_a_decision_about_a_baseline_reaches_the_principals_partition(kafka: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))

    result = run(
        "baselines", "reset", SERVICE.upper(), "--by", "user:ann", "--vault", "KV-Prod", **environment(settings)
    )

    assert result.exit_code == 0, result.stderr
    [value] = asyncio.run(read_all(settings, WHO, partition_of(SERVICE.encode(), 2)))
    said = decode(value)
    assert isinstance(said, BaselineCommand)
    assert (said.act, said.principal, said.vault, said.person) == ("reset", SERVICE, "kv-prod", "user:ann")
    assert said.id in result.stdout.replace("\n", "")


def test_what_is_usual_is_shown_from_the_last_commit(kafka: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    asyncio.run(learned(settings))

    shown = run("baselines", "show", SERVICE, "--json", **environment(settings))
    table = run("baselines", "show", SERVICE, **environment(settings))
    unknown = run("baselines", "show", "nobody", **environment(settings))

    assert shown.exit_code == 0, shown.stderr
    assert [one["object"] for one in json.loads(shown.stdout)["baselines"]] == ["secret smtp"]
    assert "secret smtp" in table.stdout
    assert unknown.exit_code == NOT_ALL_WELL
    assert "no baseline of nobody" in unknown.stderr


def test_a_missing_topic_is_named_with_the_command_that_makes_it(kafka: str) -> None:
    result = run("baselines", "show", SERVICE, KEYTRAIL_KAFKA_BOOTSTRAP=kafka, KEYTRAIL_TOPIC_PREFIX="absent.")

    assert result.exit_code == WRONG_USE
    assert "absent.keytrail.state.who: is missing" in result.stderr


def test_a_principal_is_found_by_the_form_that_alerts_show_in_whichever_partition_it_is(
    kafka: str, tmp_path: Path
) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    twin, short = "aaaa0000-2222-4000-8000-00000000000a", short_id(SERVICE)
    assert partition_of(twin.encode(), 2) != partition_of(SERVICE.encode(), 2), "a test of both partitions"
    asyncio.run(learned(settings))
    alone = run("baselines", "show", short, "--json", **environment(settings))
    asyncio.run(learned(settings, twin))

    of_two = run("baselines", "show", short, **environment(settings))
    by_its_start = run("baselines", "show", twin[:13].upper(), "--json", **environment(settings))
    decided = run("baselines", "accept", short, "--by", "user:ann", **environment(settings))

    assert json.loads(alone.stdout)["principal"] == SERVICE
    assert json.loads(by_its_start.stdout)["principal"] == twin
    assert of_two.exit_code == WRONG_USE
    assert f"{short} fits 2 principals; write more of the id:" in of_two.stderr
    assert f"  {SERVICE} (workload, no name known)\n  {twin} (" in of_two.stderr
    assert decided.exit_code == WRONG_USE
    assert "a decision needs the whole one" in decided.stderr
    assert asyncio.run(read_all(settings, WHO)) == [], "nothing was decided about nobody"


def test_what_comes_before_its_topic_is_made_says_which_command_makes_it(kafka: str, tmp_path: Path) -> None:
    export = tmp_path / "PT1H.json"
    export.write_text(json.dumps(record("KeyUnwrap")) + "\n")
    prefix = f"t{uuid4().hex[:8]}."
    told = nowhere(tmp_path) | {"KEYTRAIL_KAFKA_BOOTSTRAP": kafka, "KEYTRAIL_TOPIC_PREFIX": prefix}

    fed = run("vault-feed", "files", str(export), **told)
    listed = run("rejected", "list", **told)

    assert (fed.exit_code, listed.exit_code) == (WRONG_USE, WRONG_USE)
    assert fed.stderr == f"keytrail: topic {prefix}vault-access is missing; see `keytrail topics ensure`\n"
    assert listed.stderr == f"keytrail: topic {prefix}rejected is missing; see `keytrail topics ensure`\n"
    assert prefix not in " ".join(asyncio.run(topics_of(kafka))), "looking for a topic makes none"


async def topics_of(kafka: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()


async def learned(settings: Settings, who: str = SERVICE) -> None:
    """Commit what a who agent learned, as its owner does."""
    watch = Watch().feed(*past(10, who=who)).settle()
    log = KafkaStateLog(
        transactional_id=f"{settings.topic_prefix}who",
        topic=settings.state_topic(WHO),
        partition=partition_of(who.encode(), settings.partitions),
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )
    await log.open(type(watch.state)())
    watch.state.cut()
    changes = list(watch.state.dump().items())
    await log.commit(changes, Position(applied=1, indexed=1, skip=(), now_ms=1), [])
    await log.close()


async def read_all(settings: Settings, topic: str, partition: int | None = None) -> list[bytes]:
    consumer = AIOKafkaConsumer(**settings.kafka_connection(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        numbers = range(settings.partitions) if partition is None else (partition,)
        places = [TopicPartition(settings.topic(topic), number) for number in numbers]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: list[bytes] = []
        while sum(ends.values()) > len(found):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [one.value for one in records]
        return found
    finally:
        await consumer.stop()
