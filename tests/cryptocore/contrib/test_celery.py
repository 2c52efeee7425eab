"""The Celery example: who sent a task acts in it, and two hundred recycled children lose no event."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from celery.contrib.testing.worker import start_worker

from cryptocore import Owner, Signer, acting, testing
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Operation
from examples import celery_app
from tests.cryptocore.services import adopt_what_is_left, lines_in

ROOT = Path(__file__).parents[3]
CHILDREN = 200


def test_a_task_acts_as_whom_it_was_sent_by_and_a_scheduled_one_as_the_scheduler() -> None:
    with testing.blocking_core() as core:
        app = celery_app.make_app(core, broker="memory://", result_backend="cache+memory://")
        with acting(actor="user:0", purpose="p"):
            core.sync.encrypt(b"x", owner=Owner.tenant("t-88", "crm"), record="r", create_missing=True)
        with acting(actor="user:4711", purpose="sign-up"):
            first = app.tasks["tokens.save"].delay("t-88", "17", "refresh-me")
        second = app.tasks["tokens.save"].delay("t-88", "18", "refresh-me")
        with start_worker(app, pool="solo", perform_ping_check=False):
            stored = first.get(timeout=20)
            second.get(timeout=20)
        with acting(actor="user:4712", purpose="p"):
            assert app.tasks["tokens.sync"].apply(("t-88", "17", stored)).get() == len("refresh-me")
        [eager] = core.events.only(Operation.DECRYPT)
        assert eager.actor == "user:4712", "a task that runs where it is called acts as who calls it"

        actors = [(event.actor, event.purpose) for event in core.events.only(Operation.ENCRYPT)]
    assert actors == [("user:0", "p"), ("user:4711", "store-token"), ("job:scheduler", "store-token")]


@pytest.mark.faults
def test_two_hundred_recycled_children_of_which_some_are_killed_lose_no_event(tmp_path: Path) -> None:
    signer = Signer.generate()
    signer.write_file(tmp_path / "signer")
    environment = os.environ | {"KEYTRAIL_TEST_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    sender = (
        "from tests.cryptocore import celery_worker as worker\n"
        f"worker.prepare()\nassert len(worker.send({CHILDREN})) == {CHILDREN}\n"
    )
    subprocess.run([sys.executable, "-c", sender], env=environment, check=True, timeout=60)
    said = (tmp_path / "worker.out").open("wb")
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "--app", "tests.cryptocore.celery_worker", "worker"),
            *("--concurrency", "4", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"),
            *("--without-heartbeat", "--pool", "prefork"),
        ],
        env=environment,
        stdout=said,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
    )
    try:
        wait_for(tmp_path / "handed-out", CHILDREN, worker)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
        said.close()
    asyncio.run(adopt_what_is_left(tmp_path, signer))

    handed_out = (tmp_path / "handed-out").read_text().split()
    lines = lines_in(tmp_path, signer)
    events = [line for line in lines if isinstance(line, AuditEvent) and line.operation is Operation.ENCRYPT]
    arrived = Counter(event.actor for event in events if event.actor.startswith("user:"))
    assert len(set(handed_out)) == CHILDREN
    assert arrived == Counter(f"user:{number}" for number in handed_out)
    assert {event.purpose for event in events} == {"store-token"}
    opened = sum(isinstance(line, ChainOpen) and line.continues is None for line in lines)
    assert opened >= CHILDREN, "each child is an instance of its own"
    assert sum(isinstance(line, ChainClose) for line in lines) == opened
    assert sum(isinstance(line, ChainOpen) and line.continues is not None for line in lines) >= CHILDREN // 10
    assert list((tmp_path / "spool").iterdir()) == []


def wait_for(file: Path, lines: int, worker: "subprocess.Popen[bytes]", timeout_s: float = 150) -> None:
    deadline = time.monotonic() + timeout_s
    while not file.exists() or file.read_bytes().count(b"\n") < lines:
        assert worker.poll() is None, "the worker has ended"
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)
