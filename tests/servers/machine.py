"""What this machine has: JDKs by version, PostgreSQL's binaries, free ports; how they are used is not decided here."""

import os
import random
import re
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path

DEBIAN_JDKS = Path("/usr/lib/jvm")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
# Below Linux's range for outgoing connections: a client that retries a dead server's port in that range can, by chance,
# connect to itself and so keep the port from the server that wants to come back on it.
PORTS = range(20_000, 32_000)


class MissingServerError(Exception):
    """A server cannot run here; the message is the reason, and says what would help."""


def java(at_least: int, override: str) -> str:
    """The oldest JDK that is new enough; the environment variable `override` decides where it is set.

    Raises:
        MissingServerError: there is none.
    """
    if chosen := os.environ.get(override):
        if (version := java_version(chosen)) is None or version < at_least:
            raise MissingServerError(f"{override}={chosen} is not a Java {at_least} or newer")
        return chosen
    found = [(version, path) for path in _javas() if (version := java_version(path)) is not None]
    fit = sorted(pair for pair in found if pair[0] >= at_least)
    if not fit:
        seen = ", ".join(f"Java {version}" for version, _ in sorted(found)) or "no Java at all"
        raise MissingServerError(f"needs Java {at_least} or newer, this machine has {seen} (or set {override})")
    return fit[0][1]


def _javas() -> list[str]:
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if DEBIAN_JDKS.is_dir():
        homes += sorted(entry for entry in DEBIAN_JDKS.iterdir() if entry.is_dir() and not entry.is_symlink())
    paths = [str(home / "bin" / "java") for home in homes if (home / "bin" / "java").is_file()]
    on_path = shutil.which("java")
    return [*paths, on_path] if on_path else paths


@cache
def java_version(path: str) -> int | None:
    """The feature version of a Java binary, or None where it does not run."""
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(version[1]) if version else None


def postgres_binaries() -> Path:
    """The folder with `initdb`, `postgres` and `pg_isready`: newest of Debian's, else the PATH's.

    Raises:
        MissingServerError: there is none.
    """
    if chosen := os.environ.get("KEYTRAIL_POSTGRES_BIN"):
        folders = [Path(chosen)]
    else:
        folders = sorted(
            (folder for folder in DEBIAN_POSTGRES.glob("*/bin") if folder.parent.name.isdigit()),
            key=lambda folder: int(folder.parent.name),
            reverse=True,
        )
        on_path = shutil.which("postgres")
        folders += [Path(on_path).resolve().parent] if on_path else []
    for folder in folders:
        if all((folder / name).is_file() for name in ("initdb", "postgres", "pg_isready")):
            return folder
    raise MissingServerError("no PostgreSQL server binaries (apt-get install postgresql, or set KEYTRAIL_POSTGRES_BIN)")


def free_port() -> int:
    """A loopback port nobody listens on now; somebody may a moment later, so callers check that their server lives."""
    for port in random.sample(PORTS, k=200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise MissingServerError("no free port on the loopback address in 200 tries")
