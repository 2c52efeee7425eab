"""What keytrail saw of a KEK's end, and which purges certificates of destruction believe."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from sqlalchemy import select

from cryptocore.audit import Refusal
from cryptocore.care.statements import Statements
from cryptocore.core import CryptoCore
from cryptocore.errors import ConfigurationError, InvalidTransition, KeyUnavailable
from cryptocore.events import Operation, Outcome, Phase, kek_key_id
from cryptocore.keks import acting
from cryptocore.keks.ends import KIND, LEEWAY_MS, Ends, KekEnd, KekEnds, KekSight, Sight, agreed
from cryptocore.keks.life import Giving
from cryptocore.life.approvals import Action
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.store.key_store import database_ms
from cryptocore.store.statement_tables import STATEMENT
from tests.cryptocore.vaulted import HOST, NO_COPIES, Vaulted, vaulted

OLD, NEW = "old-kek", "new-kek"
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}


class _Odd(Struct):
    saw: str


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Vaulted]:
    async with vaulted(tmp_path, f"sqlite:///{tmp_path / 'keys.sqlite'}") as made:
        yield made


async def deleted(world: Vaulted, core: CryptoCore) -> list[str]:
    """Make the old KEK with two versions and delete it."""
    await core.keks.create(OLD, **ADMIN)
    made = (await core.keks.rotate(OLD, **ADMIN)).state
    assert made is not None
    world.clock.advance(1)
    await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
    return [one.version for one in made.versions]


async def purge(world: Vaulted, core: CryptoCore, giving: Giving | None = None) -> Giving:
    if giving is None:
        giving = Giving(NO_COPIES, approvals=world.approved(Action.PURGE, await core.keks.purge_statement(OLD)))
    await core.keks.purge(OLD, giving=giving, **ADMIN)
    return giving


async def ends_of(core: CryptoCore) -> dict[str, int | None]:
    return {end.version: end.gone_ms for end in (await core.keks.ends()).known if end.alias == OLD}


async def test_a_deleted_kek_is_not_gone_and_a_purged_one_is_with_every_version_that_was_listed(world: Vaulted) -> None:
    async with world.core(NEW, OLD) as core:
        versions = await deleted(world, core)
        assert await ends_of(core) == dict.fromkeys(versions)
        world.clock.advance(5)
        await purge(world, core)

        assert await ends_of(core) == dict.fromkeys(versions, world.now_ms)
        world.clock.advance(5)
        with pytest.raises(InvalidTransition, match="is not in its vault, and not deleted"):
            await core.keks.purge(OLD, giving=Giving(NO_COPIES), **ADMIN)


async def test_of_a_kek_that_was_deleted_elsewhere_only_the_version_that_the_vault_still_shows_is_gone(
    world: Vaulted,
) -> None:
    async with world.core(NEW, OLD) as core:
        await core.keks.create(OLD, **ADMIN)
        newest = (await core.keks.rotate(OLD, **ADMIN)).state
        assert newest is not None
        world.server.vault(HOST).keys.delete(OLD, world.clock.now_us())
        await purge(world, core)

        assert await ends_of(core) == {newest.current: world.now_ms}


async def test_a_vault_that_still_shows_what_it_purged_is_looked_at_again_by_the_same_call(
    world: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "LOOKS_S", (0.0, 0.0))
    keys = world.server.vault(HOST).keys
    late: list[str] = []
    async with world.core(NEW, OLD) as core:
        versions = await deleted(world, core)
        monkeypatch.setattr(keys, "purge", late.append)  # it takes the purge and does it later
        giving = Giving(NO_COPIES, approvals=world.approved(Action.PURGE, await core.keks.purge_statement(OLD)))
        for _ in range(2):
            with pytest.raises(KeyUnavailable, match=r"took the purge .* its vault still shows it; call again"):
                await purge(world, core, giving)
            assert await ends_of(core) == dict.fromkeys(versions)
        monkeypatch.undo()
        keys.purge(OLD)
        world.clock.advance(3)
        await purge(world, core, giving)

        assert await ends_of(core) == dict.fromkeys(versions, world.now_ms)
    told = [one for one in world.events.only(Operation.DESTROY) if one.phase is Phase.OUTCOME]
    assert [one.outcome for one in told] == [Outcome.SUCCEEDED] * 2, "one deletion, one purge, however often one looks"
    assert late == [OLD]


async def test_a_kek_that_was_made_anew_meanwhile_is_not_taken_for_the_one_that_was_purged(
    world: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "LOOKS_S", (0.0,))
    keys = world.server.vault(HOST).keys
    async with world.core(NEW, OLD) as core:
        await deleted(world, core)
        monkeypatch.setattr(keys, "purge", lambda _: None)
        with pytest.raises(KeyUnavailable, match="call again"):
            await purge(world, core)
        monkeypatch.undo()
        keys.purge(OLD)
        await core.keks.create(OLD, **ADMIN)
        with pytest.raises(InvalidTransition, match="is in its vault, and not deleted"):
            await core.keks.purge(OLD, giving=Giving(NO_COPIES), **ADMIN)
        world.clock.advance(2)
        await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)

        assert set((await ends_of(core)).values()) == {None}


async def test_a_store_that_is_away_once_the_vault_took_the_purge_is_told_and_nothing_is_stated(
    world: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = world.server.vault(HOST).keys
    done = keys.purge

    def purges_and_the_table_is_gone(name: str) -> None:
        done(name)
        with world.store._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE statement RENAME TO elsewhere")

    async with world.core(NEW, OLD) as core:
        versions = await deleted(world, core)
        monkeypatch.setattr(keys, "purge", purges_and_the_table_is_gone)
        with pytest.raises(KeyUnavailable, match=r"took the purge .* certificates need --purged"):
            await purge(world, core)
        with world.store._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO statement")

        assert await ends_of(core) == dict.fromkeys(versions)
    assert world.events.only(Operation.DESTROY)[-1].outcome is Outcome.SUCCEEDED


async def test_a_version_that_its_vault_lists_again_is_not_gone(world: Vaulted) -> None:
    keys = world.server.vault(HOST).keys
    async with world.core(NEW, OLD) as core:
        first, second = await deleted(world, core)
        kept = keys.deleted(OLD)
        await purge(world, core)
        world.clock.advance(60)
        keys._kept[OLD] = kept  # restored from a backup that somebody had taken
        await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
        assert await ends_of(core) == {first: None, second: None}

        with pytest.raises(Refusal, match="its vault had it at"):
            agreed({(OLD, first): world.now_ms - LEEWAY_MS - 1}, (await core.keks.ends()).known)


async def test_what_somebody_else_wrote_of_a_kek_is_named_and_does_not_count(world: Vaulted) -> None:
    async with world.core(NEW, OLD) as core:
        await deleted(world, core)
        await purge(world, core)
        forger = Signer.generate()
        one = replace(world.registry.signers[0], signer_id=forger.signer_id, public_key=forger.public_key)
        forged = Statements(KIND, Registry(world.registry.deployment, (one,)), forger)
        body = KekSight(saw=Sight.GONE, alias=NEW, vault="kv-test", name=NEW, by="user:eve", versions=("v",))
        subject = kek_key_id("kv-test", NEW)
        world.store.transaction(
            lambda connection: forged.append(connection, subject, body, before=None, now_ms=database_ms(connection))
        )

        found = await core.keks.ends()

    assert found.unbelieved == (subject,)
    assert {end.alias for end in found.known} == {OLD}


async def test_a_statement_of_another_shape_is_not_believed_either(world: Vaulted) -> None:
    async with world.core(NEW, OLD) as core:
        ours = Statements(KIND, world.registry, world.signer)
        world.store.transaction(
            lambda connection: ours.append(connection, "kek", _Odd("gone"), before=None, now_ms=world.now_ms)
        )

        assert await core.keks.ends() == KekEnds((), unbelieved=("kek",))


async def test_who_may_not_sign_for_keys_deletes_no_kek(world: Vaulted) -> None:
    async with world.core(NEW, OLD) as core:
        await core.keks.create(OLD, **ADMIN)
    one = world.registry.signers[0]
    world.registry = Registry(world.registry.deployment, (replace(one, roles=one.roles - {"keys"}),))
    async with world.core(NEW, OLD) as core:
        with pytest.raises(ConfigurationError, match="sign no key records"):
            await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)

    assert world.server.vault(HOST).keys.names() == [OLD]


SEEN = KekEnd("kek", "1", had_ms=1_000_000, gone_ms=1_002_000)
LISTED = KekEnd("kek", "2", had_ms=1_000_000, gone_ms=None)


def test_what_was_seen_counts_before_what_is_named_and_both_count_where_they_agree() -> None:
    named = {("kek", "1"): 1_000_500, ("kek", "2"): 1_500_000, ("other", "1"): 7}

    assert agreed(named, [SEEN, LISTED]) == {("kek", "1"): 1_002_000, ("kek", "2"): 1_500_000, ("other", "1"): 7}
    assert agreed({}, [SEEN, LISTED]) == {("kek", "1"): 1_002_000}


@pytest.mark.parametrize(
    ("version", "named_ms", "says"),
    [
        ("1", SEEN.had_ms - LEEWAY_MS - 1, "kek/1 was not purged at .*: its vault had it at"),
        ("1", SEEN.had_ms + 2_000 + LEEWAY_MS + 1, "kek/1 was not purged at .*: it was gone by"),
        ("2", LISTED.had_ms - LEEWAY_MS - 1, "kek/2 was not purged at .*: its vault had it at"),
    ],
)
def test_a_purge_that_cannot_be_by_what_was_seen_is_refused_by_name(version: str, named_ms: int, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        agreed({("kek", version): named_ms}, [SEEN, LISTED])


async def test_ends_are_stated_in_one_chain_for_each_kek(world: Vaulted) -> None:
    async with world.core(NEW, OLD) as core:
        await deleted(world, core)
        await purge(world, core)
        assert await Ends(core.parts).taken(core.parts.wrappers[OLD]) is None  # type: ignore[arg-type]

    rows = world.store.transaction(
        lambda connection: list(connection.execute(select(STATEMENT.c.subject, STATEMENT.c.revision)))
    )
    assert [tuple(row) for row in rows] == [(kek_key_id("kv-test", OLD), number) for number in (1, 2, 3)]
