"""Sealed batches for the worker's benchmarks: keys begin to live, then they are used, by one service."""

import hashlib
import random
from collections.abc import Sequence

from cryptocore.batch import NO_PREVIOUS, SealedBatch, partition_of, seal_batch
from cryptocore.clock import SystemClock, rfc3339
from cryptocore.events import AuditEvent, KeyRef, Operation, Outcome, OwnerRef, Phase, encode_line
from cryptocore.keys import KeyState
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer

PARTITIONS = 4
EVENTS_A_BATCH = 500
DEPLOYMENT = bytes(range(16))


class Load:
    """Sealed batches of one service, by partition: first the keys' lives begin, then they are used."""

    def __init__(self, *, batches: int, keys: int, seed: int = 7) -> None:
        self.signer = Signer.generate()
        self._draw = random.Random(seed)
        self._now_us = SystemClock().now_us()
        self._heads: dict[int, tuple[int, bytes]] = {}
        self.batches: list[tuple[int, SealedBatch]] = []
        self.events = 0
        self.lines: list[bytes] = []
        placed: dict[int, list[str]] = {number: [] for number in range(PARTITIONS)}
        for _ in range(keys):
            key = self._draw.randbytes(16)
            placed[partition_of(key, PARTITIONS)].append(key.hex())
        for partition, idents in placed.items():
            begun = [self._begin(ident, operation) for ident in idents for operation in ("create", "activate")]
            for start in range(0, len(begun), EVENTS_A_BATCH):
                self._seal(partition, begun[start : start + EVENTS_A_BATCH])
        for number in range(batches):
            partition = number % PARTITIONS
            self._seal(partition, [self._use(self._draw.choice(placed[partition])) for _ in range(EVENTS_A_BATCH)])

    @property
    def registry(self) -> Registry:
        return Registry(
            DEPLOYMENT,
            (
                RegisteredSigner(
                    signer_id=self.signer.signer_id,
                    public_key=self.signer.public_key,
                    source="billing",
                    roles=frozenset({Role.EVENTS, Role.KEYS}),
                    vault_principals=(),
                    person=None,
                    valid_from_ms=0,
                    valid_until_ms=4_000_000_000_000,
                    compromised_from_ms=None,
                ),
            ),
        )

    def _begin(self, ident: str, operation: str) -> AuditEvent:
        made = operation == "create"
        state = KeyState.PRE_ACTIVATION if made else KeyState.ACTIVE
        return self._event(ident, Operation(operation), 1 if made else 2, state)

    def _use(self, ident: str) -> AuditEvent:
        operation = Operation.DECRYPT if self._draw.random() < 0.7 else Operation.ENCRYPT
        return self._event(ident, operation, 2, KeyState.ACTIVE)

    def _event(self, ident: str, operation: Operation, revision: int, state: KeyState) -> AuditEvent:
        self._now_us += 50
        raw = f"{self._draw.getrandbits(128):032x}"
        return AuditEvent(
            id=f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}",
            phase=Phase.SINGLE,
            operation=operation,
            outcome=Outcome.SUCCEEDED,
            occurred_at=rfc3339(self._now_us),
            service="billing",
            key=KeyRef(id=ident, version=1, revision=revision, kind="dek", state=state),
            owner=OwnerRef(tenant_id=f"t-{ident[:2]}", integration_id="crm"),
            actor=f"user:{self._draw.randrange(5_000)}",
            purpose="crm-sync",
            host="billing-7d9f",
        )

    def _seal(self, partition: int, events: Sequence[AuditEvent]) -> None:
        sequence, previous = self._heads.get(partition, (0, NO_PREVIOUS))
        lines = [encode_line(event) for event in events]
        batch = seal_batch(
            b"".join(line + b"\n" for line in lines),
            count=len(lines),
            deployment=DEPLOYMENT,
            instance=b"\xaa" * 16,
            generation=1,
            partition=partition,
            sequence=sequence,
            previous=previous,
            sealed_at_ms=self._now_us // 1000,
            signer=self.signer,
        )
        self._heads[partition] = (sequence + 1, hashlib.sha256(batch.seal).digest())
        self.batches.append((partition, batch))
        self.events += len(lines)
        self.lines += lines
