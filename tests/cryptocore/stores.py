"""Key stores for tests, on SQLite and on PostgreSQL, and key versions to put into them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, Engine, create_engine, text

from cryptocore.clock import parse_rfc3339
from cryptocore.envelope import Owner, Suite
from cryptocore.keys import KeyReason, KeyState
from cryptocore.records import NO_PREVIOUS, KeyRecord, sign_record
from cryptocore.signing import Signer
from cryptocore.store.engine import StoreOptions
from cryptocore.store.key_store import Change, KeyStore, KeyVersion
from cryptocore.store.migration import migrate
from cryptocore.store.schema import metadata
from cryptocore.testing import START, register
from cryptocore.wrapping import WrapAlgorithm

SIGNER = Signer.generate()
REGISTRY = register(SIGNER)
OWNER = Owner.tenant("t-88", "crm")
KEY = b"k" * 16
WRAPPED = b"wrapped"


@dataclass
class Database:
    """Where a store keeps its tables, and a way past the store to them."""

    url: str
    postgres: bool

    def store(self, options: StoreOptions | None = None, url: str | None = None) -> KeyStore:
        return KeyStore(url or self.url, registry=REGISTRY, options=options)

    @contextmanager
    def behind(self) -> Iterator[Engine]:
        """Somebody who owns the database."""
        schema = {"schema_translate_map": {None: "keytrail" if self.postgres else None}}
        engine = create_engine(self.url, execution_options=schema)
        try:
            yield engine
        finally:
            engine.dispose()

    def run(self, statement: str) -> None:
        """Run a statement as the owner, past our own code."""
        with self.behind() as engine, engine.begin() as connection:
            if self.postgres:
                connection.execute(text("SET LOCAL search_path = keytrail"))
            connection.execute(text(statement))

    @contextmanager
    def unguarded(self) -> Iterator[Connection]:
        """A transaction of somebody who may switch off triggers: a superuser, or whoever owns the file."""
        with self.behind() as engine, engine.begin() as connection:
            if self.postgres:
                connection.execute(text("SET LOCAL session_replication_role = replica"))
            else:
                names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
                for name in names.all():
                    connection.execute(text(f"DROP TRIGGER {name}"))
            yield connection

    def empty(self) -> None:
        with self.unguarded() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())

    def blob(self, hexadecimal: str) -> str:
        """Write bytes as this database does."""
        return f"decode('{hexadecimal}', 'hex')" if self.postgres else f"x'{hexadecimal}'"


def sqlite_database(folder: Path) -> Database:
    return Database(f"sqlite:///{folder / 'keys.sqlite'}", postgres=False)


def postgres_database(url: str) -> Database:
    migrate(url)
    return Database(url, postgres=True)


def record(
    number: int = 1,
    *,
    state: KeyState = KeyState.ACTIVE,
    previous: KeyVersion | None = None,
    key_id: bytes = KEY,
    owner: Owner = OWNER,
    event: bytes = bytes(32),
    superseded_by: int = 0,
) -> KeyRecord:
    return KeyRecord(
        deployment=REGISTRY.deployment,
        key_id=key_id,
        key_version=number,
        revision=1 if previous is None else previous.record.revision + 1,
        state=state,
        reason=KeyReason.OPERATOR,
        suite=Suite.XAES_256_GCM,
        owner_sha256=owner.digest(),
        kek_alias="kek",
        kek_version="1",
        wrap_alg=WrapAlgorithm.LOCAL,
        wrapped_dek_sha256=sha256(WRAPPED).digest(),
        commitment=bytes(32),
        changed_at_ms=parse_rfc3339(START) // 1000,
        superseded_by=superseded_by,
        retire_at_ms=0,
        previous_record_sha256=NO_PREVIOUS if previous is None else sha256(previous.signed.record).digest(),
        event_sha256=event,
        signer_id=SIGNER.signer_id,
    )


def change(made: KeyRecord, event_id: str | None = None, *, signer: Signer = SIGNER, owner: Owner = OWNER) -> Change:
    ident = event_id or str(uuid4())
    version = KeyVersion(made, sign_record(made, signer), owner, WRAPPED)
    return Change(version=version, event_id=ident, service="billing", line=ident.encode())
