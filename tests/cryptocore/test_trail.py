"""Services that keep their own cryptography: what they may say, and that it is durable."""

from pathlib import Path

import pytest

from cryptocore import AuditTrail, AuditUnavailable, Owner, Signer, acting
from cryptocore.emitter import Emitter
from cryptocore.errors import EventInvalid, MissingActor, NotClaimable, UnknownPurpose
from cryptocore.events import KekRef, Operation, Outcome, Phase, Reason
from cryptocore.purposes import Purposes
from cryptocore.testing import Events, ManualClock, MemoryTransport, register

OWNER = Owner.tenant("t-88", "crm")
KEY = "5f" * 16
KEK = KekRef(vault="kv-prod", name="tenant-kek", version="1")


class Trail(AuditTrail):
    """A trail on a log in memory."""

    def __init__(self, directory: Path, purposes: Purposes | None = None) -> None:
        signer, self.transport = Signer.generate(), MemoryTransport()
        registry = register(signer, source="billing")
        emitter = Emitter(
            spool_dir=directory,
            signer=signer,
            deployment=registry.deployment,
            service="billing",
            transport=self.transport,
            partitions=2,
            clock=ManualClock(),
            durability="broker",
            background=False,
        )
        super().__init__(emitter, purposes=purposes)
        self.events = Events(self.transport, registry)


async def test_a_use_is_in_the_log_when_record_returns(tmp_path: Path) -> None:
    async with Trail(tmp_path) as trail:
        with acting(actor="user:4711", purpose="crm-sync"):
            ident = await trail.record(Operation.DECRYPT, owner=OWNER, key_id=KEY, key_version=3)
            await trail.record(
                Operation.DECRYPT, owner=OWNER, key_id=KEY, outcome=Outcome.FAILED, reason=Reason.BAD_TAG
            )

        first, second = trail.events.only(Operation.DECRYPT)
    assert (first.id, first.actor, first.purpose, first.outcome) == (ident, "user:4711", "crm-sync", Outcome.SUCCEEDED)
    assert first.key is not None
    assert (first.key.id, first.key.version) == (KEY, 3)
    assert (second.outcome, second.reason) == (Outcome.FAILED, Reason.BAD_TAG)


CLAIMABLE = {Operation.ENCRYPT, Operation.DECRYPT, Operation.REENCRYPT, Operation.TOKEN_USE}


@pytest.mark.parametrize("operation", [operation for operation in Operation if operation not in CLAIMABLE])
async def test_what_only_key_records_vouch_for_may_not_be_claimed(tmp_path: Path, operation: Operation) -> None:
    async with Trail(tmp_path) as trail:
        with acting(actor="user:4711", purpose="p"), pytest.raises(NotClaimable, match=operation.value):
            await trail.record(operation, owner=OWNER, key_id=KEY)
        assert list(trail.events) == []


async def test_a_wrong_claim_is_refused_and_names_the_field(tmp_path: Path) -> None:
    async with Trail(tmp_path) as trail:
        with pytest.raises(MissingActor):
            await trail.record(Operation.DECRYPT, owner=OWNER, key_id=KEY, purpose="p")
        with acting(actor="user:4711", purpose="p"):
            for wrong in ({"key_id": "short"}, {"key_version": 0}, {"outcome": Outcome.FAILED}):
                with pytest.raises(EventInvalid):
                    await trail.record(Operation.DECRYPT, owner=OWNER, **({"key_id": KEY} | wrong))
        assert list(trail.events) == []


async def test_without_a_durable_event_the_service_hears_it(tmp_path: Path) -> None:
    async with Trail(tmp_path) as trail:
        trail.transport.down = True
        with acting(actor="user:4711", purpose="p"), pytest.raises(AuditUnavailable):
            await trail.record(Operation.DECRYPT, owner=OWNER, key_id=KEY)
        trail.transport.down = False


async def test_a_call_to_a_vault_has_its_intent_before_and_its_outcome_after(tmp_path: Path) -> None:
    async with Trail(tmp_path) as trail:
        with acting(actor="user:4711", purpose="crm-sync"):
            async with trail.vault_call(Operation.UNWRAP, kek=KEK, owner=OWNER, key_id=KEY, requests=2) as call:
                [intent] = trail.events.only(Operation.UNWRAP)
                made = trail.attempt(call.call_ids[0], started_us=1, ended_us=2, http_status=200, request_id="r-1")
                call.succeeded(made)

        _, outcome = trail.events.only(Operation.UNWRAP)
    assert (intent.phase, intent.call_ids) == (Phase.INTENT, call.call_ids)
    assert (outcome.intent_id, outcome.outcome) == (intent.id, Outcome.SUCCEEDED)
    assert [attempt.request_id for attempt in outcome.vault_attempts] == ["r-1"]


async def test_a_call_that_ends_in_any_other_way_is_unknown_and_a_denied_one_denied(tmp_path: Path) -> None:
    def unwrapping(trail: Trail) -> object:
        return trail.vault_call(Operation.UNWRAP, kek=KEK, owner=OWNER, key_id=KEY, actor="user:1", purpose="p")

    async with Trail(tmp_path) as trail:
        with pytest.raises(ZeroDivisionError):
            async with unwrapping(trail):  # type: ignore[attr-defined]
                1 / 0  # noqa: B018
        async with unwrapping(trail) as call:  # type: ignore[attr-defined]
            call.failed(Reason.VAULT_DENIED, trail.attempt(call.call_ids[0], started_us=1, http_status=403))
        with pytest.raises(NotClaimable):
            async with trail.vault_call(Operation.DECRYPT, kek=KEK, owner=OWNER, key_id=KEY, actor="a:b", purpose="p"):
                pass

        ends = [event for event in trail.events if event.phase is Phase.OUTCOME]
    assert [(end.outcome, end.reason) for end in ends] == [
        (Outcome.UNKNOWN, None),
        (Outcome.DENIED, Reason.VAULT_DENIED),
    ]


def test_a_service_that_blocks_records_too(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    with acting(actor="user:4711", purpose="p"):
        trail.sync.record(Operation.ENCRYPT, owner=OWNER, key_id=KEY)
    trail.sync.close()

    assert [event.actor for event in trail.events] == ["user:4711"]


async def test_declared_purposes_hold_for_a_trail_too(tmp_path: Path) -> None:
    purposes = Purposes.parse('[[purpose]]\nid = "crm-sync"\nservices = ["billing"]\n')
    async with Trail(tmp_path, purposes) as trail:
        await trail.record(Operation.DECRYPT, owner=OWNER, key_id=KEY, actor="user:1", purpose="crm-sync")
        with pytest.raises(UnknownPurpose, match="'crm-snyc' is not declared"):
            await trail.record(Operation.DECRYPT, owner=OWNER, key_id=KEY, actor="user:1", purpose="crm-snyc")


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.VAULT_DENIED, Outcome.DENIED),
        (Reason.VAULT_NOT_FOUND, Outcome.FAILED),
        (Reason.VAULT_THROTTLED, Outcome.FAILED),
        (Reason.KID_MISMATCH, Outcome.FAILED),
    ],
)
async def test_only_a_vault_that_said_no_counts_as_denied(tmp_path: Path, reason: Reason, outcome: Outcome) -> None:
    async with Trail(tmp_path) as trail:
        with acting(actor="user:4711", purpose="crm-sync"):
            async with trail.vault_call(Operation.UNWRAP, kek=KEK, owner=OWNER, key_id=KEY) as call:
                call.failed(reason)

    ended = trail.events.only(Operation.UNWRAP)[-1]
    assert (ended.phase, ended.outcome, ended.reason) == (Phase.OUTCOME, outcome, reason)
