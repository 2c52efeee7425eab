"""`core.sync`: blocking calls from threads, refused where they would hang."""

import asyncio
import inspect
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from cryptocore import CryptoCore, Signer, acting, testing
from cryptocore.errors import CoreError, DecryptionFailed, WrongEventLoop
from cryptocore.events import ChainClose
from cryptocore.sync import SyncCore
from tests.cryptocore.services import OWNER, actors_in, lines_in, local_core

SIGNER = Signer.generate()


def test_blocking_calls_act_as_the_context_of_their_thread(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)

    def use(number: int) -> None:
        with acting(actor=f"job:{number}", purpose="store-token"):
            stored = core.sync.encrypt(b"token", owner=OWNER, record="r", create_missing=True)
            assert core.sync.decrypt(stored, owner=OWNER, record="r") == b"token"

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    core.sync.close()

    arrived = actors_in(tmp_path, SIGNER)
    assert all(arrived[f"job:{number}"] >= 2 for number in range(8))
    assert sum(isinstance(line, ChainClose) for line in lines_in(tmp_path, SIGNER)) == 1


def test_errors_come_as_they_are() -> None:
    with testing.blocking_core() as core, pytest.raises(DecryptionFailed):
        core.sync.decrypt(b"nothing", owner=OWNER, record="r", actor="job:x", purpose="p")


def test_every_coroutine_method_of_a_core_has_its_blocking_face_and_nothing_else_has() -> None:
    with testing.blocking_core() as core:
        names = [name for name, method in vars(CryptoCore).items() if iscoroutinefunction(method) and name[0] != "_"]
        assert {"encrypt", "decrypt", "open"} <= set(names)
        assert all(callable(getattr(core.sync, name)) for name in [*names, "rotate", "revoke", "describe"])
        for name in ("lifespan", "_newest", "decript"):
            with pytest.raises(AttributeError, match=name):
                getattr(core.sync, name)


async def test_on_a_running_loop_a_blocking_call_is_refused_and_says_what_to_do() -> None:
    async with testing.core() as core:
        with pytest.raises(WrongEventLoop, match="await describe itself"):
            core.sync.describe(OWNER)
        with pytest.raises(WrongEventLoop, match="stop the event loop"):
            core.sync.run(core.describe(OWNER))
        with pytest.raises(WrongEventLoop):
            core.sync.close()


async def test_a_thread_of_a_service_that_awaits_uses_the_loop_on_which_the_core_is_open(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    async with core:
        with acting(actor="user:4711", purpose="store-token"):
            stored = await core.encrypt(b"token", owner=OWNER, record="r", create_missing=True)
            opened = await asyncio.to_thread(core.sync.decrypt, stored, owner=OWNER, record="r")

    assert opened == b"token"
    assert "keytrail-sync" not in {thread.name for thread in threading.enumerate()}


def test_a_core_left_open_on_a_loop_that_has_ended_is_refused(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    with asyncio.Runner() as ended:
        ended.run(core.open())
        with pytest.raises(WrongEventLoop, match="no longer runs"):
            core.sync.describe(OWNER)
        with pytest.raises(WrongEventLoop, match="another event loop"):
            asyncio.run(core.encrypt(b"x", owner=OWNER, record="r", actor="job:x", purpose="p", create_missing=True))
        ended.run(core.close())


def test_a_call_that_is_cancelled_on_its_loop_ends_the_wait() -> None:
    async def endless() -> None:
        await asyncio.sleep(3600)

    async def cancel() -> None:
        for task in asyncio.all_tasks():
            if task.get_coro().__qualname__ == endless.__qualname__:  # type: ignore[union-attr]
                task.cancel()

    def cancel_soon() -> None:
        time.sleep(0.1)
        core.sync.run(cancel())

    with testing.blocking_core() as core:
        other = threading.Thread(target=cancel_soon)
        other.start()
        with pytest.raises(CancelledError):
            core.sync.run(endless())
        other.join()


def test_a_program_that_just_ends_closes_its_chain(tmp_path: Path) -> None:
    SIGNER.write_file(tmp_path / "signer")
    script = (
        "import sys, pathlib\n"
        "from cryptocore import Signer\n"
        "from tests.cryptocore.services import OWNER, local_core\n"
        "at = pathlib.Path(sys.argv[1])\n"
        "core = local_core(at, Signer.from_file(at / 'signer'))\n"
        "core.sync.encrypt(b'x', owner=OWNER, record='r', actor='job:x', purpose='p', create_missing=True)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert isinstance(lines_in(tmp_path, SIGNER)[-1], ChainClose)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_closed_core_says_so(tmp_path: Path) -> None:
    core = local_core(tmp_path, SIGNER)
    core.sync.close()  # nothing was opened, so nothing is closed
    core.sync.encrypt(b"x", owner=OWNER, record="r", actor="job:x", purpose="p", create_missing=True)
    core.sync.close()

    with pytest.raises(CoreError):
        core.sync.encrypt(b"x", owner=OWNER, record="r", actor="job:x", purpose="p")


def test_the_blocking_face_names_every_coroutine_method_for_whoever_checks_types() -> None:
    methods = {
        name
        for kind in CryptoCore.__mro__
        for name, method in vars(kind).items()
        if iscoroutinefunction(method) and not name.startswith("_")
    }
    named = set(re.findall(r"^        (\w+) = _blocking\(CryptoCore\.\1\)$", inspect.getsource(SyncCore), re.MULTILINE))

    assert methods - named - {"close"} == set(), "add a line to SyncCore"
    assert named <= methods
