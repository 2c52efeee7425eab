"""What the spool's tests share: events in short, and a reader that takes batches apart as a receiver would."""

from collections import defaultdict
from collections.abc import Iterable

from cryptocore.batch import SealedBatch, open_batch
from cryptocore.events import AuditEvent, KekRef, KeyRef, Line, Operation, Outcome, OwnerRef, Phase, Reason
from cryptocore.keys import KeyState
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from cryptocore.spool.entries import new_id
from cryptocore.testing import START, CountedIds

DEPLOYMENT = bytes(range(16))
SERVICE = "billing"
OWNER = OwnerRef(tenant_id="t-88", integration_id="crm")
KEK = KekRef(vault="kv-prod", name="tokens", version="1")


def key(number: int) -> KeyRef:
    """Name one of a handful of keys, which fall on different partitions."""
    return KeyRef(id=bytes([number] * 16).hex(), version=1, revision=2, kind="dek", state=KeyState.ACTIVE)


def used(
    number: int, ids: CountedIds, outcome: Outcome = Outcome.SUCCEEDED, operation: Operation = Operation.DECRYPT
) -> AuditEvent:
    """Make the single event of a use."""
    return AuditEvent(
        id=new_id(ids),
        phase=Phase.SINGLE,
        operation=operation,
        outcome=outcome,
        reason=None if outcome is Outcome.SUCCEEDED else Reason.KEY_STATE,
        occurred_at=START,
        service=SERVICE,
        key=key(number),
        owner=OWNER,
        actor="user:4711",
        purpose="crm-sync",
    )


def unwrapping(number: int, ids: CountedIds, intent: AuditEvent | None = None) -> AuditEvent:
    """Make the intent of an unwrap, or with `intent` the failed outcome of it."""
    return AuditEvent(
        id=new_id(ids),
        phase=Phase.INTENT if intent is None else Phase.OUTCOME,
        operation=Operation.UNWRAP,
        outcome=None if intent is None else Outcome.FAILED,
        reason=None if intent is None else Reason.VAULT_UNREACHABLE,
        occurred_at=START,
        service=SERVICE,
        key=key(number),
        owner=OWNER,
        kek=KEK,
        actor="user:4711",
        purpose="crm-sync",
        intent_id=None if intent is None else intent.id,
        call_ids=(new_id(ids),) if intent is None else (),
    )


def registry_of(*signers: Signer, roles: Iterable[Role] = (Role.EVENTS, Role.KEYS)) -> Registry:
    """Register signers for the service."""
    return Registry(
        DEPLOYMENT,
        tuple(
            RegisteredSigner(
                signer_id=signer.signer_id,
                public_key=signer.public_key,
                source=SERVICE,
                roles=frozenset(roles),
                vault_principals=(),
                person=None,
                valid_from_ms=0,
                valid_until_ms=2**52,
            )
            for signer in signers
        ),
    )


def received(batches: Iterable[tuple[int, SealedBatch]], registry: Registry) -> list[Line]:
    """Open batches as the monitor does: duplicates dropped, chains contiguous; all lines in the order of arrival."""
    lines: list[Line] = []
    heads: dict[tuple[bytes, int], list[bytes]] = defaultdict(list)
    for partition, batch in batches:
        opened = open_batch(batch, registry, generation=1, partition=partition, append_ms=10**12)
        chain = heads[opened.seal.instance, partition]
        if opened.seal.sequence < len(chain):
            assert chain[opened.seal.sequence] == opened.digest, "a resend sends the same bytes"
            continue
        assert opened.seal.sequence == len(chain)
        assert opened.seal.previous == (chain[-1] if chain else bytes(32))
        chain.append(opened.digest)
        lines += opened.lines
    return lines
