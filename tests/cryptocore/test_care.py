"""What is looked at before anything is done, and what is left of secrets when something fails."""

import asyncio
import pickle
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pytest

from cryptocore import Owner, acting, testing
from cryptocore.errors import (
    AuditUnavailable,
    BatchRejected,
    ConfigurationError,
    CoreError,
    DecryptionFailed,
    EnvelopeInvalid,
    EventInvalid,
    KeyUnavailable,
)
from cryptocore.events import Operation, Outcome, Phase
from cryptocore.registry import Role
from cryptocore.spool.adoption import adopt
from cryptocore.spool.file import Spool
from cryptocore.testing import ALIAS, CoreUnderTest, CountedIds
from cryptocore.wrapping import KeyWrapper, LocalKeyWrapper
from tests.cryptocore.spooling import unwrapping
from tests.cryptocore.test_spool import NOW_MS, SIGNER, drain, entry, identity, make

OWNER = Owner.tenant("t-88", "crm")
PLANTED = b"planted-plaintext"


@pytest.fixture
async def core() -> AsyncIterator[CoreUnderTest]:
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="crm-sync"):
            yield core


# --- before anything is done -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", ["", "r" * 1025, "\ud800", "é" * 513])
async def test_a_record_beyond_its_limit_is_refused_before_the_vault_is_asked(core: CoreUnderTest, record: str) -> None:
    stored = await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
    core.clock.advance(301)
    before = len(list(core.events))

    with pytest.raises(EnvelopeInvalid, match="record"):
        await core.encrypt(b"x", owner=OWNER, record=record)
    with pytest.raises(EnvelopeInvalid, match="record"):
        await core.decrypt(stored, owner=OWNER, record=record)
    with pytest.raises(EnvelopeInvalid, match="plaintext"):
        await core.encrypt(bytes(1024 * 1024 + 1), owner=OWNER, record="r")

    assert len(list(core.events)) == before


async def test_a_record_whose_algorithm_is_not_its_wrappers_is_not_unwrapped(core: CoreUnderTest) -> None:
    stored = await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
    core.clock.advance(301)

    class Remote:
        """Not local, so its records say RSA-OAEP-256."""

        def __init__(self, inner: LocalKeyWrapper) -> None:
            self.kek_alias, self.vault, self.name = inner.kek_alias, inner.vault, inner.name

        def __getattr__(self, name: str) -> object:
            raise AssertionError("the vault was asked: " + name)

    remote: KeyWrapper = Remote(core.wrapper)  # type: ignore[assignment]
    core.parts.keyring._wrappers = {ALIAS: remote}
    with pytest.raises(KeyUnavailable, match="wrap_alg"):
        await core.decrypt(stored, owner=OWNER, record="r")


async def test_a_signer_without_the_role_keys_makes_no_record_and_asks_no_vault(tmp_path: Path) -> None:
    core = testing.make_core(tmp_path)
    [entry] = core.registry.signers
    weak = replace(core.registry, signers=(replace(entry, roles=frozenset({Role.EVENTS})),))
    core.parts.lifecycle.revisions._registry = weak
    async with core:
        with acting(actor="user:4711", purpose="p"):
            with pytest.raises(ConfigurationError, match="of tested lacks the role keys"):
                await core.create_key(OWNER)
            with pytest.raises(ConfigurationError, match="of tested lacks the role keys"):
                await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
        assert core.events.only(Operation.WRAP) == []


@pytest.mark.parametrize(
    ("valid_from_ms", "valid_until_ms", "says"),
    [
        (
            4_102_444_800_000,
            4_102_444_900_000,
            r"of tested is not valid yet: from 2100-01-01T00:00.*now it is 20\d\d-",
        ),
        (0, 86_400_000, r"of tested is no longer valid: it ended at 1970-01-02T00:00:00.*now it is 20\d\d-"),
    ],
)
async def test_a_signer_outside_its_validity_is_refused_with_its_source_and_the_times(
    tmp_path: Path, valid_from_ms: int, valid_until_ms: int, says: str
) -> None:
    core = testing.make_core(tmp_path)
    [entry] = core.registry.signers
    outside = replace(entry, valid_from_ms=valid_from_ms, valid_until_ms=valid_until_ms)
    core.parts.lifecycle.revisions._registry = replace(core.registry, signers=(outside,))

    with pytest.raises(ConfigurationError, match=says):
        core.parts.lifecycle.revisions.check_signer()


def test_a_signer_that_the_registry_does_not_know_is_called_unknown(tmp_path: Path) -> None:
    core = testing.make_core(tmp_path)
    core.parts.lifecycle.revisions._registry = replace(core.registry, signers=())

    with pytest.raises(ConfigurationError, match=r"signer [0-9a-f]{32} is unknown to it"):
        core.parts.lifecycle.revisions.check_signer()


# --- cancellation while an intent is committed -----------------------------------------------------------------------


async def test_a_call_cancelled_while_its_intent_is_committed_has_its_outcome_at_once(tmp_path: Path) -> None:
    core = testing.make_core(tmp_path)
    async with core:
        with acting(actor="user:4711", purpose="p"):
            stored = await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
            core.clock.advance(301)
            held, go_on = asyncio.Event(), asyncio.Event()
            send = core.transport.send

            async def slow(partition: int, batch: object) -> None:
                held.set()
                await go_on.wait()
                await send(partition, batch)  # type: ignore[arg-type]

            core.transport.send = slow  # type: ignore[method-assign]
            use = asyncio.create_task(core.decrypt(stored, owner=OWNER, record="r"))
            await held.wait()
            [flight] = core.parts.keyring._flights.values()
            for _ in range(3):  # a second and third time, while the first is waited for
                flight.cancel()
                await asyncio.sleep(0)
            core.transport.send = send  # type: ignore[method-assign]
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await use

        intent, outcome = core.events.only(Operation.UNWRAP)[-2:]
    assert (intent.phase, outcome.phase, outcome.outcome) == (Phase.INTENT, Phase.OUTCOME, Outcome.UNKNOWN)
    assert outcome.intent_id == intent.id
    assert outcome.vault_attempts == ()


# --- a damaged spool -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"{", b'{"v":1}', None, "text", b"\xff"])
def test_a_damaged_copy_of_an_intent_does_not_keep_the_rest_of_the_spool_back(tmp_path: Path, damage: object) -> None:
    ids, spool = CountedIds(), make(tmp_path)
    damaged, good = unwrapping(1, ids), unwrapping(2, ids)
    spool.commit([entry(damaged), entry(good)], now_ms=NOW_MS)
    path = spool.path
    spool.close()
    with sqlite3.connect(path) as connection:
        changed = b"\0" if damage is None else damage
        connection.execute("UPDATE intent SET line = ? WHERE id = ?", (changed, damaged.id))
    connection.close()

    adopted = adopt(path, adopter=identity(b"j" * 16), signer=SIGNER, now_us=NOW_MS * 1000, ids=CountedIds("x"))

    assert isinstance(adopted, Spool)
    batches = drain(adopted)
    adopted.close(remove=True)
    text = b"".join(batch.value for _, batch in batches).decode()
    assert damaged.id in text, "the chained row still tells of it"
    assert text.count('"outcome":"unknown"') == 1
    assert f'"intent_id":"{good.id}"' in text


# --- what an error takes along ---------------------------------------------------------------------------------------


def frames_of(error: BaseException | None) -> Iterator[object]:
    """Every variable of every frame that an error, its causes and its contexts have seen in cryptocore."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        trace: TracebackType | None = one.__traceback__
        while trace is not None:
            if "cryptocore" in trace.tb_frame.f_code.co_filename and "tests" not in trace.tb_frame.f_code.co_filename:
                yield from trace.tb_frame.f_locals.values()
            trace = trace.tb_next


def holds(value: object, secret: bytes) -> bool:
    return secret in value if isinstance(value, bytes | bytearray) else secret.decode("latin-1") in repr(value)


async def test_the_frames_of_an_error_hold_neither_plaintext_nor_dek(core: CoreUnderTest) -> None:
    stored = await core.encrypt(PLANTED, owner=OWNER, record="r", create_missing=True)
    entry = core.parts.cache.newest(OWNER)
    assert entry is not None
    assert entry.dek is not None
    dek = entry.dek.reveal()
    errors: list[CoreError] = []
    core.transport.down = True
    for use in (
        core.decrypt(stored, owner=OWNER, record="r"),
        core.encrypt(PLANTED, owner=OWNER, record="r"),
    ):
        with pytest.raises(AuditUnavailable) as unavailable:
            await use
        errors.append(unavailable.value)
    core.transport.down = False
    with pytest.raises(DecryptionFailed) as failed:
        await core.decrypt(stored, owner=OWNER, record="another")
    errors.append(failed.value)
    with pytest.raises(EventInvalid) as invalid:
        await core.decrypt(stored, owner=OWNER, record="r", actor="nobody")
    errors.append(invalid.value)

    for error in errors:
        values = list(frames_of(error))
        assert values
        assert [value for value in values if holds(value, PLANTED) or holds(value, dek)] == [], repr(error)


@pytest.mark.parametrize(
    "error",
    [
        KeyUnavailable("away", retryable=True),
        AuditUnavailable("full", retryable=False),
        DecryptionFailed("no"),
        EventInvalid("actor", "wrong"),
        BatchRejected("audit_fork", "sequence", "another"),
    ],
)
def test_an_error_crosses_a_process_border_as_what_it_is(error: CoreError) -> None:
    crossed = pickle.loads(pickle.dumps(error))

    assert (type(crossed), str(crossed), crossed.retryable) == (type(error), str(error), error.retryable)
