import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from cryptocore.batch import SealedBatch
from cryptocore.errors import AuditUnavailable
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Durability, Outcome
from cryptocore.signing import Signer
from cryptocore.spool.adoption import adopt, close_chain
from cryptocore.spool.entries import Entry, entry_of
from cryptocore.spool.file import Identity, Spool, SpoolCorrupt
from cryptocore.spool.lock import SpoolLock, spool_path, spools_of
from cryptocore.testing import CountedIds
from tests.cryptocore.spooling import DEPLOYMENT, SERVICE, received, registry_of, unwrapping, used

PARTITIONS = 3
NOW_MS = 1_763_280_000_000
SIGNER = Signer.generate()


def identity(instance: bytes) -> Identity:
    return Identity(SERVICE, DEPLOYMENT, instance, 1, PARTITIONS, Durability.VOLUME)


def make(directory: Path, instance: bytes = b"i" * 16, *, linger_ms: int = 250) -> Spool:
    lock = SpoolLock.take(spool_path(directory, SERVICE, instance))
    assert lock is not None
    return Spool(lock, signer=SIGNER, identity=identity(instance), linger_ms=linger_ms)


def entry(event: AuditEvent, instance: bytes = b"i" * 16) -> Entry:
    return entry_of(event, instance=instance, partitions=PARTITIONS)


def drain(spool: Spool) -> list[tuple[int, SealedBatch]]:
    batches = []
    for partition in spool.unsent_partitions():
        while (unsent := spool.next_unsent(partition)) is not None:
            batches.append((partition, spool.read(unsent)))
            spool.sent(unsent)
    return batches


def test_a_commit_is_durable_and_full_synchronous(tmp_path: Path) -> None:
    spool = make(tmp_path)

    assert spool._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert spool._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    spool.close()


def test_the_spool_file_is_for_its_owner_only(tmp_path: Path) -> None:
    spool = make(tmp_path)

    assert spool.path.stat().st_mode & 0o777 == 0o600
    spool.close()


def test_a_denial_is_sealed_by_its_own_commit_and_a_success_waits_for_others(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)

    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    assert not spool.any_unsent()
    spool.commit([entry(used(1, ids, Outcome.DENIED))], now_ms=NOW_MS)

    assert len(received(drain(spool), registry_of(SIGNER))) == 2
    spool.close()


def test_rows_are_sealed_when_the_linger_is_over(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)

    spool.seal_due(now_ms=NOW_MS + 249)
    assert not spool.any_unsent()
    spool.seal_due(now_ms=NOW_MS + 250)

    assert spool.any_unsent()
    assert spool.next_due_ms() is None
    spool.close()


def test_five_hundred_events_of_a_partition_are_a_batch(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)

    for _ in range(12):
        spool.commit([entry(used(1, ids)) for _ in range(50)], now_ms=NOW_MS)

    assert len(drain(spool)) == 1
    spool.seal_due(now_ms=NOW_MS, everything=True)
    assert len(drain(spool)) == 1
    spool.close()


def test_one_commit_of_thousands_of_lines_makes_batches_within_the_limits(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)

    spool.commit([entry(used(1, ids)) for _ in range(2345)], now_ms=NOW_MS)
    spool.seal_due(now_ms=NOW_MS, everything=True)
    batches = drain(spool)

    assert len(received(batches, registry_of(SIGNER))) == 2345
    spool.close()


def test_a_resend_sends_the_same_bytes_and_a_sent_batch_leaves_the_file(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path, linger_ms=0)
    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    unsent = spool.next_unsent(spool.unsent_partitions()[0])
    assert unsent is not None

    first, again = spool.read(unsent), spool.read(unsent)
    spool.sent(unsent)
    spool.commit([entry(used(2, ids))], now_ms=NOW_MS)

    assert first == again
    assert spool._connection.execute("SELECT count(*) FROM batch").fetchone() == (1,)
    spool.close()


def test_seal_times_never_go_back_though_the_clock_does(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path, linger_ms=0)

    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    spool.commit([entry(used(1, ids))], now_ms=NOW_MS - 60_000)

    times = [int.from_bytes(batch.seal[53:61], "big") for _, batch in drain(spool)]
    assert times == [NOW_MS, NOW_MS]
    spool.close()


def test_a_live_spool_cannot_be_adopted(tmp_path: Path) -> None:
    spool = make(tmp_path)

    assert adopt(spool.path, adopter=identity(b"j" * 16), signer=SIGNER, now_us=NOW_MS * 1000, ids=CountedIds()) is None
    assert spool.path.exists()
    spool.close()


def test_an_orphan_gets_an_unknown_outcome_for_its_open_intent_and_its_chain_is_closed(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    closed, left_open = unwrapping(1, ids), unwrapping(2, ids)
    spool.commit([entry(closed), entry(left_open)], now_ms=NOW_MS)
    spool.commit([entry(unwrapping(1, ids, closed))], now_ms=NOW_MS)
    before = drain(spool)
    spool.close()

    adopted = adopt(
        spool.path, adopter=identity(b"j" * 16), signer=SIGNER, now_us=NOW_MS * 1000, ids=CountedIds("adopter")
    )
    assert adopted is not None
    batches = drain(adopted)
    close_chain(adopted, now_us=NOW_MS * 1000, ids=ids)
    lines = received(before + batches + drain(adopted), registry_of(SIGNER))
    adopted.close(remove=True)

    unknown = [line for line in lines if isinstance(line, AuditEvent) and line.outcome is Outcome.UNKNOWN]
    assert [event.intent_id for event in unknown] == [left_open.id]
    assert [line.continues for line in lines if isinstance(line, ChainOpen)] == [(b"j" * 16).hex()]
    last = lines[-1]
    assert isinstance(last, ChainClose)
    assert {(tally.outcome, tally.count) for tally in last.tallies} == {(Outcome.FAILED, 1), (Outcome.UNKNOWN, 1)}
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_a_dead_process_left_without_a_spool_is_cleared_away(tmp_path: Path) -> None:
    path = spool_path(tmp_path, SERVICE, b"i" * 16)
    lock = SpoolLock.take(path)
    assert lock is not None
    lock.release()

    assert spools_of(tmp_path, SERVICE) == [path]
    assert adopt(path, adopter=identity(b"j" * 16), signer=SIGNER, now_us=NOW_MS * 1000, ids=CountedIds()) is None
    assert list(tmp_path.iterdir()) == []


def test_an_orphan_of_another_deployment_is_left_alone(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    spool.close()
    other = Identity(SERVICE, b"other deployment", b"j" * 16, 1, PARTITIONS, Durability.VOLUME)

    assert adopt(spool.path, adopter=other, signer=SIGNER, now_us=NOW_MS * 1000, ids=ids) is None
    assert spools_of(tmp_path, SERVICE) == [spool.path]


def test_a_changed_row_is_found_and_the_file_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    spool.close()
    with sqlite3.connect(spool.path) as connection:
        connection.execute("UPDATE line_row SET value = CAST(replace(value, 'user:4711', 'user:4712') AS BLOB)")
    connection.close()

    assert adopt(spool.path, adopter=identity(b"j" * 16), signer=SIGNER, now_us=NOW_MS * 1000, ids=ids) is None
    assert [path.name for path in tmp_path.iterdir()] == [spool.path.name + ".damaged"]
    assert "row 0 is not as committed" in caplog.text


def test_a_removed_row_is_found(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    for _ in range(3):
        spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    spool._connection.execute("DELETE FROM line_row WHERE number = 1")
    spool._load()

    with pytest.raises(SpoolCorrupt):
        spool.verify_rows()
    spool.close()


def test_a_commit_that_fails_leaves_file_and_memory_as_they_were(tmp_path: Path) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    spool.commit([entry(used(1, ids))], now_ms=NOW_MS)
    used_bytes = spool.used
    spool._connection.execute("PRAGMA max_page_count = 1")

    with pytest.raises(AuditUnavailable):
        spool.commit([entry(used(1, ids)) for _ in range(5000)], now_ms=NOW_MS)
    spool._connection.execute("PRAGMA max_page_count = 1000000")
    spool.commit([entry(used(1, ids, Outcome.DENIED))], now_ms=NOW_MS)

    assert used_bytes < spool.used < 3 * used_bytes
    assert len(received(drain(spool), registry_of(SIGNER))) == 2
    spool.close()


class SpoolMachine(RuleBasedStateMachine):
    """Commit, seal, send, lose an acknowledgement, crash: every committed event arrives once, in order."""

    intents = Bundle("intents")

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.ids = CountedIds()
        self.crashes = 0
        self.now_ms = NOW_MS
        self.arrived: list[tuple[int, SealedBatch]] = []
        self.expected: dict[int, list[str]] = {}
        self.spool = make(self.directory)

    def teardown(self) -> None:
        if not hasattr(self, "spool"):
            return
        self.spool.seal_due(now_ms=self.now_ms, everything=True)
        self.arrived += drain(self.spool)
        lines = received(self.arrived, registry_of(SIGNER))
        by_partition: dict[int, list[str]] = {}
        for line in lines:
            if isinstance(line, AuditEvent):
                partition = entry(line).partition
                by_partition.setdefault(partition, []).append(line.id)

        assert by_partition == self.expected
        self.spool.close(remove=True)
        shutil.rmtree(self.directory)

    def _commit(self, *events: AuditEvent) -> None:
        entries = [entry(event) for event in events]
        self.spool.commit(entries, now_ms=self.now_ms)
        for event, made in zip(events, entries, strict=True):
            self.expected.setdefault(made.partition, []).append(event.id)

    @rule(keys=st.lists(st.integers(0, 5), min_size=1, max_size=150), outcome=st.sampled_from(list(Outcome)[:3]))
    def commit(self, keys: list[int], outcome: Outcome) -> None:
        self._commit(*(used(number, self.ids, outcome) for number in keys))

    @rule(target=intents, number=st.integers(0, 5))
    def intend(self, number: int) -> AuditEvent:
        intent = unwrapping(number, self.ids)
        self._commit(intent)
        return intent

    @rule(intent=consumes(intents))
    def conclude(self, intent: AuditEvent) -> None:
        self._commit(unwrapping(1, self.ids, intent))

    @rule(ms=st.integers(0, 400))
    def seal(self, ms: int) -> None:
        self.now_ms += ms
        self.spool.seal_due(now_ms=self.now_ms)

    @rule(acknowledged=st.booleans())
    def send(self, *, acknowledged: bool) -> None:
        for partition in self.spool.unsent_partitions():
            unsent = self.spool.next_unsent(partition)
            assert unsent is not None
            self.arrived.append((partition, self.spool.read(unsent)))
            if acknowledged:
                self.spool.sent(unsent)

    @rule(target=intents)
    def crash(self) -> object:
        """Open what is on the disk in a directory of its own, as if the process had died here."""
        self.crashes += 1
        after = self.directory / str(self.crashes)
        after.mkdir()
        for suffix in ("", "-wal"):
            source = self.spool.path.with_name(self.spool.path.name + suffix)
            if source.exists():
                shutil.copy(source, after / source.name)
        old, path = self.spool, after / self.spool.path.name
        old.close()
        lock = SpoolLock.take(path)
        assert lock is not None
        self.spool = Spool(lock, signer=SIGNER, linger_ms=250)
        self.spool.verify_rows()
        assert self.spool.tallies() == old.tallies()
        return multiple()

    @invariant()
    def what_is_counted_is_what_waits(self) -> None:
        if hasattr(self, "spool"):
            chains = self.spool._chains.values()
            assert self.spool.used == sum(
                sum(len(row.value) for row in chain.rows) + sum(batch.size for batch in chain.unsent)
                for chain in chains
            )


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
