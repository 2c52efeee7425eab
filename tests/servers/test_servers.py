"""The fixtures themselves: each server starts, answers, takes what fault tests do to it, and ends with the run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from elasticsearch import AsyncElasticsearch
from sqlalchemy import make_url

from tests.servers import jars, machine, session
from tests.servers.kafka import KafkaServer
from tests.servers.machine import MissingServerError
from tests.servers.postgres import PostgresServer


async def make_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def transaction(bootstrap: str, topic: str, *values: bytes, commit: bool) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{topic}-writer") as producer:
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(topic, value)
        await (producer.commit_transaction() if commit else producer.abort_transaction())


async def read_committed(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    async with consumer:
        return [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in range(count)]


async def test_kafka_shows_a_committed_transaction_and_hides_an_aborted_one(kafka: str) -> None:
    topic = f"servers-{uuid4().hex}"
    await make_topic(kafka, topic)

    await transaction(kafka, topic, b"never", commit=False)
    await transaction(kafka, topic, b"one", b"two", commit=True)

    assert await read_committed(kafka, topic, 2) == [b"one", b"two"]


async def test_elasticsearch_finds_what_was_indexed(elasticsearch_url: str) -> None:
    index = f"servers-{uuid4().hex}"
    async with AsyncElasticsearch(elasticsearch_url) as client:
        await client.index(index=index, id="1", document={"actor": "checkout"}, refresh="wait_for")

        found = await client.search(index=index, query={"match": {"actor": "checkout"}})

        assert [hit["_id"] for hit in found["hits"]["hits"]] == ["1"]


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(plain(postgres_url)) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

        assert tables == (0,)


def test_postgres_keeps_a_commit_through_a_kill(own_postgres: PostgresServer) -> None:
    address = plain(own_postgres.address)
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    first = own_postgres.pid

    own_postgres.kill()
    own_postgres.start()

    assert own_postgres.pid != first
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


async def test_kafka_comes_back_on_its_port_with_its_data_after_a_kill(own_kafka: KafkaServer) -> None:
    address = own_kafka.address
    await make_topic(address, "kept")
    await transaction(address, "kept", b"one", commit=True)

    own_kafka.kill()
    own_kafka.restart()

    assert own_kafka.address == address
    assert await read_committed(address, "kept", 1) == [b"one"]


OUTLIVED = """
import sys
from tests.servers.postgres import PostgresServer
server = PostgresServer()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.servers
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the kernel's parent-death signal is Linux only")
def test_a_server_ends_when_the_run_that_started_it_is_killed() -> None:
    try:
        machine.postgres_binaries()
    except MissingServerError as missing:
        session.refuse("PostgreSQL", str(missing))
    command = [sys.executable, "-c", OUTLIVED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        assert Path(f"/proc/{pid}").is_dir()

        run.kill()

        deadline = time.monotonic() + 20
        while alive(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not alive(int(pid))
    subprocess.run(["rm", "-rf", folder], check=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_unwanted_java_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTRAIL_ES_JAVA", os.devnull)

    with pytest.raises(MissingServerError, match="is not a Java 21 or newer"):
        machine.java(21, "KEYTRAIL_ES_JAVA")


def test_a_machine_without_java_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("KEYTRAIL_JAVA", raising=False)
    monkeypatch.setattr(machine, "DEBIAN_JDKS", tmp_path)

    with pytest.raises(MissingServerError, match="needs Java 17 or newer, this machine has no Java at all"):
        machine.java(17, "KEYTRAIL_JAVA")


def test_jars_that_are_not_fetched_are_a_reason_not_a_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYTRAIL_SERVERS_DIR", str(tmp_path))

    with pytest.raises(MissingServerError, match="make servers"):
        jars.fetched("kafka")


def test_a_missing_server_skips_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(session.REQUIRE, raising=False)

    with pytest.raises(pytest.skip.Exception, match="not tested without a server: Kafka: no Java"):
        session.refuse("Kafka", "no Java")


def test_a_missing_server_fails_where_servers_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(session.REQUIRE, "1")

    with pytest.raises(pytest.fail.Exception, match="Kafka is required"):
        session.refuse("Kafka", "no Java")


def test_a_run_without_servers_passes_and_prints_the_count(tmp_path: Path) -> None:
    """The whole promise, as a person without Java meets it: exit 0, each skip named, one total."""
    bare = {"PATH": "", "KEYTRAIL_SERVERS_DIR": str(tmp_path), "KEYTRAIL_POSTGRES_BIN": str(tmp_path)}
    here = Path(__file__)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        str(here),
        "-k",
        "kafka_shows or postgres_gives",
    ]

    run = subprocess.run(command, env=bare, cwd=jars.HERE.parent.parent, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 tests not run for lack of servers" in run.stdout
    assert "1 PostgreSQL: no PostgreSQL server binaries" in run.stdout


def test_signals_reach_only_the_process_that_was_started(own_postgres: PostgresServer) -> None:
    own_postgres.pause()
    assert own_postgres.pid is not None
    stopped = Path(f"/proc/{own_postgres.pid}/stat")
    if not stopped.exists():
        pytest.skip("needs /proc to look at the process")

    deadline = time.monotonic() + 10
    while (state := stopped.read_text().rpartition(")")[2].split()[0]) != "T" and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel stops a process when it next runs
    assert state == "T"

    os.kill(own_postgres.pid, signal.SIGCONT)
