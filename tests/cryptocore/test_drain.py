"""`keytrail drain`: what killed processes left is sent, what is in use is left alone, and a signal ends it in order."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryptocore import Signer, acting
from cryptocore.clock import SystemClock
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Operation
from cryptocore.lines.vocabulary import Durability
from cryptocore.spool.drain import Drain, Drained
from cryptocore.spool.file import Identity
from cryptocore.spool.lock import spools_of
from cryptocore.spool.orphans import Orphans
from streams.cli import app
from tests.cryptocore.filelog import FileTransport, read_log
from tests.cryptocore.services import OWNER, PARTITIONS, SERVICE, actors_in, lines_in, local_core, registry_of
from tests.cryptocore.spooling import received
from tests.cryptocore.test_forking import in_child
from tests.cryptocore.test_kafka import make_topic, read_all

ROOT = Path(__file__).parents[2]
KEYTRAIL = Path(sys.executable).with_name("keytrail")
SIGNER = Signer.generate()


def drain_of(directory: Path, signer: Signer = SIGNER, transport: FileTransport | None = None) -> Drain:
    identity = Identity(SERVICE, bytes(16), os.urandom(16), 1, PARTITIONS, Durability.VOLUME)
    log = transport or FileTransport(directory / "log")
    spools = directory / "spool"
    orphans = Orphans(spools, identity=lambda: identity, signer=signer, transport=log, clock=SystemClock())
    return Drain(orphans, log, directory=spools, service=SERVICE)


def leave_a_spool(directory: Path) -> None:
    """A process uses a key and is gone without closing anything."""

    def work() -> None:
        core = local_core(directory, SIGNER)
        with acting(actor=f"job:{os.getpid()}", purpose="p"):
            core.sync.encrypt(b"x", owner=OWNER, record="r", create_missing=True)

    in_child(work)


class Down(FileTransport):
    async def send(self, partition: int, batch: object) -> None:
        raise ConnectionError("the log is down")


async def test_what_a_killed_process_left_is_sent_and_removed_and_a_spool_in_use_is_not_touched(tmp_path: Path) -> None:
    async with local_core(tmp_path, SIGNER):
        leave_a_spool(tmp_path)
        before = len(spools_of(tmp_path / "spool", SERVICE))
        drain = drain_of(tmp_path)

        drained = await drain.once()
        await drain.close()

        assert (before, drained) == (2, Drained(ended=1, in_use=1))
        assert len(spools_of(tmp_path / "spool", SERVICE)) == 1
    lines = lines_in(tmp_path, SIGNER)
    assert sum(isinstance(line, ChainOpen) and line.continues is not None for line in lines) == 1
    assert sum(isinstance(line, ChainClose) for line in lines) == 2
    assert len(actors_in(tmp_path, SIGNER)) == 1


async def test_a_log_that_is_down_leaves_the_spool_for_the_next_time(tmp_path: Path) -> None:
    leave_a_spool(tmp_path)
    down = drain_of(tmp_path, transport=Down(tmp_path / "nowhere"))
    with pytest.raises(ConnectionError):
        await down.once()
    await down.close()

    again = drain_of(tmp_path)
    assert (await again.once()).ended == 1
    await again.close()
    assert len(actors_in(tmp_path, SIGNER)) == 1


def test_the_side_car_watches_until_it_is_told_to_stop(tmp_path: Path) -> None:
    SIGNER.write_file(tmp_path / "signer")
    (tmp_path / "spool").mkdir()
    script = (
        "import asyncio, pathlib, sys\n"
        "from cryptocore import Signer\n"
        "from tests.cryptocore.test_drain import drain_of\n"
        "at = pathlib.Path(sys.argv[1])\n"
        "async def main():\n"
        "    side_car = drain_of(at, Signer.from_file(at / 'signer'))\n"
        "    print('watching', flush=True)\n"
        "    await side_car.run(lambda drained: print(drained.ended, flush=True), watch=True, every_s=0.1)\n"
        "asyncio.run(main())\n"
        "print('ended', flush=True)\n"
    )
    side_car = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert side_car.stdout is not None
    assert side_car.stdout.readline() == "watching\n"
    leave_a_spool(tmp_path)
    assert side_car.stdout.readline() == "1\n"
    leave_a_spool(tmp_path)
    assert side_car.stdout.readline() == "1\n"
    side_car.send_signal(signal.SIGTERM)

    assert side_car.stdout.read() == "ended\n"
    assert side_car.wait(10) == 0
    side_car.stdout.close()
    assert list((tmp_path / "spool").iterdir()) == []
    assert len([line for line in lines_in(tmp_path, SIGNER) if isinstance(line, AuditEvent)]) >= 2


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    SIGNER.write_file(tmp_path / "signer")
    (tmp_path / "sources.json").write_bytes(registry_of(SIGNER).encode())
    (tmp_path / "spool").mkdir()
    for name, value in {
        "SERVICE": SERVICE,
        "SPOOL_DIR": str(tmp_path / "spool"),
        "REGISTRY_FILE": str(tmp_path / "sources.json"),
        "SIGNER_FILE": str(tmp_path / "signer"),
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "KAFKA_PARTITIONS": str(PARTITIONS),
    }.items():
        monkeypatch.setenv(f"KEYTRAIL_CORE_{name}", value)
    return monkeypatch


def test_the_command_has_nothing_to_do_in_an_empty_folder_and_needs_no_kafka_for_it(
    settings: pytest.MonkeyPatch,
) -> None:
    run = CliRunner().invoke(app, ["drain"])

    assert (run.exit_code, run.output) == (0, "0 spools sent and removed, 0 in use\n")


def test_the_command_says_which_log_does_not_answer_and_leaves_the_spool(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave_a_spool(tmp_path)
    run = CliRunner().invoke(app, ["drain"])

    assert run.exit_code == 4, run.output
    assert "Kafka does not answer" in run.output
    assert len(spools_of(tmp_path / "spool", SERVICE)) == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SIGNER_FILE", "", "KEYTRAIL_CORE_SIGNER_FILE"),
        ("SPOOL_DIR", "nowhere", "is no folder"),
        ("SERVICE", "shop", "is registered for billing, not for shop"),
        ("REGISTRY_FILE", "nowhere", "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_settings(
    settings: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    settings.setenv(f"KEYTRAIL_CORE_{name}", value)
    run = CliRunner().invoke(app, ["drain"])

    assert run.exit_code == 2
    assert said in run.output


@pytest.mark.servers
async def test_the_command_sends_what_a_killed_process_left_to_kafka(
    kafka: str, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    topic = await make_topic(kafka)
    settings.setenv("KEYTRAIL_CORE_KAFKA_BOOTSTRAP", kafka)
    settings.setenv("KEYTRAIL_CORE_KAFKA_TOPIC", topic)
    await asyncio.to_thread(leave_a_spool, tmp_path)
    sent_before = sum(isinstance(line, AuditEvent) for line in lines_in(tmp_path, SIGNER))

    def drain() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([KEYTRAIL, "drain"], capture_output=True, text=True, check=False, timeout=60)

    run = await asyncio.to_thread(drain)

    assert (run.returncode, run.stdout) == (0, "1 spool sent and removed, 0 in use\n"), run.stderr
    lines = [*read_log(tmp_path / "log"), *await read_all(kafka, topic)]
    events = [line for line in received(lines, registry_of(SIGNER)) if isinstance(line, AuditEvent)]
    assert len(events) > sent_before
    assert any(event.operation is Operation.ENCRYPT for event in events)
    assert list((tmp_path / "spool").iterdir()) == []
