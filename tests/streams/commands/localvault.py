"""Commands on a core whose KEKs are in the local vault: no environment variable leads there, only this file.

By hand: `python -m tests.streams.commands.localvault FOLDER`, then one command a line, such as `keks list`.
"""

import asyncio
import os
import random
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner, Result

from cryptocore import settings
from cryptocore.clock import SystemClock
from cryptocore.core import CryptoCore
from cryptocore.development import make_registry
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.testing import Events, MemoryTransport, with_approvers
from streams.cli import app
from streams.demo.identities import Identity
from streams.demo.vault import VaultServer
from tests.cryptocore.approving import APPROVERS
from tests.cryptocore.vaulted import ADMINISTRATION, HOST, PRINCIPAL

SERVICE: Final = "key-care"
COPIES: Final = 'complete = true\nreviewed = 2026-11-01\nreviewed_by = "user:lena"\n'


@dataclass
class Office:
    """Where somebody types commands: an environment, and what stands behind it."""

    folder: Path
    server: VaultServer
    environment: dict[str, str]
    transport: MemoryTransport = field(default_factory=MemoryTransport)

    @property
    def registry(self) -> Registry:
        return Registry.load(self.folder / "sources.json")

    @property
    def events(self) -> Events:
        return Events(self.transport, self.registry)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=self.environment)

    def core(self) -> CryptoCore:
        """Make what `CryptoCore.from_env` makes, with ways to the local vault and to the log in memory."""
        who = Identity(SERVICE, PRINCIPAL, "0a0a-app", "10.1.2.3", ADMINISTRATION)
        read = settings.CoreSettings.load()
        core = settings.build(read, credential=lambda: self.server.directory.credential(who))
        for wrapper in core.parts.wrappers.values():
            wrapper._transport = self.server.transport  # type: ignore[attr-defined]
        return core

    def for_new_keys(self, alias: str, *others: str) -> None:
        """Configure which KEK new keys are wrapped under, and which others there are; aliases are names of keys."""
        more = ",".join(f'"{one}":{{"vault_url":"https://{HOST}","name":"{one}"}}' for one in others)
        self.environment |= {
            "KEYTRAIL_CORE_KEK_ALIAS": alias,
            "KEYTRAIL_CORE_KEK_NAME": alias,
            "KEYTRAIL_CORE_MORE_KEKS": f"{{{more}}}",
        }


def make_office(folder: Path, server: VaultServer) -> Office:
    """Write a registry with two approvers, their keys, and a declaration of copies; open nothing."""
    make_registry(folder, [f"{SERVICE}={PRINCIPAL}"], now_ms=0, days=50_000)
    registry = with_approvers(Registry.load(folder / "sources.json"), APPROVERS)
    (folder / "sources.json").write_bytes(registry.encode())
    for person, signer in APPROVERS.items():
        signer.write_file(folder / f"{person.split()[0].lower()}.key")
    (folder / "copies.toml").write_text(COPIES)
    (folder / "spool").mkdir()
    values = {
        "SERVICE": SERVICE,
        "SPOOL_DIR": str(folder / "spool"),
        "STORE_URL": f"sqlite:///{folder / 'keys.sqlite'}",
        "REGISTRY_FILE": str(folder / "sources.json"),
        "SIGNER_FILE": str(folder / f"{SERVICE}.key"),
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "KEK_VAULT_URL": f"https://{HOST}",
    }
    office = Office(folder, server, {f"KEYTRAIL_CORE_{name}": value for name, value in values.items()})
    office.environment["KEYTRAIL_COPIES_FILE"] = str(folder / "copies.toml")
    office.for_new_keys("old-kek", "new-kek")
    return office


def another_signer(office: Office) -> None:
    """Replace the service's key: the old one ends, a new one signs from now on."""
    now_ms = SystemClock().now_us() // 1000
    registry, fresh = office.registry, Signer.generate()
    entries = []
    for entry in registry.signers:
        if entry.source != SERVICE or entry.valid_until_ms <= now_ms:
            entries.append(entry)
            continue
        new = {"signer_id": fresh.signer_id, "public_key": fresh.public_key, "valid_from_ms": now_ms}
        entries += [replace(entry, valid_until_ms=now_ms), replace(entry, **new)]  # type: ignore[arg-type]
    (office.folder / "sources.json").write_bytes(Registry(registry.deployment, tuple(entries)).encode())
    file = office.folder / f"{fresh.signer_id.hex()}.key"
    fresh.write_file(file)
    office.environment["KEYTRAIL_CORE_SIGNER_FILE"] = str(file)


@contextmanager
def vault_in_a_thread() -> Iterator[VaultServer]:
    """Serve the local vault beside commands, each of which runs an event loop of its own."""
    server = VaultServer([HOST], clock=SystemClock(), ids=os.urandom, jitter=random.Random(1))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def main(folder: Path) -> None:
    """Take one command a line."""
    folder.mkdir(parents=True, exist_ok=True)
    with vault_in_a_thread() as server:
        office = make_office(folder, server)
        made: Any = office
        CryptoCore.from_env = lambda **_: made.core()  # type: ignore[method-assign]
        settings.build_transport = lambda *_, **__: office.transport
        os.environ.update(office.environment)
        for line in sys.stdin:
            words = shlex.split(line, comments=True)
            if words[:1] == ["for-new-keys"]:
                office.for_new_keys(*words[1:])
                os.environ.update(office.environment)
            elif words[:1] == ["another-signer"]:
                another_signer(office)
                os.environ.update(office.environment)
            elif words:
                print(f"\n$ keytrail {line.strip()}", flush=True)  # noqa: T201 - a session
                result = office.run(*words)
                print(result.output, f"[exit {result.exit_code}]", sep="", flush=True)  # noqa: T201 - a session
                if result.exception and not isinstance(result.exception, SystemExit):
                    raise result.exception


if __name__ == "__main__":
    main(Path(sys.argv[1]))
