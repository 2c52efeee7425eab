"""The pytest side: an outside address or a server of our own, skip or fail where there is none, and their count."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

from tests.servers.machine import MissingServerError
from tests.servers.process import Server

REQUIRE = "KEYTRAIL_REQUIRE_SERVERS"
NOT_TESTED = "not tested without a server:"

S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: type[Server], outside: str) -> Iterator[str]:
    """The address in the environment variable `outside`, else that of a server which runs until the block ends."""
    if address := os.environ.get(outside):
        yield address
        return
    with own(server) as started:
        yield started.address


@contextmanager
def own(server: type[S]) -> Iterator[S]:
    """A running server of the test's own, to kill, pause and restart."""
    try:
        built = server()
    except MissingServerError as missing:
        refuse(server.name, str(missing))
    with built as started:
        yield started


def refuse(name: str, reason: str) -> None:
    """Skip by name with the reason; where servers are required (CI), fail."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{name} is required ({REQUIRE}=1): {reason}", pytrace=False)
    pytest.skip(f"{NOT_TESTED} {name}: {reason}")


def not_tested(skipped: Sequence[pytest.TestReport]) -> dict[str, int]:
    """How many tests each server kept from running, by the server's name and reason."""
    counts: dict[str, int] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if NOT_TESTED in reason:
            what = reason.partition(NOT_TESTED)[2].strip()
            counts[what] = counts.get(what, 0) + 1
    return counts
