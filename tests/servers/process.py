"""One server process: its folder, its log, start, stop, SIGKILL, pause, and its end with ours.

The process dies with us, however we end: `setpriv --pdeathsig` has the kernel send a signal when the thread that
started it is gone, and that is why a thread kept for the life of our process does the starting. Where `setpriv` is
absent (not Linux) an orderly end still stops everything.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server-starter")
STOP_SECONDS = 20


class ServerFailedError(Exception):
    """The server ended, or did not answer in time; the message ends with the last lines of its log."""


class Server(ABC):
    """A server on loopback ports chosen once, with a folder of its own; start it again after a stop or kill.

    Used as a context manager it starts, and on the way out stops and removes its folder.
    """

    name: str
    start_seconds = 90
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL
    run_as: str | None = None

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"keytrail-{type(self).__name__}-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """What a client is given."""

    @abstractmethod
    def prepare(self) -> None:
        """Write configuration and initialise storage; called once, before the first start."""

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server serves requests now."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Start and return when the server answers.

        Raises:
            ServerFailedError: it does not.
        """
        assert not self.is_running(), f"{self.name} runs already"
        if not self.log.exists():
            self.prepare()
        self._process = _STARTER.submit(self._spawn).result()
        deadline = time.monotonic() + self.start_seconds
        while self.is_running() and time.monotonic() < deadline:
            if self.answers() and self.is_running():
                return
            time.sleep(0.1)
        what = (
            f"did not answer in {self.start_seconds} s"
            if self.is_running()
            else f"ended with {self._process.returncode}"
        )
        self.kill()
        raise ServerFailedError(f"{self.name} {what}; its log ends\n{self.log_tail()}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        setpriv = shutil.which("setpriv")
        tie = [setpriv, "--pdeathsig", self.death_signal.name[3:]] if setpriv else []
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*tie, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                user=self.run_as,
                group=self.run_as,
                extra_groups=[] if self.run_as else None,
                start_new_session=True,  # Ctrl-C is for pytest; it then stops us in order
            )

    def run_once(self, *command: str) -> None:
        """Run a preparing command to its end, as the same user.

        Raises:
            ServerFailedError: it failed.
        """
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.start_seconds,
            check=False,
            cwd=self.folder,
            user=self.run_as,
            group=self.run_as,
            extra_groups=[] if self.run_as else None,
            env={**os.environ, "LC_ALL": "C"},
        )
        if answer.returncode != 0:
            raise ServerFailedError(f"{self.name}: {command[0]} failed:\n{answer.stdout}{answer.stderr}")

    def stop(self) -> None:
        """Ask it to end, and kill it where it does not within 20 seconds."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: what a power cut leaves is what stays in the folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def restart(self) -> None:
        """Stop where it still runs, then start on the same ports with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: alive for the kernel, silent for everybody else."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def close(self) -> None:
        """Stop, and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
