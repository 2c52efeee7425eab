import json
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from cryptocore import testing
from cryptocore.audit import Refusal
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, ConfigurationError, CoreError, InvalidTransition, KeyUnavailable
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life import approval_desk
from cryptocore.life.approvals import Action, Approval, sign_approval
from cryptocore.life.bare import PADDINGS, BareWrap
from cryptocore.life.copies import Copies, CopiesInvalid
from cryptocore.life.destruction import REQUEST, DestructionInvalid, certificate_text, read_certificate, sign
from cryptocore.life.importing import BareDek
from cryptocore.store.key_store import StoreConflict
from cryptocore.store.rotation_tables import DESTRUCTION
from cryptocore.testing import CoreUnderTest
from tests.cryptocore.approving import ADA, ADA_AGAIN, APPROVERS, BEN, approval, both

OWNER = Owner.tenant("t-88", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
DAY_S = 86_400
COPIES = Copies.parse(
    """
complete = true
reviewed = 2026-11-01
reviewed_by = "user:lena"
[[copy]]
name = "wal-archive"
retention_days = 35
[[copy]]
name = "dumps"
retention_days = 90
"""
)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}", approvers=APPROVERS) as tested:
        yield tested


async def archived(core: CoreUnderTest) -> str:
    await core.encrypt(b"token", owner=OWNER, record="tokens/1", create_missing=True, **ADMIN)
    key_id = (await core.describe(OWNER)).key_id
    await core.archive(key_id, reason=KeyReason.OFFBOARDED, **ADMIN)
    return key_id


async def cooled(core: CoreUnderTest) -> tuple[str, str]:
    key_id = await archived(core)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    core.clock.advance(7 * DAY_S)
    return key_id, asked.id


async def refused(core: CoreUnderTest, work: Any, error: type[CoreError], operation: Operation) -> None:
    """The act is refused, and its event says so."""
    before = len(core.events.only(operation))
    with pytest.raises(error):
        await work
    event = core.events.only(operation)[before]
    assert event.outcome in (Outcome.DENIED, Outcome.FAILED)


async def test_after_its_cooling_off_a_version_is_zeroed_then_removed_each_by_a_signed_revision(
    core: CoreUnderTest, tmp_path: Path
) -> None:
    key_id, asked = await cooled(core)

    done = await core.destroy(asked, **ADMIN)

    assert done.overwritten_ms == core.clock.now_us() // 1000
    [version] = core.store.versions(bytes.fromhex(key_id))
    assert (version.record.state, version.wrapped_dek, version.record.revision) == (KeyState.DESTROYED, b"", 5)
    assert [info.state for info in await core.versions(key_id)] == [KeyState.DESTROYED]
    await core.relay()
    told = [event.key.revision for event in core.events.only(Operation.DESTROY) if event.key]
    assert told == [None, 4, 5]  # the request names no version, so that nobody takes it for the act
    with sqlite3.connect(tmp_path / "keys.sqlite") as connection:
        stored = connection.execute("SELECT record FROM key_history ORDER BY revision").fetchall()
    assert len(stored) == 5


async def test_doing_it_again_changes_nothing(core: CoreUnderTest) -> None:
    key_id, asked = await cooled(core)
    await core.destroy(asked, **ADMIN)
    core.clock.advance(5)

    again = await core.destroy(asked, **ADMIN)

    assert again.overwritten_ms == core.clock.now_us() // 1000 - 5_000
    assert core.store.versions(bytes.fromhex(key_id))[0].record.revision == 5


async def test_before_its_cooling_off_is_over_nothing_is_destroyed(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    core.clock.advance(7 * DAY_S - 1)

    await refused(core, core.destroy(asked.id, **ADMIN), InvalidTransition, Operation.DESTROY)
    assert core.store.versions(bytes.fromhex(key_id))[0].record.state is KeyState.ARCHIVED
    assert [waiting.id for waiting in await core.destructions()] == [asked.id]


async def test_a_destruction_called_off_stays_called_off(core: CoreUnderTest) -> None:
    key_id, asked = await cooled(core)

    restored = await core.restore(asked, note="the tenant came back", **ADMIN)

    assert restored.restored_ms == core.clock.now_us() // 1000
    await refused(core, core.destroy(asked, **ADMIN), InvalidTransition, Operation.DESTROY)
    await refused(core, core.restore(asked, **ADMIN), InvalidTransition, Operation.RESUME)
    assert core.store.versions(bytes.fromhex(key_id))[0].record.state is KeyState.ARCHIVED
    await core.relay()
    assert [event.note for event in core.events.only(Operation.RESUME) if event.note] == ["the tenant came back"]


async def test_what_is_overwritten_cannot_be_called_off(core: CoreUnderTest) -> None:
    _, asked = await cooled(core)
    await core.destroy(asked, **ADMIN)

    await refused(core, core.restore(asked, **ADMIN), InvalidTransition, Operation.RESUME)


async def test_one_person_is_not_enough_and_neither_is_one_with_two_keys(tmp_path: Path) -> None:
    people = {**APPROVERS, "ada example ": ADA_AGAIN}  # a second entry of the same person, carelessly written
    async with testing.core(approvers=people) as core:
        key_id = await archived(core)
        [record] = await core.records(key_id)
        ada, again, ben = (approval(core, Action.DESTROY, record, by) for by in (ADA, ADA_AGAIN, BEN))
        grant = approval(core, Action.RECOVERY_GRANT, record, BEN)
        late = approval(core, Action.DESTROY, record, BEN, from_ms=core.clock.now_us() // 1000 + 1)
        for approvals in ([], [ada], [ada, again], [ada, ada], [ada, grant], [ada, late], [ada, ben, again]):
            with pytest.raises((AccessDenied, InvalidTransition)):
                await core.request_destruction(approvals, **ADMIN)

        assert all(event.outcome is Outcome.DENIED for event in core.events.only(Operation.DESTROY))
        assert await core.destructions() == []
        assert (await core.request_destruction([ada, ben], **ADMIN)).begun_ms is None
        assert repr(ada) == "SignedApproval()"


async def test_an_approval_counts_once(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    approvals = await both(core, Action.DESTROY, key_id)
    asked = await core.request_destruction(approvals, **ADMIN)
    await core.restore(asked.id, **ADMIN)

    await refused(core, core.request_destruction(approvals, **ADMIN), AccessDenied, Operation.DESTROY)


async def test_approvals_of_a_record_that_has_changed_are_worth_nothing(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    approvals = await both(core, Action.DESTROY, key_id)
    core.wrapper.rotate()
    await core.rewrap(**ADMIN)

    await refused(core, core.request_destruction(approvals, **ADMIN), AccessDenied, Operation.DESTROY)


async def test_a_key_changed_while_it_cools_off_must_be_approved_anew(core: CoreUnderTest) -> None:
    _, asked = await cooled(core)
    core.wrapper.rotate()
    await core.rewrap(**ADMIN)

    await refused(core, core.destroy(asked, **ADMIN), InvalidTransition, Operation.DESTROY)


async def test_a_row_that_is_not_believed_is_named_and_hides_no_other(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    good = core.store.transaction(lambda it: dict(it.execute(DESTRUCTION.select()).mappings().one()))
    for number, change in enumerate(({}, {"request": b"no json"}, {"signature": bytes(64)}, {"signer_id": b""})):
        row = good | change | {"destruction_id": bytes([number]) * 16}
        core.store.transaction(lambda it, row=row: it.execute(DESTRUCTION.insert().values(**row)))  # type: ignore[misc]

    assert [one.id for one in await core.destructions()] == [asked.id]
    bad = await core.disbelieved_destructions()
    assert sorted(one.id for one in bad) == [f"{number:02x}" * 16 for number in range(4)]
    assert all(one.problem for one in bad)


async def test_a_key_that_lives_is_not_destroyed(core: CoreUnderTest) -> None:
    await core.encrypt(b"token", owner=OWNER, record="tokens/1", create_missing=True, **ADMIN)
    key_id = (await core.describe(OWNER)).key_id
    approvals = await both(core, Action.DESTROY, key_id)

    await refused(core, core.request_destruction(approvals, **ADMIN), InvalidTransition, Operation.DESTROY)


async def test_a_row_whose_cooling_off_somebody_shortened_is_not_believed(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)

    def shorten(connection: Any) -> None:
        request = asked.request
        text = connection.execute(DESTRUCTION.select()).mappings().one()["request"]
        changed = text.replace(request.due_at.encode(), request.requested_at.encode())
        connection.exec_driver_sql("DROP TRIGGER destruction_final")
        connection.execute(update(DESTRUCTION).values(request=changed, due_ms=0))

    core.store.transaction(shorten)

    with pytest.raises(KeyUnavailable):
        await core.destroy(asked.id, **ADMIN)
    assert core.events.only(Operation.DESTROY)[-1].reason is Reason.RECORD_INVALID
    assert core.store.versions(bytes.fromhex(key_id))[0].wrapped_dek


async def test_a_signed_request_without_a_cooling_off_is_not_believed_either(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    request = msgspec.structs.replace(asked.request, due_at=asked.request.requested_at)
    raw, signature = sign(request, REQUEST, core.parts.signer)
    change = update(DESTRUCTION).values(request=raw, signature=signature, due_ms=0)
    core.store.transaction(lambda connection: connection.exec_driver_sql("DROP TRIGGER destruction_final").rowcount)
    core.store.transaction(lambda connection: connection.execute(change).rowcount)

    with pytest.raises(KeyUnavailable, match="cooling-off"):
        await core.destroy(asked.id, **ADMIN)
    assert core.store.versions(bytes.fromhex(key_id))[0].wrapped_dek


async def test_a_crash_between_zeros_and_removal_is_gone_on_with(core: CoreUnderTest) -> None:
    key_id, asked = await cooled(core)
    apply = core.store.apply
    calls: list[int] = []

    def dies(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise StoreConflict
        apply(*args, **kwargs)

    core.store.apply = dies  # type: ignore[method-assign]
    with pytest.raises(InvalidTransition):
        await core.destroy(asked, **ADMIN)
    core.store.apply = apply  # type: ignore[method-assign]
    [version] = core.store.versions(bytes.fromhex(key_id))
    assert (version.record.state, set(version.wrapped_dek)) == (KeyState.DESTROYED, {0})
    await refused(core, core.restore(asked, **ADMIN), InvalidTransition, Operation.RESUME)

    await core.destroy(asked, **ADMIN)

    [version] = core.store.versions(bytes.fromhex(key_id))
    assert (version.wrapped_dek, version.record.revision) == (b"", 5)


# --- the certificate


async def test_the_certificate_states_both_dates_its_basis_and_who_approved(core: CoreUnderTest) -> None:
    key_id, asked = await cooled(core)
    await core.destroy(asked, **ADMIN)
    with pytest.raises(KeyUnavailable) as early:
        await core.certify_destruction(asked, copies=COPIES)
    assert early.value.retryable
    core.clock.advance(60)

    done = await core.certify_destruction(asked, copies=COPIES)

    assert done.certificate is not None
    certificate = read_certificate(done.certificate, core.registry)
    assert certificate.overwritten_at == "2026-11-23T08:01:00.000000Z"
    assert certificate.unrecoverable_after == "2027-02-21T08:01:00.000000Z"
    assert [(copy.name, copy.retention_days) for copy in certificate.copies.copies] == [
        ("wal-archive", 35),
        ("dumps", 90),
    ]
    assert [one.person for one in certificate.approvals] == ["Ada Example", "Ben Example"]
    [item] = certificate.items
    tombstone = core.store.versions(bytes.fromhex(key_id))[0]
    assert (item.key_id, item.tombstone_revision) == (key_id, tombstone.record.revision)
    assert [(kek.alias, kek.version) for kek in item.keks] == [(testing.ALIAS, "1")]
    assert json.loads(done.certificate.splitlines()[0])["type"] == "destruction"
    assert await core.destructions() == []


async def test_without_all_copies_declared_and_all_keks_purged_no_end_is_established(core: CoreUnderTest) -> None:
    _, asked = await cooled(core)
    core.clock.advance(1)
    await core.destroy(asked, **ADMIN)
    core.clock.advance(60)

    undeclared = await core.certify_destruction(asked)
    purged = core.clock.now_us() // 1000 + 86_400_000
    with pytest.raises(InvalidTransition, match="once it is"):
        await core.certify_destruction(asked, copies=COPIES, kek_purges={(testing.ALIAS, "1"): purged})
    core.clock.advance(DAY_S)
    by_purge = await core.certify_destruction(asked, copies=COPIES, kek_purges={(testing.ALIAS, "1"): purged})

    assert undeclared.certificate is not None
    assert by_purge.certificate is not None
    assert read_certificate(undeclared.certificate, core.registry).unrecoverable_after == "not established"
    assert read_certificate(by_purge.certificate, core.registry).unrecoverable_after == "2026-11-24T08:01:01.000000Z"


async def test_every_kek_version_that_ever_wrapped_the_dek_counts(core: CoreUnderTest) -> None:
    key_id = await archived(core)
    core.wrapper.rotate()
    await core.rewrap(**ADMIN)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    core.clock.advance(7 * DAY_S)
    await core.destroy(asked.id, **ADMIN)
    core.clock.advance(60)

    done = await core.certify_destruction(asked.id, kek_purges={(testing.ALIAS, "2"): core.clock.now_us() // 1000})

    assert done.certificate is not None
    certificate = read_certificate(done.certificate, core.registry)
    assert [kek.version for kek in certificate.items[0].keks] == ["1", "2"]
    assert certificate.unrecoverable_after == "not established"


async def test_a_certificate_that_was_changed_is_not_believed(core: CoreUnderTest) -> None:
    _, asked = await cooled(core)
    await core.destroy(asked, **ADMIN)
    core.clock.advance(60)
    text = (await core.certify_destruction(asked, copies=COPIES)).certificate
    assert text is not None

    for changed in (
        text.replace(b"2027-02-21", b"2026-12-01"),
        text[:-1],
        text.replace(b'"v":1', b'"v":2'),
        b"\n".join([text.splitlines()[0], b"{}", b""]),
        b"",
    ):
        with pytest.raises(DestructionInvalid):
            read_certificate(changed, core.registry)
    with pytest.raises(DestructionInvalid):
        read_certificate(text, testing.register())


async def test_what_somebody_wrote_into_the_row_of_a_destruction_makes_no_certificate(core: CoreUnderTest) -> None:
    key_id, asked = await cooled(core)
    change = update(DESTRUCTION).values(begun_ms=1, overwritten_ms=1)
    core.store.transaction(lambda connection: connection.execute(change).rowcount)
    core.clock.advance(60)

    with pytest.raises(InvalidTransition, match="overwritten"):
        await core.certify_destruction(asked, copies=COPIES)
    assert core.store.versions(bytes.fromhex(key_id))[0].wrapped_dek


async def test_another_keys_history_does_not_hide_a_kek_that_wrapped_the_dek(
    core: CoreUnderTest, tmp_path: Path
) -> None:
    key_id = await archived(core)
    core.wrapper.rotate()
    await core.rewrap(**ADMIN)
    await core.encrypt(b"token", owner=Owner.tenant("t-89", "crm"), record="tokens/1", create_missing=True, **ADMIN)
    other_id = (await core.describe(Owner.tenant("t-89", "crm"))).key_id
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    core.clock.advance(7 * DAY_S)
    await core.destroy(asked.id, **ADMIN)
    core.clock.advance(60)
    with sqlite3.connect(tmp_path / "keys.sqlite") as connection:
        connection.execute("DROP TRIGGER key_history_UPDATE")
        changed = connection.execute(
            "UPDATE key_history SET (record, signature) = (SELECT record, signature FROM key_history AS other"
            " WHERE other.key_id = ? AND other.revision = key_history.revision) WHERE key_id = ? AND revision < 3",
            (bytes.fromhex(other_id), bytes.fromhex(key_id)),
        )
        assert changed.rowcount == 2

    with pytest.raises(KeyUnavailable, match="not to be trusted"):
        await core.certify_destruction(asked.id, kek_purges={(testing.ALIAS, "2"): core.clock.now_us() // 1000})


async def test_a_certificate_whose_approvals_were_made_up_is_not_believed(core: CoreUnderTest) -> None:
    _, asked = await cooled(core)
    await core.destroy(asked, **ADMIN)
    core.clock.advance(60)
    text = (await core.certify_destruction(asked, copies=COPIES)).certificate
    assert text is not None
    true = read_certificate(text, core.registry)
    signer = core.parts.signer  # in other hands
    other = msgspec.structs.replace(true.approvals[1], person="Cleo Example")
    item = msgspec.structs.replace(true.items[0], approved_record_sha256="00" * 32)

    changes: list[dict[str, Any]] = [
        {"approvals": []},
        {"approvals": true.approvals[:1] * 2},
        {"approvals": [true.approvals[0], other]},
        {"items": [item]},
        {"requested_at": "2027-11-23T08:01:00.000000Z"},
        {"requested_at": "yesterday"},
    ]
    for change in changes:
        with pytest.raises(DestructionInvalid, match="approvals"):
            read_certificate(certificate_text(msgspec.structs.replace(true, **change), signer), core.registry)
    assert read_certificate(certificate_text(true, signer), core.registry) == true


async def test_a_kek_version_was_not_gone_before_a_dek_was_wrapped_under_it(core: CoreUnderTest) -> None:
    before_ms = core.clock.now_us() // 1000
    core.clock.advance(DAY_S)
    _, asked = await cooled(core)
    await core.destroy(asked, **ADMIN)
    core.clock.advance(60)

    with pytest.raises(InvalidTransition, match=rf"{testing.ALIAS}/1 was not gone at .*/1 was wrapped under it at"):
        await core.certify_destruction(asked, kek_purges={(testing.ALIAS, "1"): before_ms})


async def test_a_purge_says_nothing_of_an_imported_dek_which_another_kek_may_have_wrapped(core: CoreUnderTest) -> None:
    public = core.wrapper._keys["1"].public_key()
    bare = BareDek(public.encrypt(os.urandom(32), PADDINGS[BareWrap.RSA_OAEP]), testing.ALIAS, "1")
    core.wrapper.rotate()
    key_id = (await core.import_key(bare, OWNER, **ADMIN)).key_id
    for key in (key_id, (await core.describe(OWNER)).key_id):
        await core.archive(key, reason=KeyReason.OFFBOARDED, **ADMIN)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id), **ADMIN)
    core.clock.advance(7 * DAY_S)
    await core.destroy(asked.id, **ADMIN)
    core.clock.advance(60)
    purged = {(testing.ALIAS, "2"): core.clock.now_us() // 1000}

    by_purge = (await core.certify_destruction(asked.id, kek_purges=purged)).certificate
    by_copies = (await core.certify_destruction(asked.id, copies=COPIES)).certificate

    assert by_purge is not None
    assert by_copies is not None
    assert read_certificate(by_purge, core.registry).unrecoverable_after == "not established"
    assert read_certificate(by_copies, core.registry).unrecoverable_after == "2027-02-21T08:01:00.000000Z"


# --- declared copies

BEGINNING = 'complete = true\nreviewed = 2026-11-01\nreviewed_by = "user:lena"\n'


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("complete = true", "reviewed"),
        (BEGINNING + "comment = 1", "comment"),
        (BEGINNING.replace("true", "1"), "complete"),
        (BEGINNING.replace("2026-11-01", '"2026-11-01"'), "reviewed"),
        (BEGINNING.replace('"user:lena"', '""'), "reviewed_by"),
        (BEGINNING + "copy = 1", "copy"),
        (BEGINNING + '[[copy]]\nname = "a"', "copy[0]"),
        (BEGINNING + '[[copy]]\nname = ""\nretention_days = 1', "copy[0].name"),
        (BEGINNING + '[[copy]]\nname = "a"\nretention_days = -1', "copy[0].retention_days"),
        (BEGINNING + '[[copy]]\nname = "a"\nretention_days = true', "copy[0].retention_days"),
        (BEGINNING + '[[copy]]\nname = "a"\nretention_days = 1\n' * 2, "copy"),
        ("complete", "file"),
    ],
)
def test_a_file_of_copies_that_breaks_a_rule_is_refused(text: str, field: str) -> None:
    with pytest.raises(CopiesInvalid) as caught:
        Copies.parse(text)

    assert caught.value.field == field


async def test_a_cooling_off_lasts_a_day_at_least(core: CoreUnderTest) -> None:
    with pytest.raises(ConfigurationError):
        await core.request_destruction([], cooling_off_days=0, **ADMIN)
    with pytest.raises(ConfigurationError):
        await core.destroy("no id", **ADMIN)


async def test_what_is_approved_besides_keys_is_the_very_bytes_of_a_file_and_counts_once(core: CoreUnderTest) -> None:
    now_ms = core.clock.now_us() // 1000
    file = b'{"silence":"volume_anomaly"}'
    signed = [
        sign_approval(
            Approval.of_file(
                Action.SILENCE,
                file,
                deployment=core.registry.deployment,
                not_before_ms=now_ms,
                expires_ms=now_ms + 1_000,
                nonce=bytes([number]) * 16,
                signer_id=by.signer_id,
            ),
            by,
        )
        for number, by in enumerate((ADA, BEN))
    ]

    def used(action: Action, content: bytes) -> Any:
        names = approval_desk.of_file(action, content)
        return core.store.transaction(lambda it: approval_desk.use(it, signed, core.registry, names))

    for action, content in ((Action.SILENCE, file + b" "), (Action.REVIEW, file)):
        with pytest.raises(Refusal):
            used(action, content)
    assert [one.person for one in used(Action.SILENCE, file)] == ["Ada Example", "Ben Example"]
    with pytest.raises(Refusal):
        used(Action.SILENCE, file)
