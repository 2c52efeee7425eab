import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from sqlalchemy import insert

from cryptocore import testing
from cryptocore.envelope import Header, Owner
from cryptocore.errors import (
    AccessDenied,
    AuditUnavailable,
    ConfigurationError,
    EnvelopeInvalid,
    InvalidTransition,
    KeyUnavailable,
)
from cryptocore.events import Operation, Outcome, Phase, Reason
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life import reencrypt
from cryptocore.life.approvals import Action
from cryptocore.life.bare import BareWrap
from cryptocore.life.callers_rows import Row
from cryptocore.life.importing import BareDek
from cryptocore.life.legacy import Encoding, LegacyCipher, Part
from cryptocore.store.rotation_tables import RECOVERY_GRANT
from cryptocore.testing import CoreUnderTest
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.approving import ADA, APPROVERS, BEN, approval, both
from tests.cryptocore.callers_rows import CallersRows

OWNER = Owner.tenant("t-88", "crm")
OTHER = Owner.tenant("t-99", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}", approvers=APPROVERS) as tested:
        yield tested


async def rows_of(core: CoreUnderTest, count: int, owner: Owner = OWNER) -> CallersRows:
    held = {}
    for number in range(count):
        ident = f"{number:04}"
        held[ident] = await core.encrypt(
            ident.encode(), owner=owner, record=f"tokens/{ident}", create_missing=True, **ADMIN
        )
    return CallersRows(owner, held)


async def assert_readable(core: CoreUnderTest, rows: CallersRows, owner: Owner = OWNER) -> None:
    for ident, ciphertext in rows.held.items():
        plaintext = await core.decrypt(ciphertext, owner=owner, record=f"tokens/{ident}", **ADMIN)
        assert plaintext == ident.encode()


def versions(rows: CallersRows) -> set[int]:
    return {Header.parse(ciphertext).key_version for ciphertext in rows.held.values()}


async def test_rows_move_to_the_newest_version_and_both_uses_of_each_are_in_events(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 5)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    encrypts = len(core.events.only(Operation.ENCRYPT))

    done = await core.reencrypt("tokens", rows, **ADMIN)

    assert (done.progress.done, done.progress.failed, done.failed) == (5, 0, ())
    assert versions(rows) == {2}
    await assert_readable(core, rows)
    assert [event.key.version for event in core.events.only(Operation.REENCRYPT) if event.key] == [1] * 5
    assert [event.key.version for event in core.events.only(Operation.ENCRYPT)[encrypts:] if event.key] == [2] * 5
    assert not any(event.recovery for event in core.events.only(Operation.REENCRYPT))


async def test_a_second_run_leaves_every_row_alone(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 3)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    await core.reencrypt("tokens", rows, **ADMIN)
    held = dict(rows.held)

    done = await core.reencrypt("tokens", rows, **ADMIN)

    assert (done.progress.done, done.progress.skipped) == (0, 3)
    assert rows.held == held


async def test_after_a_failure_a_run_goes_on_behind_the_last_whole_batch(
    core: CoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reencrypt, "BATCH", 2)
    rows = await rows_of(core, 7)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    rows.stop_at = "0005"
    with pytest.raises(ConnectionError):
        await core.reencrypt("tokens", rows, **ADMIN)
    rows.stop_at = None
    rows.listed.clear()

    done = await core.reencrypt("tokens", rows, **ADMIN)

    assert rows.listed == ["0004", "0005", "0006"]
    assert done.progress.done == 3
    assert sorted(rows.replaced) == sorted(rows.held)
    rows.listed.clear()
    await core.reencrypt("tokens", rows, **ADMIN)
    assert len(rows.listed) == 7


async def test_a_row_that_somebody_wrote_meanwhile_is_left_as_it_is(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 2)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    new = await core.encrypt(b"0001", owner=OWNER, record="tokens/0001", **ADMIN)

    class Busy(CallersRows):
        async def replace(self, row: Row, ciphertext: bytes) -> bool:
            self.held["0001"] = new
            return await super().replace(row, ciphertext)

    busy = Busy(OWNER, rows.held)
    done = await core.reencrypt("tokens", busy, **ADMIN)

    assert (done.progress.done, done.progress.skipped) == (1, 1)
    assert busy.held["0001"] == new


async def test_a_row_that_does_not_open_is_named_and_the_rest_goes_on(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 4)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    rows.held["0000"] = rows.held["0001"]  # another place's
    rows.held["0002"] = b"no envelope"

    done = await core.reencrypt("tokens", rows, **ADMIN)

    assert (done.progress.done, done.failed) == (2, ("0000", "0002"))
    refused = [event.reason for event in core.events.only(Operation.REENCRYPT) if event.outcome is Outcome.FAILED]
    assert sorted(map(str, refused)) == ["bad_tag", "parse_error"]


async def test_without_a_durable_event_no_row_gets_its_new_ciphertext(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 2)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    await core.decrypt(rows.held["0000"], owner=OWNER, record="tokens/0000", **ADMIN)
    await core.encrypt(b"", owner=OWNER, record="warm", **ADMIN)
    held = dict(rows.held)
    core.transport.down = True

    with pytest.raises(AuditUnavailable):
        await core.reencrypt("tokens", rows, **ADMIN)
    assert rows.held == held
    core.transport.down = False


async def test_without_the_vault_a_run_ends_with_the_error_and_can_be_run_again(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 2)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    core.clock.advance(4_000)
    wrappers, core._keyring._wrappers = core._keyring._wrappers, {}
    with pytest.raises(KeyUnavailable):
        await core.reencrypt("tokens", rows, **ADMIN)
    core._keyring._wrappers = wrappers
    core.clock.advance(2)

    assert (await core.reencrypt("tokens", rows, **ADMIN)).progress.done == 2


@pytest.mark.parametrize("act", ["suspend", "archive"])
async def test_suspended_and_archived_versions_are_not_read(core: CoreUnderTest, act: str) -> None:
    rows = await rows_of(core, 1)
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    await getattr(core, act)(key_id, version=1, reason=KeyReason.OPERATOR, **ADMIN)

    done = await core.reencrypt("tokens", rows, **ADMIN)

    assert done.failed == ("0000",)
    [event] = core.events.only(Operation.REENCRYPT)
    assert (event.outcome, event.reason) == (Outcome.DENIED, Reason.KEY_STATE)


# --- under a recovery grant


async def revoked(core: CoreUnderTest, rows: int = 2) -> tuple[CallersRows, str]:
    held = await rows_of(core, rows)
    key_id = (await core.rotate(OWNER, reason=KeyReason.COMPROMISE_SUSPECTED, **ADMIN)).key_id
    await core.revoke(key_id, version=1, reason=KeyReason.COMPROMISE_SUSPECTED, **ADMIN)
    return held, key_id


async def test_a_revoked_version_is_read_under_a_grant_only_and_each_event_is_marked(core: CoreUnderTest) -> None:
    rows, key_id = await revoked(core)
    ciphertext = rows.held["0000"]
    assert len((await core.reencrypt("tokens", rows, **ADMIN)).failed) == 2

    grant = await core.grant_recovery(await both(core, Action.RECOVERY_GRANT, key_id, 1), **ADMIN)
    done = await core.reencrypt("tokens", rows, **ADMIN)

    assert grant.expires_ms == core.clock.now_us() // 1000 + 24 * 3_600_000
    assert done.progress.done == 2
    told = [event for event in core.events.only(Operation.REENCRYPT) if event.outcome is Outcome.SUCCEEDED]
    assert [event.recovery for event in told] == [True, True]
    entry = core._cache.get(bytes.fromhex(key_id), 1)
    assert entry is None
    with pytest.raises(AccessDenied):  # a grant is for re-encryption only
        await core.decrypt(ciphertext, owner=OWNER, record="tokens/0000", **ADMIN)


async def test_a_grant_ends_with_its_approvals(core: CoreUnderTest) -> None:
    rows, key_id = await revoked(core)
    await core.grant_recovery(await both(core, Action.RECOVERY_GRANT, key_id, 1), **ADMIN)
    core.clock.advance(24 * 3_600)

    assert len((await core.reencrypt("tokens", rows, **ADMIN)).failed) == 2


async def test_grants_need_two_people_a_revoked_version_and_a_day_at_most(core: CoreUnderTest) -> None:
    _, key_id = await revoked(core)
    records = await core.records(key_id)
    ada, ben = (approval(core, Action.RECOVERY_GRANT, records[0], by) for by in (ADA, BEN))
    long = approval(core, Action.RECOVERY_GRANT, records[0], BEN, hours=25)
    alive = [approval(core, Action.RECOVERY_GRANT, records[1], by) for by in (ADA, BEN)]

    for approvals, error in (
        ([ada], AccessDenied),
        ([ada, long], AccessDenied),
        ([ada, approval(core, Action.DESTROY, records[0], BEN)], AccessDenied),
        (alive, InvalidTransition),
        ([], InvalidTransition),
    ):
        with pytest.raises(error):
            await core.grant_recovery(approvals, **ADMIN)
    assert len([event for event in core.events.only(Operation.RESUME) if event.outcome is Outcome.DENIED]) == 5
    assert (await core.grant_recovery([ada, ben], **ADMIN)).owner == OWNER
    with pytest.raises(AccessDenied):
        await core.grant_recovery([ada, ben], **ADMIN)


async def test_a_grant_that_only_the_database_knows_of_grants_nothing(core: CoreUnderTest) -> None:
    rows, key_id = await revoked(core)
    row = {
        "grant_id": bytes(16),
        "owner": OWNER.encode(),
        "key_id": bytes.fromhex(key_id),
        "granted_ms": 0,
        "expires_ms": 2**50,
    }
    one = approval(core, Action.RECOVERY_GRANT, (await core.records(key_id))[0], ADA).encode()
    for number, approvals in enumerate((b"[]", b"no json", b"[" + one + b"," + one + b"]")):
        values = row | {"grant_id": bytes([number]) * 16, "approvals": approvals}
        core.store.transaction(lambda it, values=values: it.execute(insert(RECOVERY_GRANT).values(**values)))  # type: ignore[misc]

    assert len((await core.reencrypt("tokens", rows, **ADMIN)).failed) == 2


async def test_a_grant_whose_approvals_were_not_counted_grants_nothing(core: CoreUnderTest) -> None:
    rows, key_id = await revoked(core)
    approvals = await both(core, Action.RECOVERY_GRANT, key_id, 1)
    values = {
        "grant_id": bytes(16),
        "owner": OWNER.encode(),
        "key_id": bytes.fromhex(key_id),
        "approvals": b"[" + b",".join(one.encode() for one in approvals) + b"]",
        "granted_ms": 0,
        "expires_ms": 2**50,
    }
    core.store.transaction(lambda it: it.execute(insert(RECOVERY_GRANT).values(**values)))

    assert len((await core.reencrypt("tokens", rows, **ADMIN)).failed) == 2
    await core.grant_recovery(approvals, **ADMIN)  # counted: the same approvals grant
    assert (await core.reencrypt("tokens", rows, **ADMIN)).progress.done == 2


# --- another owner


async def test_an_integration_changes_its_owner_and_its_rows_move_there(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 3)
    old = await core.describe(OWNER)

    new = await core.change_owner(OWNER, OTHER, **ADMIN)

    assert new.owner == OTHER
    assert new.key_id != old.key_id
    with pytest.raises(AccessDenied):
        await core.encrypt(b"", owner=OWNER, record="tokens/x", **ADMIN)
    await assert_readable(core, rows)
    rotation = await core.rotation(OWNER)
    assert (rotation.next_key_id, rotation.reason) == (new.key_id, KeyReason.OWNERSHIP_CHANGED)
    rows.moves = {OWNER: OTHER}
    assert (await core.reencrypt("tokens", rows, **ADMIN)).progress.done == 3
    await assert_readable(core, rows, OTHER)
    await core.report_reencrypted(rotation.id, 0, **ADMIN)
    await core.retire(rotation.id, **ADMIN)
    assert [info.state for info in await core.versions(old.key_id)] == [KeyState.ARCHIVED]


# --- what was before


def node(dek: bytes, plaintext: bytes, order: tuple[Part, ...], iv_size: int = 12, aad: bytes = b"") -> list[bytes]:
    iv = os.urandom(iv_size)
    sealed = AESGCM(dek).encrypt(iv, plaintext, aad)
    parts = {Part.IV: iv, Part.TAG: sealed[-16:], Part.CIPHERTEXT: sealed[:-16]}
    return [parts[part] for part in order]


def bare(core: CoreUnderTest, dek: bytes, algorithm: BareWrap = BareWrap.RSA_OAEP) -> BareDek:
    digest = SHA1() if algorithm is BareWrap.RSA_OAEP else SHA256()
    public = core.wrapper._keys["1"].public_key()
    return BareDek(public.encrypt(dek, OAEP(MGF1(digest), digest, None)), testing.ALIAS, "1", algorithm)


@pytest.mark.parametrize("algorithm", list(BareWrap))
async def test_a_bare_dek_is_imported_and_its_ciphertexts_move(core: CoreUnderTest, algorithm: BareWrap) -> None:
    dek = os.urandom(32)
    held = {f"{number:04}": b"".join(node(dek, b"%04d" % number, tuple(Part))) for number in range(3)}

    info = await core.import_key(bare(core, dek, algorithm), OWNER, **ADMIN)
    rows = CallersRows(OWNER, held)
    done = await core.reencrypt("tokens", rows, legacy=LegacyCipher(), **ADMIN)

    assert done.progress.done == 3
    await assert_readable(core, rows)
    newest = await core.describe(OWNER)
    assert newest.key_id != info.key_id
    rotation = await core.rotation(OWNER)
    assert (rotation.key_id, rotation.next_key_id) == (info.key_id, newest.key_id)
    imported = core.store.versions(bytes.fromhex(info.key_id))[0]
    assert (imported.newest, imported.record.state) == (False, KeyState.ACTIVE)
    unwraps = [event for event in core.events.only(Operation.UNWRAP) if event.phase is Phase.OUTCOME]
    assert {event.outcome for event in unwraps} == {Outcome.SUCCEEDED}
    assert {event.key.id for event in core.events.only(Operation.REENCRYPT) if event.key} == {info.key_id}


async def test_to_import_twice_changes_nothing_and_two_deks_of_one_owner_are_both_tried(core: CoreUnderTest) -> None:
    first, second = os.urandom(32), os.urandom(32)
    one = bare(core, first)
    info = await core.import_key(one, OWNER, **ADMIN)
    await core.import_key(bare(core, second), OWNER, **ADMIN)
    newest = await core.describe(OWNER)

    assert await core.import_key(one, OWNER, **ADMIN) == info
    assert await core.describe(OWNER) == newest
    held = {f"000{n}": b"".join(node(dek, b"000%d" % n, tuple(Part))) for n, dek in enumerate((first, second))}
    held["0002"] = b"".join(node(os.urandom(32), b"x", tuple(Part)))
    done = await core.reencrypt("tokens", CallersRows(OWNER, held), legacy=LegacyCipher(), **ADMIN)
    assert (done.progress.done, done.failed) == (2, ("0002",))


async def test_an_imported_dek_joins_the_key_that_the_owner_has(core: CoreUnderTest) -> None:
    rows = await rows_of(core, 1)
    newest = await core.describe(OWNER)

    await core.import_key(bare(core, os.urandom(32)), OWNER, **ADMIN)

    assert await core.describe(OWNER) == newest
    await assert_readable(core, rows)


async def test_what_is_no_dek_is_not_imported_and_leaves_its_events(core: CoreUnderTest) -> None:
    with pytest.raises(KeyUnavailable):
        await core.import_key(bare(core, b"sixteen bytes..."), OWNER, **ADMIN)
    with pytest.raises(ConfigurationError):
        await core.import_key(BareDek(b"short", testing.ALIAS, "1"), OWNER, **ADMIN)
    unread = BareDek(bare(core, os.urandom(32)).wrapped_dek, testing.ALIAS, "1", BareWrap.RSA_OAEP_256)
    with pytest.raises(KeyUnavailable):
        await core.import_key(unread, OWNER, **ADMIN)

    assert [event.outcome for event in core.events.only(Operation.CREATE)] == [Outcome.FAILED] * 2
    assert core.store.newest(OWNER) is None
    assert isinstance(core.wrapper, LocalKeyWrapper)


@pytest.mark.parametrize(
    ("cipher", "joined"),
    [
        (LegacyCipher(), b"".join),
        (LegacyCipher(order=(Part.IV, Part.CIPHERTEXT, Part.TAG), iv_size=16), b"".join),
        (LegacyCipher(encoding=Encoding.HEX), lambda parts: b"".join(parts).hex().encode()),
        (LegacyCipher(encoding=Encoding.BASE64), lambda parts: base64.b64encode(b"".join(parts))),
        (
            LegacyCipher(order=(Part.IV, Part.CIPHERTEXT, Part.TAG), encoding=Encoding.HEX, separator=":"),
            lambda parts: b":".join(part.hex().encode() for part in parts),
        ),
        (
            LegacyCipher(
                encoding=Encoding.BASE64, separator=".", associated_data=lambda owner, record: record.encode()
            ),
            lambda parts: b".".join(map(base64.b64encode, parts)),
        ),
    ],
)
def test_a_legacy_ciphertext_opens_in_the_form_it_was_written(cipher: LegacyCipher, joined: Any) -> None:
    dek = os.urandom(32)
    aad = cipher.associated_data(OWNER, "tokens/1")
    stored = joined(node(dek, b"a token", cipher.order, cipher.iv_size, aad))

    assert cipher.open(dek, stored, owner=OWNER, record="tokens/1") == b"a token"
    for wrong in (b"", stored[:-1], stored + b"0", b"\xff" * 40, stored[:20]):
        with pytest.raises(EnvelopeInvalid):
            cipher.open(dek, wrong, owner=OWNER, record="tokens/1")
    with pytest.raises(EnvelopeInvalid):
        cipher.open(os.urandom(32), stored, owner=OWNER, record="tokens/1")


@pytest.mark.parametrize(
    "options",
    [
        {"order": (Part.IV, Part.TAG)},
        {"order": (Part.IV, Part.IV, Part.TAG)},
        {"iv_size": 8},
        {"separator": ":"},
        {"separator": "a", "encoding": Encoding.HEX},
        {"separator": "=", "encoding": Encoding.BASE64},
    ],
)
def test_a_legacy_form_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        LegacyCipher(**options)
