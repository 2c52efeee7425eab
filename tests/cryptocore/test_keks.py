"""The life of KEKs, against the local vault through the real SDK, on SQLite and on PostgreSQL."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from cryptocore import testing
from cryptocore.care.overdue import OverdueKind
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, ConfigurationError, InvalidTransition, KeyUnavailable
from cryptocore.events import Operation, Outcome, Phase, Reason, kek_key_id
from cryptocore.keks.life import Giving
from cryptocore.keks.vault import KekPresence, KekVault, VaultAnswer, versions_of
from cryptocore.keys import KeyReason
from cryptocore.life.approvals import Action
from cryptocore.life.copies import Copies, Copy
from cryptocore.store.key_store import database_ms
from cryptocore.wrapping import LocalKeyWrapper, VaultCallFailed
from tests.cryptocore.stores import postgres_database
from tests.cryptocore.vaulted import ADMINISTRATION, HOST, NO_COPIES, Vaulted, vaulted

OLD, NEW = "old-kek", "new-kek"
CRM, MAIL = Owner.tenant("t-88", "crm"), Owner.tenant("t-88", "mail")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
DAY_S = 86_400


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Vaulted]:
    async with vaulted(tmp_path, f"sqlite:///{tmp_path / 'keys.sqlite'}") as made:
        yield made


async def the_whole_life(world: Vaulted) -> None:
    """Create, keys, rotate, rewrap, disable; a new KEK; delete is refused while a DEK depends; delete, purge."""
    async with world.core(OLD, NEW) as core:
        made = await core.keks.create(OLD, **ADMIN)
        sealed = await core.encrypt(b"token", owner=CRM, record="r", create_missing=True, **ADMIN)
        archived = await core.create_key(MAIL, **ADMIN)
        await core.activate(archived.key_id, **ADMIN)
        await core.archive(archived.key_id, reason=KeyReason.OPERATOR, **ADMIN)
        assert made.state is not None
        first = made.state.current
        assert first is not None
        assert (await core.keks.get(OLD)).deks == {first: 2}

        renewed = (await core.keks.rotate(OLD, **ADMIN)).state
        assert renewed is not None
        assert renewed.current not in (None, first)
        with pytest.raises(InvalidTransition, match="2 key versions are under it"):
            await core.keks.disable(OLD, first, giving=Giving(NO_COPIES), **ADMIN)
        await core.rewrap(OLD, **ADMIN)
        await world.passes()  # a copy with no retention is gone when its millisecond is over
        disabled = (await core.keks.disable(OLD, first, giving=Giving(NO_COPIES), **ADMIN)).state
        assert disabled is not None
        assert {one.version: one.enabled for one in disabled.versions} == {first: False, renewed.current: True}

        await core.keks.create(NEW, **ADMIN)
    async with world.core(NEW, OLD) as core:
        with pytest.raises(InvalidTransition, match="2 key versions are under it"):
            await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
        await core.rewrap(OLD, to_alias=NEW, **ADMIN)
        await world.passes()
        gone = (await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)).state
        assert gone is not None
        assert gone.presence is KekPresence.DELETED
        statement = await core.keks.purge_statement(OLD)
        at_ms = world.store.transaction(database_ms)
        approvals = world.approved(Action.PURGE, statement, at_ms=at_ms)
        purged = (await core.keks.purge(OLD, giving=Giving(NO_COPIES, approvals=approvals), **ADMIN)).state
        assert purged is not None
        assert purged.presence is KekPresence.ABSENT
        ends = await core.keks.ends()
        assert {(end.alias, end.version) for end in ends.known} == {(OLD, first), (OLD, renewed.current)}
        assert all(end.gone_ms is not None and max(at_ms, end.had_ms) <= end.gone_ms for end in ends.known)
        assert await core.decrypt(sealed, owner=CRM, record="r", **ADMIN) == b"token"
        moments = await core.inventory.timeline(archived.key_id)
    assert [moment.event.operation for moment in moments if moment.event is not None] == [
        Operation.CREATE,
        Operation.ACTIVATE,
        Operation.ARCHIVE,
        Operation.REWRAP,
        Operation.REWRAP,
    ]


async def test_a_kek_from_its_making_to_its_purge(world: Vaulted) -> None:
    await the_whole_life(world)

    about = [event for event in world.events if event.key is not None and event.key.kind == "kek"]
    done = [event for event in about if event.outcome is Outcome.SUCCEEDED]
    assert [(event.operation, event.kek.name) for event in done if event.kek is not None] == [
        (Operation.CREATE, OLD),
        (Operation.ROTATE, OLD),
        (Operation.SUSPEND, OLD),
        (Operation.CREATE, NEW),
        (Operation.DESTROY, OLD),
        (Operation.DESTROY, OLD),
    ]
    assert {event.key.id for event in done if event.key} == {
        kek_key_id("kv-test", OLD),
        kek_key_id("kv-test", NEW),
    }
    intents = {event.id: event for event in about if event.phase is Phase.INTENT}
    for event in done:
        intent = intents[event.intent_id or ""]
        assert {attempt.call_id for attempt in event.vault_attempts} <= set(intent.call_ids)
        assert len(set(intent.call_ids)) == 3
    refused = [event for event in about if event.outcome is Outcome.DENIED]
    assert [(event.operation, event.reason) for event in refused] == [
        (Operation.SUSPEND, Reason.KEY_STATE),
        (Operation.DESTROY, Reason.KEY_STATE),
    ]


@pytest.mark.servers
async def test_a_kek_from_its_making_to_its_purge_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    url = postgres_database(postgres_url).url
    async with vaulted(tmp_path, url, database_clock=True) as world:
        world.clock.advance(time.time() - world.clock.now_us() / 1_000_000)
        await the_whole_life(world)


async def prepared(world: Vaulted) -> None:
    """Two KEKs, one key under the old one, in another process's configuration."""
    async with world.core(OLD, NEW) as core:
        await core.keks.create(OLD, **ADMIN)
        await core.keks.create(NEW, **ADMIN)
        await core.encrypt(b"token", owner=CRM, record="r", create_missing=True, **ADMIN)


async def test_a_copy_of_the_store_that_is_still_kept_depends_on_the_kek_before(world: Vaulted) -> None:
    await prepared(world)
    copies = replace(NO_COPIES, declared=(Copy("wal", 7), Copy("dumps", 30)))
    async with world.core(NEW, OLD) as core:
        await core.rewrap(OLD, to_alias=NEW, **ADMIN)
        left_ms = world.now_ms
        world.clock.advance(29 * DAY_S)
        with pytest.raises(InvalidTransition, match="1 key version is under it in declared copies until"):
            await core.keks.delete(OLD, giving=Giving(copies), **ADMIN)
        found = await core.keks.dependence(OLD, copies=copies)
        assert [one.until_ms for one in found.copies] == [left_ms + 30 * DAY_S * 1000]
        for unknown in (None, replace(copies, complete=False)):
            with pytest.raises(InvalidTransition, match="no complete declaration of copies"):
                await core.keks.delete(OLD, giving=Giving(unknown) if unknown else None, **ADMIN)

        world.clock.advance(2 * DAY_S)
        await core.keks.delete(OLD, giving=Giving(copies), **ADMIN)
        back = (await core.keks.recover(OLD, **ADMIN)).state
        assert back is not None
        assert back.presence is KekPresence.PRESENT


async def test_a_loss_is_accepted_by_two_people_who_saw_exactly_this_one(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(NEW, OLD) as core:
        statement = await core.keks.loss_statement(OLD, "delete", None, NO_COPIES)
        assert statement is not None
        said = msgspec.json.decode(statement)
        assert [one["owner"] for one in said["owners"]] == ["t-88/crm"]
        approvals = world.approved(Action.ACCEPT_LOSS, statement)
        one_person = Giving(NO_COPIES, statement, [approvals[0], approvals[0]])
        with pytest.raises(AccessDenied, match="same person"):
            await core.keks.delete(OLD, giving=one_person, **ADMIN)
        other = Giving(NO_COPIES, statement.replace(b"crm", b"erp"), approvals)
        with pytest.raises(InvalidTransition, match="not what was approved"):
            await core.keks.delete(OLD, giving=other, **ADMIN)
        purging = Giving(NO_COPIES, statement, world.approved(Action.PURGE, statement))
        with pytest.raises(AccessDenied, match="2 are needed"):
            await core.keks.delete(OLD, giving=purging, **ADMIN)

        await core.keks.delete(OLD, giving=Giving(NO_COPIES, statement, approvals), **ADMIN)
        await core.keks.recover(OLD, **ADMIN)
        with pytest.raises(AccessDenied, match="used before"):
            await core.keks.delete(OLD, giving=Giving(NO_COPIES, statement, approvals), **ADMIN)


async def test_a_purge_that_nobody_approved_is_refused_and_so_is_one_of_another_deletion(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(NEW, OLD) as core:
        await core.rewrap(OLD, to_alias=NEW, **ADMIN)
        world.clock.advance(1)
        with pytest.raises(InvalidTransition, match="is in its vault, and not deleted"):
            await core.keks.purge(OLD, giving=Giving(NO_COPIES), **ADMIN)
        await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
        approvals = world.approved(Action.PURGE, await core.keks.purge_statement(OLD))
        with pytest.raises(AccessDenied, match="2 are needed"):
            await core.keks.purge(OLD, giving=Giving(NO_COPIES), **ADMIN)
        await core.keks.recover(OLD, **ADMIN)
        world.clock.advance(5)
        await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
        with pytest.raises(AccessDenied, match="not what is to be done now"):
            await core.keks.purge(OLD, giving=Giving(NO_COPIES, approvals=approvals), **ADMIN)


async def test_the_kek_of_new_keys_is_neither_disabled_nor_deleted(world: Vaulted) -> None:
    async with world.core(OLD) as core:
        kek = await core.keks.create(OLD, **ADMIN)
        assert kek.state is not None
        assert kek.for_new_keys
        with pytest.raises(InvalidTransition, match="rotate it first"):
            await core.keks.disable(OLD, str(kek.state.current), giving=Giving(NO_COPIES), **ADMIN)
        with pytest.raises(InvalidTransition, match="configure another one"):
            await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
        with pytest.raises(InvalidTransition, match="is in its vault"):
            await core.keks.create(OLD, **ADMIN)
        with pytest.raises(ConfigurationError, match="no KEK other is configured"):
            await core.keks.rotate("other", **ADMIN)


async def test_what_the_vault_refuses_is_an_outcome_and_no_second_event(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(OLD, permissions=ADMINISTRATION - {"rotate"}) as core:
        with pytest.raises(AccessDenied, match="the vault refused it"):
            await core.keks.rotate(OLD, **ADMIN)

    told = world.events.only(Operation.ROTATE)
    assert [(event.phase, event.outcome, event.reason) for event in told] == [
        (Phase.INTENT, None, None),
        (Phase.OUTCOME, Outcome.DENIED, Reason.VAULT_DENIED),
    ]
    assert [attempt.http_status for attempt in told[1].vault_attempts] == [403]


async def test_a_vault_that_is_away_is_told_where_all_keks_are_listed(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(OLD, NEW) as core:
        await world.server.stop()
        found = await core.keks.all()
        with pytest.raises(KeyUnavailable, match="is not known"):
            await core.keks.get(OLD)

    assert [(kek.alias, kek.state) for kek in found] == [(OLD, None), (NEW, None)]
    assert "vault_unreachable" in (found[0].problem or "")
    assert sum(found[0].deks.values()) == 1


async def test_a_row_that_is_not_to_be_believed_may_depend_on_any_kek(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(NEW, OLD) as core:
        await core.rewrap(OLD, to_alias=NEW, **ADMIN)
        world.clock.advance(1)
        with world.store._engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER key_version_step")
            connection.exec_driver_sql("UPDATE key_version SET kek_alias = 'other-kek'")

        with pytest.raises(InvalidTransition, match="1 key version is not to be believed"):
            await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)


async def test_a_deleted_kek_that_is_still_there_past_its_date_is_late(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(NEW, OLD) as core:
        await core.rewrap(OLD, to_alias=NEW, **ADMIN)
        world.clock.advance(1)
        state = (await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)).state
        assert state is not None
        assert state.purge_due_ms is not None
        due = {OLD: state.purge_due_ms}
        assert await core.overdue(kek_purge_due_ms=due) == []
        late = await core.overdue(kek_purge_due_ms=due, now_ms=state.purge_due_ms)

    assert [(one.subject, one.due_ms) for one in late if one.kind is OverdueKind.KEK] == [(OLD, state.purge_due_ms)]


async def test_a_kek_whose_newest_version_the_vault_does_not_show_is_known_by_its_versions(world: Vaulted) -> None:
    await prepared(world)
    async with world.core(OLD, permissions=frozenset({"list"})) as core:
        state = (await core.keks.get(OLD)).state
        assert state is not None
        assert (state.presence, state.current) == (KekPresence.PRESENT, state.versions[-1].version)
    async with world.core(OLD, permissions=frozenset()) as core:
        with pytest.raises(AccessDenied, match="the vault refused it"):
            await core.keks.get(OLD)


async def test_a_kek_is_made_for_wrapping_only(world: Vaulted) -> None:
    async with world.core(OLD) as core:
        await core.keks.create(OLD, **ADMIN)

    version = world.server.vault(HOST).keys.get(OLD).version(None)
    assert version.operations == ("wrapKey", "unwrapKey")
    assert version.private.key_size == 3072


class Paged(LocalKeyWrapper):
    """A vault that lists versions page by page, as the real one does from 25 on."""

    vault = "kv-paged"
    pages: ClassVar[dict[str, dict[str, Any]]] = {
        "keys/k/versions": {
            "value": [{"kid": "https://kv-paged.vault.azure.net/keys/k/B2", "attributes": {"created": 2}}],
            "nextLink": "https://kv-paged.vault.azure.net/keys/k/versions?$skiptoken=x",
        },
        "https://kv-paged.vault.azure.net/keys/k/versions?$skiptoken=x": {
            "value": [
                {"kid": "https://kv-paged.vault.azure.net/keys/k/A1", "attributes": {"created": 1, "enabled": False}},
                {"kid": "odd"},
                "odd",
            ],
            "nextLink": None,
        },
    }

    async def administer(
        self, method: str, path: str, body: dict[str, Any] | None, *, call_ids: tuple[str, ...]
    ) -> VaultAnswer:
        assert (method, body, len(call_ids)) == ("GET", None, 1)
        return VaultAnswer(self.pages[path])


async def test_versions_are_listed_to_the_last_page_the_oldest_first() -> None:
    found = await versions_of(Paged("kek", name="k"))

    assert [(one.version, one.enabled, one.created_ms) for one in found] == [("a1", False, 1000), ("b2", True, 2000)]


async def test_a_list_that_goes_on_in_another_vault_is_not_followed(world: Vaulted) -> None:
    async with world.core(OLD) as core:
        vault = core.keks.wrapper(OLD)
        assert isinstance(vault, KekVault)
        for url in ("https://evil.example/keys/k/versions", "http://kv-test.vault.azure.net/keys", "//evil.example/k"):
            with pytest.raises(VaultCallFailed) as failed:
                await vault.administer("GET", url, None, call_ids=vault.draw_call_ids())
            assert failed.value.attempts == ()


async def test_a_kek_in_the_process_has_no_life_in_a_vault() -> None:
    async with testing.core() as core:
        [kek] = await core.keks.all()
        assert "in no vault" in (kek.problem or "")
        with pytest.raises(ConfigurationError, match="in no vault"):
            await core.keks.rotate(testing.ALIAS, **ADMIN)


def test_declared_copies_without_any_keep_nothing() -> None:
    assert Copies().retention_ms is None
    assert NO_COPIES.retention_ms == 0
