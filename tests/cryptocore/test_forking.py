"""A core over a fork: made before and used in the child, used on both sides, and forked in the middle of its work."""

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cryptocore import CryptoCore, Signer, acting
from cryptocore.clock import SystemClock
from cryptocore.errors import AuditUnavailable
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Operation
from cryptocore.spool.lock import SpoolLock, spools_of
from tests.cryptocore.services import OWNER, SERVICE, actors_in, adopt_what_is_left, lines_in, local_core

ROOT = Path(__file__).parents[2]
SIGNER = Signer.generate()


def in_child(work: Callable[[], object]) -> None:
    """Run in a forked child, which ends at once after it; its failure is ours."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as err:  # noqa: BLE001 - the parent fails the test
            os.write(2, f"{err!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def encrypt(core: CryptoCore, actor: str, *, create_missing: bool = False) -> bytes:
    with acting(actor=actor, purpose="store-token"):
        return core.sync.encrypt(b"token", owner=OWNER, record="r", create_missing=create_missing)


def test_a_core_made_before_the_fork_and_used_in_two_children_is_two_instances(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)

    def work() -> None:
        encrypt(core, f"job:{os.getpid()}", create_missing=True)
        core.sync.close()

    in_child(work)
    in_child(work)

    lines = lines_in(tmp_path, SIGNER)
    assert sum(isinstance(line, ChainOpen) for line in lines) == 2
    assert sum(isinstance(line, ChainClose) for line in lines) == 2
    assert len(actors_in(tmp_path, SIGNER)) == 2


def test_a_core_used_before_the_fork_is_another_instance_in_the_child_and_the_parents_goes_on(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    stored = encrypt(core, "job:parent", create_missing=True)
    parents = core.parts.audit.emitter.instance

    def work() -> None:
        assert core.parts.audit.emitter.instance != parents
        with acting(actor="job:child", purpose="crm-sync"):
            assert core.sync.decrypt(stored, owner=OWNER, record="r") == b"token"
        core.sync.close()

    in_child(work)
    [own] = spools_of(tmp_path / "spool", SERVICE)
    assert SpoolLock.take(own) is None, "the child has not let go of the parent's spool"
    encrypt(core, "job:parent")
    core.sync.close()

    assert actors_in(tmp_path, SIGNER) == Counter({"job:parent": 2 + 2, "job:child": 1})
    unwraps = [
        line.actor
        for line in lines_in(tmp_path, SIGNER)
        if isinstance(line, AuditEvent) and line.operation is Operation.UNWRAP and line.phase == "outcome"
    ]
    assert unwraps.count("job:child") == 1, "the child has no DEK of its parent"


def test_a_child_that_is_killed_leaves_its_spool_to_the_next_process(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    encrypt(core, "job:parent", create_missing=True)

    in_child(lambda: encrypt(core, "job:child"))  # and ends without closing anything
    core.sync.close()
    asyncio.run(adopt_what_is_left(tmp_path, SIGNER))

    assert actors_in(tmp_path, SIGNER)["job:child"] == 1
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_vault_of_tokens_made_before_the_fork_keeps_and_gives_tokens_in_the_child(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    vault = core.tokens
    encrypt(core, "job:parent", create_missing=True)

    def work() -> None:
        with acting(actor="job:child", purpose="store-token"):
            later_ms = SystemClock().now_us() // 1000 + 3_600_000
            core.sync.run(vault.store(OWNER, "access", b"token", expires_at_ms=later_ms))
            assert core.sync.run(vault.use(OWNER, "access")) == b"token"
        core.sync.close()

    in_child(work)
    core.sync.close()


def test_forked_while_other_threads_work_no_event_is_lost_or_doubled(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    encrypt(core, "job:first", create_missing=True)
    done = threading.Event()
    handed_out = Counter[str]()

    def keep_on(actor: str) -> None:
        while not done.is_set():
            encrypt(core, actor)
            handed_out[actor] += 1

    threads = [threading.Thread(target=keep_on, args=(f"job:thread-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    chance = random.Random(5)
    for number in range(12):
        threading.Event().wait(chance.random() * 0.03)
        in_child(lambda number=number: [encrypt(core, f"job:child-{number}") for _ in range(3)])  # type: ignore[misc]
    done.set()
    for thread in threads:
        thread.join()
    core.sync.close()
    asyncio.run(adopt_what_is_left(tmp_path, SIGNER))

    arrived = actors_in(tmp_path, SIGNER)
    assert {actor: arrived[actor] for actor in handed_out} == dict(handed_out)
    assert [arrived[f"job:child-{number}"] for number in range(12)] == [3] * 12


def test_parent_and_child_that_end_as_programs_do_close_their_own_chains(tmp_path: Path) -> None:
    SIGNER.write_file(tmp_path / "signer")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.cryptocore.forking_service", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    lines = lines_in(tmp_path, SIGNER)
    assert sum(isinstance(line, ChainOpen) for line in lines) == 2
    assert sum(isinstance(line, ChainClose) for line in lines) == 2
    assert actors_in(tmp_path, SIGNER) == Counter({"job:parent": 1 + 2 + 6, "job:child": 5})
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_core_that_is_awaited_starts_anew_in_a_child_with_its_own_loop(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    async with core:
        with acting(actor="job:parent", purpose="store-token"):
            await core.encrypt(b"token", owner=OWNER, record="r", create_missing=True)

            def work() -> None:
                asyncio._set_running_loop(None)  # as in a child that was forked outside of a task

                async def use() -> None:
                    async with core:
                        await core.encrypt(b"token", owner=OWNER, record="r", actor="job:child")

                asyncio.run(use())

            in_child(work)
            await core.encrypt(b"token", owner=OWNER, record="r")

    assert actors_in(tmp_path, SIGNER)["job:child"] == 1
    assert sum(isinstance(line, ChainClose) for line in lines_in(tmp_path, SIGNER)) == 2


@pytest.mark.parametrize("patched", ["gevent.monkey.patch_all()", "gevent.monkey.patch_thread()"])
def test_under_gevent_a_core_refuses_by_name_and_does_not_hang(tmp_path: Path, patched: str) -> None:
    script = (
        f"import gevent.monkey; {patched}\n"
        "import sys, pathlib\n"
        "from cryptocore import Signer\n"
        "from cryptocore.errors import ConfigurationError\n"
        "from tests.cryptocore.services import OWNER, local_core\n"
        "core = local_core(pathlib.Path(sys.argv[1]), Signer.generate())\n"
        "try:\n"
        "    core.sync.encrypt(b'x', owner=OWNER, record='r', actor='job:x', purpose='p')\n"
        "except ConfigurationError as err:\n"
        "    print(err)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "gevent has patched threads" in run.stdout, run.stderr


async def test_an_emitter_whose_fork_was_not_noticed_still_refuses(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    async with core:
        emitter = core.parts.audit.emitter
        emitter._pid += 1
        with pytest.raises(AuditUnavailable, match="fork"):
            await core.create_key(OWNER, actor="job:x", purpose="p")
        emitter._pid -= 1
