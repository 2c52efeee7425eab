"""What people and thieves do to a KEK, from sealed batches and vault records to alerts, through all agents."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alerts.thresholds import MINUTE_MS, Limits
from cryptocore.clock import rfc3339_ms
from cryptocore.events import (
    AuditEvent,
    KekRef,
    KeyRef,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    VaultAttempt,
    kek_key_id,
)
from cryptocore.registry import Registry
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind
from streams.messages import CORRELATE, KEY_EVENTS, VAULT_ACCESS
from streams.pipeline import steps
from streams.running.memory import MemoryShell
from streams.vaultlogs.messages import file_key, wrap
from tests.streams.builders import DEPLOYMENT, NOW_MS, Sender, event, fresh_id, registered
from tests.streams.vaultlogs.records import VERSION, WORKLOAD, Record, record

THIEF = "cccc0000-0000-4000-8000-00000000000c"
KEK = KekRef(vault="kt-prod", name="tokens-kek", version=VERSION)


class Company:
    """One service with a KEK, whose identity is that of the vault records, and all agents."""

    def __init__(self, index: EmbeddedIndex) -> None:
        self.index = index
        self.now_ms = NOW_MS
        self.sender = Sender("billing")
        signer = replace(registered("billing", self.sender.signer), vault_principals=(WORKLOAD["oid"].lower(),))
        self.shell = MemoryShell(
            steps=steps(Registry(DEPLOYMENT, (signer,)), Limits()),
            partitions={KEY_EVENTS: 1, VAULT_ACCESS: 2, CORRELATE: 2},
            index=index,
        )

    async def seals(self, *events: AuditEvent) -> None:
        sent = self.sender.seal(*events, sealed_ms=self.now_ms)
        self.shell.append(
            KEY_EVENTS,
            key=None,
            value=sent.batch.value,
            headers=tuple(sent.batch.headers()),
            partition=0,
            append_ms=self.now_ms,
        )
        await self.shell.run()

    async def logs(self, original: Record, *, who: str = WORKLOAD["oid"], request_id: str = "") -> None:
        logged = original | {
            "time": f"{rfc3339_ms(self.now_ms)[:-1]}0Z",
            "correlationId": request_id or fresh_id(),
            "identity": {"claim": {"oid": who}},
        }
        value = wrap(logged, feed="test", resource_id=None, fetched_us=self.now_ms * 1000)
        self.shell.append(VAULT_ACCESS, key=file_key(logged), value=value, append_ms=self.now_ms)
        await self.shell.run()

    async def wait(self, minutes: int) -> None:
        for _ in range(minutes):
            self.now_ms += MINUTE_MS
            await self.shell.tick(self.now_ms)

    async def acts(self, operation: Operation, original: Record) -> None:
        """Do something to the KEK through keytrail: intent, call, outcome; the vault logs it."""
        request_id, call_id, intent_id = fresh_id(), fresh_id(), fresh_id()
        at = rfc3339_ms(self.now_ms)
        attempt = VaultAttempt(call_id=call_id, request_id=request_id, http_status=200, started_at=at, ended_at=at)
        about: dict[str, Any] = {
            "operation": operation,
            "occurred_at": at,
            "service": "billing",
            "key": KeyRef(id=kek_key_id(KEK.vault, KEK.name), kind="kek"),
            "kek": KekRef(vault=KEK.vault, name=KEK.name),
            "actor": "user:1009",
            "purpose": "rotation",
        }
        await self.seals(AuditEvent(id=intent_id, phase=Phase.INTENT, call_ids=(call_id,), **about))
        await self.logs(original, request_id=request_id)
        ended: dict[str, Any] = {"outcome": Outcome.SUCCEEDED, "intent_id": intent_id, "vault_attempts": (attempt,)}
        await self.seals(AuditEvent(id=fresh_id(), phase=Phase.OUTCOME, **about, **ended))

    async def unwraps(self, status: int = 200) -> None:
        """Let billing use the KEK, and the vault log it."""
        request_id, at = fresh_id(), rfc3339_ms(self.now_ms)
        attempt = VaultAttempt(
            call_id=fresh_id(), request_id=request_id, http_status=status, started_at=at, ended_at=at
        )
        outcome = Outcome.SUCCEEDED if status == 200 else Outcome.DENIED
        told = event(
            Operation.UNWRAP,
            outcome,
            at_ms=self.now_ms,
            reason=None if status == 200 else Reason.VAULT_DENIED,
            owner=OwnerRef(tenant_id="t-88", integration_id="crm"),
            kek=KEK,
            phase=Phase.OUTCOME,
            intent_id=fresh_id(),
            vault_attempts=(attempt,),
        )
        await self.seals(told)
        await self.logs(record("KeyUnwrap", status), request_id=request_id)

    async def alerts(self) -> list[tuple[str, str]]:
        found = await self.index.find(DocKind.ALERT)
        about_keks = [alert for alert in found if alert["rule_id"] not in {"silent_source", "chain_unclosed"}]
        return sorted((alert["rule_id"], alert["severity"]) for alert in about_keks if alert["status"] == "open")

    async def uses(self, operation: str) -> list[tuple[str, str | None]]:
        found = await self.index.find(DocKind.KEK_USE, where={"operation": operation})
        return [(use["status"], use["actor"]) for use in found]


@pytest.fixture
async def company(tmp_path: Path) -> AsyncIterator[Company]:
    index = EmbeddedIndex(tmp_path / "index.sqlite")
    await index.ensure()
    made = Company(index)
    yield made
    await made.shell.close()
    await index.close()


def toggled(*, enabled: bool) -> Record:
    return record("KeyUpdate", keyProperties={"attributes": {"enabled": enabled}})


async def test_a_rotation_through_keytrail_is_information(company: Company) -> None:
    await company.acts(Operation.ROTATE, record("KeyRotate", requestUri=None))
    await company.wait(90)

    assert await company.alerts() == []
    assert await company.uses("KeyRotate") == [("explained", "user:1009")]


async def test_the_same_by_the_same_identity_past_keytrail_is_an_alert(company: Company) -> None:
    await company.logs(record("KeyDelete"))
    await company.wait(3)

    assert await company.alerts() == [("kek_administration", "high")]
    assert await company.uses("KeyDelete") == [("unexplained", None)]


async def test_a_thief_who_disables_a_kek_in_use_is_one_incident(company: Company) -> None:
    await company.unwraps()
    await company.wait(10)
    await company.logs(toggled(enabled=False), who=THIEF)
    for _ in range(8):
        await company.wait(5)
        await company.unwraps(403)
    await company.wait(60)

    assert await company.alerts() == [("kek_administration", "high")]
    found = await company.index.find(DocKind.ALERT, where={"rule_id": "kek_administration"})
    assert found[0]["facts"]["inhibits"] == "kek_drift"


async def test_a_kek_that_is_disabled_through_keytrail_while_a_service_needs_it_is_drift(company: Company) -> None:
    await company.acts(Operation.SUSPEND, toggled(enabled=False))
    await company.wait(10)
    await company.unwraps(403)
    await company.wait(2)
    assert await company.alerts() == [("kek_drift", "medium")]

    await company.acts(Operation.RESUME, toggled(enabled=True))
    await company.wait(90)

    assert await company.alerts() == []


async def test_who_enables_what_keytrail_disabled_is_one_incident(company: Company) -> None:
    await company.acts(Operation.SUSPEND, toggled(enabled=False))
    await company.wait(10)

    await company.logs(toggled(enabled=True), who=THIEF)
    await company.wait(90)

    assert await company.alerts() == [("kek_administration", "medium")]
