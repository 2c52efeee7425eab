"""Session fixtures for real servers, the order of the run, and the count of what had no server to be tested with."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
import structlog
from sqlalchemy import make_url

from tests.servers import session
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

SERVER_FIXTURES = {
    "kafka",
    "elasticsearch_url",
    "postgres_server_url",
    "own_kafka",
    "own_elasticsearch",
    "own_postgres",
}


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command that runs in this process sets up for a process of its own."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a broker that all tests share: name topics and groups for the test."""
    with session.serving(KafkaServer, "KEYTRAIL_TEST_KAFKA") as address:
        yield address


@pytest.fixture(scope="session")
def elasticsearch_url() -> Iterator[str]:
    """URL of a node that all tests share: name indices for the test."""
    with session.serving(ElasticsearchServer, "KEYTRAIL_TEST_ELASTICSEARCH") as address:
        yield address


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """SQLAlchemy URL of the server that all tests share."""
    with session.serving(PostgresServer, "KEYTRAIL_TEST_POSTGRES") as address:
        yield address


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """SQLAlchemy URL of an empty database of this test's own, on the shared server."""
    with database_on(postgres_server_url) as url:
        yield url


@contextmanager
def database_on(server_url: str) -> Iterator[str]:
    """SQLAlchemy URL of an empty database on a server, for as long as the block runs."""
    server = make_url(server_url)
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    database = f"test_{uuid4().hex}"
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database}"'.encode())
    yield server.set(database=database).render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'.encode())


@pytest.fixture
def own_kafka() -> Iterator[KafkaServer]:
    """A broker that this test may kill, pause and restart."""
    with session.own(KafkaServer) as server:
        yield server


@pytest.fixture
def own_elasticsearch() -> Iterator[ElasticsearchServer]:
    """A node that this test may kill, pause and restart."""
    with session.own(ElasticsearchServer) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A database server that this test may kill, pause and restart."""
    with session.own(PostgresServer) as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests first, then what needs servers, then what breaks them."""
    for item in items:
        if SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)
    items.sort(key=lambda item: bool(item.get_closest_marker("servers")) + 2 * bool(item.get_closest_marker("faults")))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for lack of a server; a skip among hundreds of dots is easily missed."""
    counts = session.not_tested(terminalreporter.stats.get("skipped", []))
    if counts:
        terminalreporter.section(f"{sum(counts.values())} tests not run for lack of servers")
        for what, count in sorted(counts.items()):
            terminalreporter.line(f"{count:4d} {what}")
