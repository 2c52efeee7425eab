"""What keytrail does to KEKs and records, seen by the monitor: explained, no alert; and records against its trail."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from alerts.thresholds import Limits
from cryptocore.batch import SealedBatch
from cryptocore.core import CryptoCore
from cryptocore.keks.life import Giving
from cryptocore.keys import KeyReason
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from cryptocore.store.outbox_marks import OutboxMarks
from cryptocore.store.tables import AUDIT_OUTBOX
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind
from streams.index.trailhistory import IndexTrail
from streams.messages import CORRELATE, KEY_EVENTS, VAULT_ACCESS
from streams.pipeline import steps
from streams.running.memory import MemoryShell
from streams.vaultlogs.messages import file_key, wrap
from tests.cryptocore.test_keks import ADMIN, CRM, NEW, OLD, the_whole_life
from tests.cryptocore.vaulted import NO_COPIES, Vaulted, vaulted

THIEF = "cccc0000-0000-4000-8000-00000000000c"


@dataclass
class Watched:
    """A service with its vault, and the monitor that gets the batches of the one and the records of the other."""

    world: Vaulted
    index: EmbeddedIndex
    shell: MemoryShell
    taken: dict[str, int] = field(default_factory=lambda: {"batches": 0, "records": 0})

    async def takes(self) -> None:
        """Let everything that is new reach the monitor."""
        for partition, batch in self.world.transport.batches[self.taken["batches"] :]:
            self._append(partition, batch)
        for record in self.world.vault_records()[self.taken["records"] :]:
            value = wrap(record, feed="test", resource_id=None, fetched_us=self.world.clock.now_us())
            self.shell.append(VAULT_ACCESS, key=file_key(record), value=value, append_ms=self.world.now_ms)
        self.taken = {"batches": len(self.world.transport.batches), "records": len(self.world.vault_records())}
        await self.shell.run()

    async def waits(self, minutes: int) -> None:
        for _ in range(minutes):
            self.world.clock.advance(60)
            await self.shell.tick(self.world.now_ms)

    async def alerts(self) -> list[str]:
        return sorted(alert["rule_id"] for alert in await self.index.find(DocKind.ALERT))

    async def acts(self) -> list[tuple[str, str, str | None]]:
        found = await self.index.find(DocKind.KEK_USE)
        uses = {"KeyWrap", "KeyUnwrap"}
        return sorted((one["operation"], one["status"], one["actor"]) for one in found if one["operation"] not in uses)

    async def uses(self) -> set[str]:
        found = await self.index.find(DocKind.KEK_USE)
        return {one["status"] for one in found if one["operation"] in {"KeyWrap", "KeyUnwrap"}}

    def _append(self, partition: int, batch: SealedBatch) -> None:
        headers = tuple(batch.headers())
        at_ms = self.world.now_ms
        self.shell.append(
            KEY_EVENTS, key=None, value=batch.value, headers=headers, partition=partition, append_ms=at_ms
        )


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    index = EmbeddedIndex(tmp_path / "index.sqlite")
    await index.ensure()
    async with vaulted(tmp_path, f"sqlite:///{tmp_path / 'keys.sqlite'}") as world:
        shell = MemoryShell(
            steps=steps(world.registry, Limits()),
            partitions={KEY_EVENTS: 1, VAULT_ACCESS: 2, CORRELATE: 2},
            index=index,
        )
        yield Watched(world, index, shell)
        await shell.close()
    await index.close()


async def test_the_whole_life_of_a_kek_through_keytrail_is_information(watched: Watched) -> None:
    await the_whole_life(watched.world)
    await watched.takes()
    await watched.waits(90)

    assert await watched.acts() == [
        (operation, "explained", "user:1001")
        for operation in ("KeyCreate", "KeyCreate", "KeyDelete", "KeyPurge", "KeyRotate", "KeyUpdate")
    ]
    assert await watched.uses() == {"matched"}
    assert await watched.alerts() == []


async def test_recovered_and_enabled_through_keytrail_is_information_too(watched: Watched) -> None:
    world = watched.world
    async with world.core(NEW, OLD) as core:
        old = await core.keks.create(OLD, **ADMIN)
        assert old.state is not None
        version = str(old.state.current)
        await core.keks.disable(OLD, version, giving=Giving(NO_COPIES), **ADMIN)
        world.clock.advance(60)
        await core.keks.enable(OLD, version, **ADMIN)
        world.clock.advance(60)
        await core.keks.delete(OLD, giving=Giving(NO_COPIES), **ADMIN)
        world.clock.advance(60)
        await core.keks.recover(OLD, **ADMIN)
    await watched.takes()
    await watched.waits(90)

    assert [(operation, status) for operation, status, _ in await watched.acts()] == [
        (operation, "explained")
        for operation in ("KeyCreate", "KeyDelete", "KeyRecover", "KeyUpdate", "KeyUpdate")
    ]  # fmt: skip
    assert await watched.alerts() == []


async def test_the_same_act_past_keytrail_is_an_alert(watched: Watched) -> None:
    world = watched.world
    async with world.core(OLD) as core:
        await core.keks.create(OLD, **ADMIN)
    world.vault_records().append(
        {**world.vault_records()[-1], "operationName": "KeyDelete", "correlationId": "0" * 8, "id": "another"}
    )
    await watched.takes()
    await watched.waits(90)

    assert "kek_administration" in await watched.alerts()


# Records signed anew


async def lived(watched: Watched) -> str:
    """A key with a past that the monitor knows."""
    async with watched.world.core(OLD) as core:
        await core.keks.create(OLD, **ADMIN)
        await core.encrypt(b"token", owner=CRM, record="r", create_missing=True, **ADMIN)
        await core.rotate(CRM, reason=KeyReason.SCHEDULED, **ADMIN)
        key = await core.describe(CRM)
        await core.revoke(key.key_id, reason=KeyReason.OPERATOR, version=1, **ADMIN)
    await watched.takes()
    return key.key_id


def succeed(world: Vaulted) -> None:
    """The service gets another key; the old one ends."""
    world.clock.advance(60)
    fresh, now_ms = Signer.generate(), world.now_ms
    entries = []
    for entry in world.registry.signers:
        ends = Role.KEYS in entry.roles
        entries.append(replace(entry, valid_until_ms=now_ms) if ends else entry)
        if ends:
            new: dict[str, Any] = {"signer_id": fresh.signer_id, "public_key": fresh.public_key}
            entries.append(replace(entry, valid_from_ms=now_ms, **new))
    world.registry, world.signer = Registry(world.registry.deployment, tuple(entries)), fresh
    world.store._registry = world.registry


async def signs_anew(watched: Watched, core: CryptoCore, **options: Any) -> Any:
    return await core.resign(IndexTrail(watched.index, watched.world.registry), **options, **ADMIN)


async def test_records_that_the_trail_bears_out_go_over_to_the_new_signer(watched: Watched) -> None:
    key_id = await lived(watched)
    succeed(watched.world)
    async with watched.world.core(OLD) as core:
        looked = await signs_anew(watched, core, apply=False)
        assert (looked.done, looked.refused) == ([f"{key_id}/1", f"{key_id}/2"], {})
        before = await core.inventory.history(key_id)
        done = await signs_anew(watched, core)
        again = await signs_anew(watched, core)
        after = await core.inventory.history(key_id)

    assert (done.done, done.left, done.refused) == ([f"{key_id}/1", f"{key_id}/2"], 0, {})
    assert (again.done, again.left) == ([], 2)
    assert after[: len(before)] == before
    assert [(one.key_version, one.state, one.reason) for one in after[len(before) :]] == [
        (number, last.state, last.reason)
        for number, last in ((1, _last(before, 1)), (2, _last(before, 2)))
    ]  # fmt: skip
    assert {one.signer_id for one in after[len(before) :]} == {watched.world.signer.signer_id}


async def test_the_monitor_takes_a_record_that_was_signed_anew_for_the_next_revision(watched: Watched) -> None:
    await lived(watched)
    second, one = Signer.generate(), watched.world.registry.get(watched.world.signer.signer_id)
    assert one is not None
    new: dict[str, Any] = {"signer_id": second.signer_id, "public_key": second.public_key}
    both = watched.world.registry.with_signer(replace(one, **new))
    watched.world.registry, watched.world.signer = both, second
    watched.world.store._registry = both
    shell = MemoryShell(
        steps=steps(both, Limits()), partitions={KEY_EVENTS: 1, VAULT_ACCESS: 2, CORRELATE: 2}, index=watched.index
    )
    watched.shell, watched.taken = shell, {"batches": 0, "records": 0}
    async with watched.world.core(OLD) as core:
        await signs_anew(watched, core)
    await watched.takes()
    await watched.waits(90)

    assert await watched.alerts() == []
    await shell.close()


def _last(records: list[Any], number: int) -> Any:
    return [one for one in records if one.key_version == number][-1]


async def test_a_record_of_which_the_trail_was_told_otherwise_is_not_signed_anew(watched: Watched) -> None:
    key_id = await lived(watched)
    async with watched.world.core(OLD) as core:  # whoever has the signer's key, and keeps the events to himself
        await core.suspend(key_id, reason=KeyReason.OPERATOR, version=2, **ADMIN)
        store, parts = watched.world.store, core.parts
        marks = OutboxMarks(parts.service, parts.registry, parts.signer)
        store.transaction(marks.writing(store.outbox(parts.service, 10), watched.world.now_ms))
        store.transaction(lambda it: it.execute(update(AUDIT_OUTBOX).values(sent_ms=1)))
    succeed(watched.world)
    async with watched.world.core(OLD) as core:
        found = await signs_anew(watched, core)

    assert found.done == [f"{key_id}/1"]
    assert found.refused == {f"{key_id}/2": "the trail knows revision 2, the store shows 3"}


async def test_what_was_told_after_the_signer_was_stolen_is_not_signed_anew_however_it_is_dated(
    watched: Watched,
) -> None:
    key_id = await lived(watched)
    world = watched.world
    world.clock.advance(60)
    stolen_ms = world.now_ms + 1
    async with world.core(OLD) as core:  # the thief's record says it was made before the theft; the broker knows better
        await core.suspend(key_id, reason=KeyReason.OPERATOR, version=2, **ADMIN)
    world.clock.advance(60)
    await watched.takes()
    succeed(world)
    entries = tuple(
        replace(one, compromised_from_ms=stolen_ms) if one.signer_id != world.signer.signer_id else one
        for one in world.registry.signers
    )
    world.registry = world.store._registry = Registry(world.registry.deployment, entries)
    async with world.core(OLD) as core:
        found = await signs_anew(watched, core)

    assert found.done == [f"{key_id}/1"]
    assert found.refused == {f"{key_id}/2": "its event came when its signer's key was in other hands"}


async def test_what_the_trail_does_not_know_is_not_signed_anew_unless_nobody_compares(watched: Watched) -> None:
    async with watched.world.core(OLD) as core:
        await core.keks.create(OLD, **ADMIN)
        await core.encrypt(b"token", owner=CRM, record="r", create_missing=True, **ADMIN)
    succeed(watched.world)
    async with watched.world.core(OLD) as core:
        found = await signs_anew(watched, core)
        assert list(found.refused.values()) == ["the trail knows nothing of it"]
        blind = await core.resign(None, **ADMIN)

    assert (len(blind.done), blind.refused) == (1, {})


async def test_a_word_of_a_service_that_may_not_change_keys_does_not_count(watched: Watched) -> None:
    key_id = await lived(watched)
    others = tuple(replace(one, roles=frozenset({Role.EVENTS})) for one in watched.world.registry.signers)
    trail = IndexTrail(watched.index, Registry(watched.world.registry.deployment, others))

    assert await trail.newest(key_id, 1) is None
    told = await IndexTrail(watched.index, watched.world.registry).newest(key_id, 1)
    assert told is not None
    assert told.digest == (await _records(watched, key_id))[1].event_sha256


async def _records(watched: Watched, key_id: str) -> dict[int, Any]:
    async with watched.world.core(OLD) as core:
        return {one.key_version: one for one in await core.inventory.history(key_id)}
