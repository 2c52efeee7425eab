"""A process that works on keys and dies: `child_keys.py FOLDER ACT NUMBER when`, at the NUMBERth transaction.

`when` is `before` or `after` its commit. Parent and child share FOLDER: KEKs, the key store, a caller's rows.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.life import reencrypt
from cryptocore.life.callers_rows import Row
from cryptocore.signing import Signer
from cryptocore.testing import CoreUnderTest
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.approving import APPROVERS

SIGNER: Final = Signer.from_private_bytes(bytes([0xC4]) * 32)
OWNER: Final = Owner.tenant("t-88", "crm")
ADMIN: Final[dict[str, Any]] = {"actor": "user:1001", "purpose": "key-care"}
WEEK_S: Final = 7 * 86_400


def keks(folder: Path) -> dict[str, RSAPrivateKey]:
    """Read the KEKs of a folder, or draw them."""
    found = {}
    for number in ("1", "2"):
        path = folder / f"kek-{number}.pem"
        if not path.exists():
            drawn = generate_private_key(65537, 2048)
            path.write_bytes(drawn.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, RSAPrivateKey)
        found[number] = key
    return found


class TurnedKeks(LocalKeyWrapper):
    """Both KEK versions; new wraps use the one that `newest` names."""

    newest = "1"

    async def current_version(self) -> str:
        return self.newest


def opened(folder: Path, spool: Path) -> CoreUnderTest:
    """A core on the folder's key store."""
    wrapper = TurnedKeks(testing.ALIAS, keys=keks(folder))
    url = f"sqlite:///{folder / 'keys.sqlite'}"
    return testing.make_core(spool, store_url=url, signer=SIGNER, approvers=APPROVERS, wrapper=wrapper)


class StoredRows:
    """A caller's table in SQLite."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rows.sqlite"
        self.run("CREATE TABLE IF NOT EXISTS row (id TEXT PRIMARY KEY, ciphertext BLOB NOT NULL)")

    def run(self, statement: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(self._path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    async def after(self, row_id: str) -> AsyncIterator[Row]:
        for ident, ciphertext in self.run("SELECT id, ciphertext FROM row WHERE id > ? ORDER BY id", row_id):
            yield Row(ident, ciphertext, OWNER, f"tokens/{ident}")

    async def replace(self, row: Row, ciphertext: bytes) -> bool:
        changed = self.run(
            "UPDATE row SET ciphertext = ? WHERE id = ? AND ciphertext = ? RETURNING id",
            ciphertext,
            row.id,
            row.ciphertext,
        )
        return len(changed) == 1


def dying(transaction: Callable[..., Any], number: int, when: str) -> Callable[..., Any]:
    left = number

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = transaction(*args, **kwargs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


async def work(core: CoreUnderTest, folder: Path, act: str) -> None:
    """Do the act, as parent and child both do it."""
    reencrypt.BATCH = 2  # type: ignore[misc]
    if act == "rewrap":
        assert isinstance(core.wrapper, TurnedKeks)
        core.wrapper.newest = "2"
        await core.rewrap(concurrency=2, **ADMIN)
    elif act == "reencrypt":
        await core.reencrypt("rows", StoredRows(folder), **ADMIN)
    else:
        core.clock.advance(WEEK_S)
        [asked] = await core.destructions()
        await core.destroy(asked.id, **ADMIN)


async def main(folder: Path, act: str, number: int, when: str) -> None:
    core = opened(folder, folder / "child")
    async with core:
        core.store.transaction(lambda _: None)  # the tables are there already: only what follows is counted
        core.store.transaction = dying(core.store.transaction, number, when)  # type: ignore[method-assign]
        await work(core, folder, act)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
