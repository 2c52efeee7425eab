"""Fetches the Java servers with Maven, once, into a folder that clones may share; says where their jars lie."""

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from tests.servers.machine import MissingServerError, java

HERE = Path(__file__).parent
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
JAVA_SERVERS = ("kafka", "elasticsearch")


def home() -> Path:
    """`.servers` in the project, or what KEYTRAIL_SERVERS_DIR names."""
    return Path(os.environ.get("KEYTRAIL_SERVERS_DIR") or HERE.parent.parent / ".servers").resolve()


def version(server: str) -> str:
    """The version that `<server>.pom.xml` pins."""
    found = re.search(r"<server\.version>(.+)</server\.version>", (HERE / f"{server}.pom.xml").read_text())
    assert found, f"{server}.pom.xml pins no version"
    return found[1]


def folder(server: str) -> Path:
    """Where the jars of this server lie or would lie; a folder is there whole or not at all."""
    return home() / f"{server}-{version(server)}"


def fetched(server: str) -> Path:
    """The jars' folder.

    Raises:
        MissingServerError: they are not there yet.
    """
    jars = folder(server)
    if not jars.is_dir():
        raise MissingServerError(
            f"its jars are not fetched yet (make servers, with Java and Maven) into {home().name}/"
        )
    return jars


def maven() -> str:
    """The Maven to fetch with.

    Raises:
        MissingServerError: there is none, or no Java for it and for what it fetches.
    """
    program = shutil.which("mvn")
    if program is None:
        raise MissingServerError("no Maven to fetch it with (apt-get install maven)")
    java(17, "KEYTRAIL_JAVA")
    return program


def fetch(server: str) -> Path:
    """Fetch the jars unless they are there; about 45 MB and 5 seconds each.

    Raises:
        MissingServerError: no Maven or no Java, or Maven's own words on why not.
    """
    target = folder(server)
    if target.is_dir():
        return target
    program = maven()
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=home()) as scratch:
        jars = Path(scratch) / "jars"
        _copy(program, server, jars)
        if server == "elasticsearch":
            _lay_out_elasticsearch(jars)
        try:
            jars.rename(target)
        except OSError:
            if not target.is_dir():  # else another clone was quicker, and its folder is as good
                raise
    return target


def _copy(program: str, server: str, jars: Path) -> None:
    # Maven writes beside the pom, so it gets a copy of it.
    pom = shutil.copy(HERE / f"{server}.pom.xml", jars.parent / "pom.xml")
    command = [program, "-B", "-q", "-f", pom, COPY, "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False)
    if answer.returncode != 0 or not any(jars.glob("*.jar")):
        said = "\n".join((answer.stdout + answer.stderr).splitlines()[-5:])
        raise MissingServerError(f"Maven could not fetch it:\n{said}")


def _lay_out_elasticsearch(jars: Path) -> None:
    """Split as the node wants it: `server` is the module path, `transport-netty4` becomes a module of its home."""
    server, module = jars / "server", jars / "transport-netty4"
    server.mkdir()
    module.mkdir()
    for jar in jars.glob("*.jar"):
        jar.rename((module if jar.name.startswith(("netty-", "transport-netty4-")) else server) / jar.name)
    (transport,) = module.glob("transport-netty4-*.jar")
    with zipfile.ZipFile(transport) as archive:
        for name in ("plugin-descriptor.properties", "entitlement-policy.yaml"):
            (module / name).write_bytes(archive.read(f"META-INF/es-plugins/transport-netty4/{name}"))
