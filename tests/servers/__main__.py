"""`python -m tests.servers fetch | status | verify | start`: what `make servers` and people call.

`fetch` gets what is missing; `status` says what is there; `verify` starts each server once and asks it; `start` runs
all that can run until Ctrl-C and prints the variables that point the tests at them. What this machine cannot run is
said, and is a failure only with KEYTRAIL_REQUIRE_SERVERS=1.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack

from tests.servers import jars
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.kafka import KafkaServer
from tests.servers.machine import MissingServerError
from tests.servers.postgres import PostgresServer
from tests.servers.process import Server, ServerFailedError

SERVERS: dict[type[Server], str] = {
    KafkaServer: "KEYTRAIL_TEST_KAFKA",
    ElasticsearchServer: "KEYTRAIL_TEST_ELASTICSEARCH",
    PostgresServer: "KEYTRAIL_TEST_POSTGRES",
}


def say(line: str) -> None:
    """One line at once: these commands run for seconds, and their reader waits."""
    sys.stdout.write(f"servers: {line}\n")
    sys.stdout.flush()


def fetch() -> bool:
    complete = True
    for server in jars.JAVA_SERVERS:
        name = f"{server} {jars.version(server)}"
        if jars.folder(server).is_dir():
            continue
        try:
            jars.maven()
            say(f"fetching {name} with Maven, about 45 MB")
            jars.fetch(server)
        except MissingServerError as missing:
            say(f"{name}: {missing}; its tests will be skipped by name")
            complete = False
    return complete


def status() -> bool:
    complete = True
    for server, outside in SERVERS.items():
        if address := os.environ.get(outside):
            say(f"{server.name}: outside, at {address} ({outside})")
            continue
        try:
            server().close()
        except MissingServerError as missing:
            say(f"{server.name}: not here: {missing}")
            complete = False
        else:
            say(f"{server.name}: ready to start")
    return complete


def verify() -> bool:
    complete = True
    for server in SERVERS:
        began = time.monotonic()
        try:
            with server() as started:
                say(f"{server.name}: serves on {started.address} after {time.monotonic() - began:.1f} s")
        except (MissingServerError, ServerFailedError) as missing:
            say(f"{server.name}: not here: {missing}")
            complete = False
    return complete


def start() -> bool:
    with ExitStack() as running:
        for server, outside in SERVERS.items():
            try:
                started = running.enter_context(server())
            except MissingServerError as missing:
                say(f"{server.name}: not here: {missing}")
                continue
            sys.stdout.write(f"export {outside}={started.address}\n")
            sys.stdout.flush()
        say("running until Ctrl-C")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return True


def main(arguments: list[str]) -> int:
    actions = {"fetch": fetch, "status": status, "verify": verify, "start": start}
    if not arguments or any(argument not in actions for argument in arguments):
        sys.stderr.write(__doc__ or "")
        return 64
    if arguments == ["start"]:  # before a thread exists, so that every thread leaves the signals to sigwait
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    complete = [actions[argument]() for argument in arguments]
    return 1 if not all(complete) and os.environ.get("KEYTRAIL_REQUIRE_SERVERS") == "1" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
