"""The spool: one SQLite file per process, in which a line is durable before anybody acts on it.

Commit and seal are two steps. A commit adds one row per partition, holding the lines of all callers that waited
together, chained by digest; a seal moves rows into a batch and advances the chain's head, in one transaction, often
that of a commit. A batch is deleted once the transport has it; until then a resend sends the very same bytes.

The file is used by one thread at a time; who that is, is the committer's business. Only `used`,
`counted` and `waits_since` may be asked elsewhere.
"""

import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptocore.batch import NO_PREVIOUS, SealedBatch, seal_batch
from cryptocore.errors import AuditUnavailable
from cryptocore.events import Head, Tally
from cryptocore.lines.vocabulary import Durability, Operation, Outcome
from cryptocore.signing import Signer
from cryptocore.spool.chain import Chain, Row, Unsent, in_rows, row_digest
from cryptocore.spool.entries import Entry
from cryptocore.spool.lock import SpoolLock

_SHIFT: Final = 44
_SYNCHRONOUS_FULL: Final = 2
# One statement for all rows of a commit: each statement gives up the interpreter's lock and must get it back.
_ROWS_AT_ONCE: Final = 32
_IDS_AT_ONCE: Final = 500

_Columns = tuple[int, int, int, int, str, bytes, bytes]
# 16 MiB of WAL between checkpoints: each of them syncs the database file, in the middle of somebody's commit.
_CHECKPOINT_PAGES: Final = 4096

_SCHEMA: Final = """
CREATE TABLE spool (
    version INTEGER NOT NULL, service TEXT NOT NULL, deployment BLOB NOT NULL, instance BLOB NOT NULL,
    generation INTEGER NOT NULL, partitions INTEGER NOT NULL, durability TEXT NOT NULL, closed INTEGER NOT NULL
);
CREATE TABLE chain (
    partition INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, previous BLOB NOT NULL, sealed_at_ms INTEGER NOT NULL,
    next_row INTEGER NOT NULL, row_digest BLOB NOT NULL
);
CREATE TABLE line_row (
    id INTEGER PRIMARY KEY, partition INTEGER NOT NULL, number INTEGER NOT NULL, count INTEGER NOT NULL,
    oldest_at TEXT NOT NULL, value BLOB NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE batch (
    id INTEGER PRIMARY KEY, oldest_at TEXT NOT NULL, last_row INTEGER NOT NULL,
    seal BLOB NOT NULL, signature BLOB NOT NULL, value BLOB NOT NULL
);
CREATE TABLE intent (id TEXT PRIMARY KEY, line BLOB NOT NULL);
CREATE TABLE tally (
    operation TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (operation, outcome)
);
"""
_COUNT_ONE = (
    "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT (operation, outcome) DO UPDATE SET count = count + excluded.count"
)


class SpoolCorrupt(AuditUnavailable):
    """The rows of a spool are not those that were committed."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, retryable=False)


class SpoolUnmade(SpoolCorrupt):
    """The process was gone before its spool had its tables; nothing was ever committed to it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose spool it is; written into the file when it is made."""

    service: str
    deployment: bytes
    instance: bytes
    generation: int
    partitions: int
    durability: Durability


class Spool:
    """An open spool file, locked for as long as it is open.

    Args:
        lock: the hold on the file; the spool lets go of it when it is closed.
        identity: of the process that makes the file; None opens one that exists.
        linger_ms: how long a row may wait for others before it is sealed; with 0 each commit seals what it adds.
    """

    def __init__(self, lock: SpoolLock, *, signer: Signer, identity: Identity | None = None, linger_ms: int) -> None:
        self._lock = lock
        self._signer = signer
        self._linger_ms = linger_ms
        self._connection = _connect(lock.path)
        try:
            if identity is not None:
                self._make(identity)
            self.identity, self.closed = self._read_identity()
            self._load()
        except BaseException:
            self._connection.close()
            raise

    @property
    def path(self) -> Path:
        return self._lock.path

    @property
    def instance(self) -> bytes:
        return self.identity.instance

    # --- commit and seal -------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], *, now_ms: int, closing: bool = False) -> None:
        """Make lines durable: one transaction, one fsync; full chains and those with urgent lines are sealed in it.

        Args:
            entries: in the order of their chains.
            now_ms: the clock, for linger and seals.
            closing: the last line of all is among them.

        Raises:
            AuditUnavailable: nothing of it was written.
        """
        with self._transaction():
            urgent = self._add(entries, now_ms)
            for chain in self._chains.values():
                at_once = chain.partition in urgent or (bool(chain.rows) and not self._linger_ms)
                if at_once or chain.full():
                    self._seal(chain, now_ms, everything=at_once)
            if closing:
                self._connection.execute("UPDATE spool SET closed = 1")
        self.closed = self.closed or closing

    def seal_due(self, *, now_ms: int, everything: bool = False) -> None:
        """Seal the chains whose rows have waited long enough.

        Raises:
            AuditUnavailable: nothing was sealed.
        """
        due = [chain for chain in self._chains.values() if chain.rows and (everything or chain.due_ms <= now_ms)]
        if due:
            with self._transaction():
                for chain in due:
                    self._seal(chain, now_ms, everything=True)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write what is done inside, and forget what was sent; on an error the file and memory are as before."""
        sent = list(self._sent)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            if sent:
                self._connection.executemany("DELETE FROM batch WHERE id = ?", [(key,) for key in sent])
            self._connection.execute("COMMIT")
        except BaseException as err:
            self._recover()
            if isinstance(err, sqlite3.Error):
                raise AuditUnavailable(f"the audit spool cannot be written: {err}", retryable=True) from err
            raise
        del self._sent[: len(sent)]

    def _add(self, entries: Sequence[Entry], now_ms: int) -> set[int]:
        by_partition: dict[int, list[Entry]] = {}
        tallies: Counter[tuple[Operation, Outcome]] = Counter()
        urgent: set[int] = set()
        for entry in entries:
            by_partition.setdefault(entry.partition, []).append(entry)
            manner = entry.manner
            if manner.tally is not None:
                tallies[manner.tally] += 1
            if manner.urgent:
                urgent.add(entry.partition)
            if entry.opens_intent is not None:
                self._connection.execute("INSERT INTO intent VALUES (?, ?)", (entry.opens_intent, entry.line))
            elif entry.closes_intent is not None:
                self._connection.execute("DELETE FROM intent WHERE id = ?", (entry.closes_intent,))
        rows = [
            self._add_row(self._chains[partition], part, now_ms)
            for partition, members in by_partition.items()
            for part in in_rows(members)
        ]
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[at : at + _ROWS_AT_ONCE]
            places = ",".join(["(?,?,?,?,?,?,?)"] * len(some))
            self._connection.execute(f"INSERT INTO line_row VALUES {places}", [field for row in some for field in row])  # noqa: S608 - placeholders only
        for (operation, outcome), count in tallies.items():
            self._connection.execute(_COUNT_ONE, (operation.value, outcome.value, count))
        self._tallies.update(tallies)
        return urgent

    def _add_row(self, chain: Chain, entries: list[Entry], now_ms: int) -> _Columns:
        value = b"".join([entry.line for entry in entries])
        row = Row(self._next_id, chain.next_row, len(entries), min([entry.at for entry in entries]), value)
        row.digest = chain.row_digest = row_digest(chain.row_digest, chain.partition, row)
        self._next_id += 1
        if not chain.rows:
            chain.due_ms = now_ms + self._linger_ms
        chain.rows.append(row)
        chain.next_row += 1
        chain.lines += row.count
        chain.size += len(value)
        self.used += len(value)
        return row.id, chain.partition, row.number, row.count, row.oldest_at, value, row.digest

    def _seal(self, chain: Chain, now_ms: int, *, everything: bool) -> None:
        sealed: list[Row] = []
        while chain.rows and (everything or chain.full()):
            sealed += self._seal_one(chain, now_ms)
        for at in range(0, len(sealed), _IDS_AT_ONCE):
            ids = [row.id for row in sealed[at : at + _IDS_AT_ONCE]]
            places = ",".join("?" * len(ids))
            self._connection.execute(f"DELETE FROM line_row WHERE id IN ({places})", ids)  # noqa: S608 - placeholders
        last = sealed[-1]
        self._connection.execute(
            "INSERT OR REPLACE INTO chain VALUES (?, ?, ?, ?, ?, ?)",
            (chain.partition, chain.sequence, chain.previous, chain.sealed_at_ms, last.number + 1, last.digest),
        )

    def _seal_one(self, chain: Chain, now_ms: int) -> list[Row]:
        rows = chain.take()
        chain.sealed_at_ms = max(now_ms, chain.sealed_at_ms)
        batch = seal_batch(
            b"".join([row.value for row in rows]),
            count=sum(row.count for row in rows),
            deployment=self.identity.deployment,
            instance=self.identity.instance,
            generation=self.identity.generation,
            partition=chain.partition,
            sequence=chain.sequence,
            previous=chain.previous,
            sealed_at_ms=chain.sealed_at_ms,
            signer=self._signer,
        )
        oldest, last = min(row.oldest_at for row in rows), rows[-1].number
        self._connection.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)",
            (chain.partition << _SHIFT | chain.sequence, oldest, last, batch.seal, batch.signature, batch.value),
        )
        chain.unsent.append(Unsent(chain.partition, chain.sequence, len(batch.value), oldest, last))
        chain.sequence += 1
        chain.previous = sha256(batch.seal).digest()
        return rows

    # --- sending ---------------------------------------------------------------------------------------------------

    def unsent_partitions(self) -> list[int]:
        """Name the partitions that have batches to send."""
        return [chain.partition for chain in self._chains.values() if chain.unsent]

    def next_unsent(self, partition: int) -> Unsent | None:
        """Name the oldest batch of a partition that the transport does not have."""
        unsent = self._chains[partition].unsent
        return unsent[0] if unsent else None

    def read(self, batch: Unsent) -> SealedBatch:
        """Read a batch: always the bytes that were sealed."""
        key = batch.partition << _SHIFT | batch.sequence
        row = self._connection.execute("SELECT value, seal, signature FROM batch WHERE id = ?", (key,)).fetchone()
        return SealedBatch(*row)

    def sent(self, batch: Unsent) -> None:
        """Forget a batch that the transport has; it leaves the file with the next transaction."""
        self._chains[batch.partition].unsent.popleft()
        self._sent.append(batch.partition << _SHIFT | batch.sequence)
        self.used -= batch.size

    def any_unsent(self) -> bool:
        """Say whether there are batches to send."""
        return any(chain.unsent for chain in self._chains.values())

    def next_row(self, partition: int) -> int:
        """Number the row that the next commit adds to a partition."""
        return self._chains[partition].next_row

    def next_due_ms(self) -> int | None:
        """Say when rows are next to be sealed; None when there are none."""
        return min((chain.due_ms for chain in self._chains.values() if chain.rows), default=None)

    # --- what control lines say ------------------------------------------------------------------------------------

    def heads(self) -> tuple[Head, ...]:
        """Name the last batch of every chain that has one."""
        return tuple(
            Head(
                generation=self.identity.generation,
                partition=chain.partition,
                sequence=chain.sequence - 1,
                digest=chain.previous.hex(),
            )
            for chain in self._chains.values()
            if chain.sequence
        )

    def tallies(self) -> tuple[Tally, ...]:
        """Count the single and outcome events committed since the process started."""
        counted = sorted(self._tallies.items())
        return tuple(Tally(operation=key[0], outcome=key[1], count=count) for key, count in counted if count)

    def counted(self) -> Counter[tuple[Operation, Outcome]]:
        """The same counts, by operation and outcome."""
        return Counter(self._tallies)

    def last_sequence(self, partition: int) -> int:
        """Number the last batch of a partition; -1 when it has none."""
        return self._chains[partition].sequence - 1

    def oldest_unsent_at(self) -> str | None:
        """Say when the oldest event happened that the transport does not have; None when it has all."""
        waiting = [chain.unsent[0].oldest_at for chain in self._chains.values() if chain.unsent]
        waiting += [row.oldest_at for chain in self._chains.values() for row in chain.rows]
        return min(waiting, default=None)

    def waits_since(self) -> str | None:
        """Say about the same, by the first row and batch of each chain alone; may be asked on any thread."""
        firsts = [first for chain in self._chains.values() for first in (_first(chain.unsent), _first(chain.rows))]
        return min((first.oldest_at for first in firsts if first is not None), default=None)

    def open_intents(self) -> list[bytes]:
        """Give the lines of intents whose outcome was never committed, oldest first."""
        return [line for (line,) in self._connection.execute("SELECT line FROM intent ORDER BY rowid")]

    def empty(self) -> bool:
        """Say whether nothing was ever committed to it."""
        return not any(chain.next_row for chain in self._chains.values())

    # --- opening and closing ---------------------------------------------------------------------------------------

    def verify_rows(self) -> None:
        """Check that the rows are those committed, in order.

        Raises:
            SpoolCorrupt: names the partition and the row.
        """
        for chain in self._chains.values():
            digest, number = self._anchors.get(chain.partition, (NO_PREVIOUS, 0))
            for row in chain.rows:
                digest = row_digest(digest, chain.partition, row)
                if row.number != number or digest != row.digest:
                    raise SpoolCorrupt(
                        f"{self.path.name}: partition {chain.partition}, row {number} is not as committed"
                    )
                number += 1

    def close(self, *, remove: bool = False) -> None:
        """Close the file and let go of it; `remove` deletes it, when all was sent."""
        self.disconnect()
        if remove:
            self._lock.remove()
        else:
            self._lock.release()

    def disconnect(self) -> None:
        """Close the database and keep the lock."""
        self._connection.close()

    def _make(self, identity: Identity) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            self._connection.execute(statement)
        self._connection.execute(
            "INSERT INTO spool VALUES (1, ?, ?, ?, ?, ?, ?, 0)",
            (
                identity.service,
                identity.deployment,
                identity.instance,
                identity.generation,
                identity.partitions,
                identity.durability.value,
            ),
        )
        self._connection.execute("COMMIT")

    def _read_identity(self) -> tuple[Identity, bool]:
        if not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise SpoolUnmade(f"{self.path.name}: has no tables")
        row = self._connection.execute("SELECT * FROM spool").fetchone()
        if row is None or row[0] != 1:
            raise SpoolCorrupt(f"{self.path.name}: not a spool of version 1")
        _, service, deployment, instance, generation, partitions, durability, closed = row
        identity = Identity(service, deployment, instance, generation, partitions, Durability(durability))
        return identity, bool(closed)

    def _load(self) -> None:
        """Read what memory holds of the file; also after a failed transaction."""
        self._sent: list[int] = []
        self._chains = {partition: Chain(partition) for partition in range(self.identity.partitions)}
        self._anchors: dict[int, tuple[bytes, int]] = {}
        for partition, *fields in self._connection.execute("SELECT * FROM chain"):
            self._chains[partition] = chain = Chain(partition, *fields)
            self._anchors[partition] = (chain.row_digest, chain.next_row)
        self._next_id = 1
        for ident, partition, *columns in self._connection.execute("SELECT * FROM line_row ORDER BY id"):
            chain, row = self._chains[partition], Row(ident, *columns)
            chain.rows.append(row)
            chain.next_row, chain.row_digest = row.number + 1, row.digest
            chain.lines, chain.size = chain.lines + row.count, chain.size + len(row.value)
            self._next_id = ident + 1
        for key, oldest, last, size in self._connection.execute(
            "SELECT id, oldest_at, last_row, length(value) FROM batch ORDER BY id",
        ):
            partition, sequence = key >> _SHIFT, key & (1 << _SHIFT) - 1
            self._chains[partition].unsent.append(Unsent(partition, sequence, size, oldest, last))
        self._tallies: Counter[tuple[Operation, Outcome]] = Counter(
            {
                (Operation(operation), Outcome(outcome)): count
                for operation, outcome, count in self._connection.execute("SELECT * FROM tally")
            },
        )
        chains = self._chains.values()
        self.used = sum(chain.size + sum(batch.size for batch in chain.unsent) for chain in chains)

    def _recover(self) -> None:
        """Go back to what the file says; batches already sent stay sent."""
        sent = self._sent
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._load()
        for key in sent:
            unsent = self._chains[key >> _SHIFT].unsent
            if unsent and unsent[0].sequence == key & (1 << _SHIFT) - 1:
                self.sent(unsent[0])


def _first(waiting: "deque[Row] | deque[Unsent]") -> Row | Unsent | None:
    """Look at the head of a queue that another thread may be taking from."""
    try:
        return waiting[0]
    except IndexError:
        return None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5, cached_statements=64)
    try:
        path.chmod(0o600)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        durable = mode == "wal" and connection.execute("PRAGMA synchronous").fetchone()[0] == _SYNCHRONOUS_FULL
    except BaseException:
        connection.close()
        raise
    if not durable:
        connection.close()
        raise SpoolCorrupt(f"{path.name}: this file system allows no durable spool")
    return connection
