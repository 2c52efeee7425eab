"""PostgreSQL from Debian's binaries, as an unprivileged user where we are root, trusting every loopback client."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.servers.machine import free_port, postgres_binaries
from tests.servers.process import STOP_SECONDS, Server

USER = "keytrail"


class PostgresServer(Server):
    """Serves within 2 seconds; durability is left on, since tests kill it to see what survives."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # end the sessions, then stop; SIGTERM would wait for every client to leave
    death_signal = signal.SIGQUIT  # at once, and its children with it

    def __init__(self) -> None:
        self._binaries = postgres_binaries()
        super().__init__()
        if os.geteuid() == 0:  # initdb and postgres refuse to run as root
            self.run_as = next(name for name in ("postgres", "nobody") if _exists(name))
            shutil.chown(self.folder, self.run_as)
        self._port = free_port()

    @property
    def address(self) -> str:
        """An SQLAlchemy URL of the database `postgres`."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self._port}/postgres"

    def prepare(self) -> None:
        options = ("--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-locale", "--no-sync")
        self.run_once(str(self._binaries / "initdb"), f"--pgdata={self.folder / 'data'}", *options)

    def command(self) -> list[str]:
        data = str(self.folder / "data")
        listen = ("-h", "127.0.0.1", "-p", str(self._port), "-k", str(self.folder))
        return [str(self._binaries / "postgres"), "-D", data, *listen]

    def kill(self) -> None:
        """SIGKILL, and wait for the sessions: they end when they see it gone, and until then nothing starts here."""
        if self.pid is None:
            return
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        sessions = listed.read_text().split() if listed.exists() else []
        super().kill()
        deadline = time.monotonic() + STOP_SECONDS
        while any(Path("/proc", pid).exists() for pid in sessions) and time.monotonic() < deadline:
            time.sleep(0.02)

    def answers(self) -> bool:
        ask = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(ask, check=False, timeout=10).returncode == 0


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
