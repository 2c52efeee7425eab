"""Sealed batches for the worker's benchmarks: one service uses many keys, by many actors.

The keys' lives begin in the load itself, or, where they are too many, in state records made beforehand (`histories`).
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import accumulate

import msgspec

from alerts.thresholds import Limits
from cryptocore.batch import NO_PREVIOUS, SealedBatch, seal_batch
from cryptocore.clock import SystemClock, rfc3339
from cryptocore.events import AuditEvent, KeyRef, Operation, Outcome, OwnerRef, Phase, Reason, decode_line, encode_line
from cryptocore.keys import KeyState
from cryptocore.partitions import partition_of
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from streams.trail.key_history import KeyHistory

PARTITIONS = 4
EVENTS_A_BATCH = 500
DEPLOYMENT = bytes(range(16))
USES_BEFORE = 4
"""Uses that a key has behind it where its history is made beforehand."""

_NO_ID = "00000000-0000-0000-0000-000000000000"
_NO_KEY = "0" * 32
_NO_TIME = "2000-01-01T00:00:00.000000Z"
_NO_TENANT = "t-?"
_NO_ACTOR = "user:?"


class Load:
    """Sealed batches of one service, by partition: first the keys' lives begin if they are `told`, then come uses.

    `zipf`: in each partition the n-th key is used 1/n as often as the first; otherwise all alike. `planted`: so many
    keys have been revoked, and somebody asks for each of them once, spread evenly over the uses; `plants` says in which
    batch. `every_us`: the time from event to event. `actors`: who uses the keys.
    """

    def __init__(
        self,
        *,
        batches: int,
        keys: int,
        events_a_batch: int = EVENTS_A_BATCH,
        told: bool = True,
        zipf: bool = False,
        planted: int = 0,
        every_us: int = 50,
        actors: int = 5_000,
        seed: int = 7,
    ) -> None:
        self.signer = Signer.generate()
        self._draw = random.Random(seed)
        self._now_us = SystemClock().now_us()
        self._heads: dict[int, tuple[int, bytes]] = {}
        self._every_us = every_us
        self._actors = actors
        self._use_line = _use_line()
        self.batches: list[tuple[int, SealedBatch]] = []
        self.events = 0
        self.told = told
        self.lines: list[bytes] = []
        self.plants: dict[int, str] = {}
        self.keys: dict[int, list[str]] = {number: [] for number in range(PARTITIONS)}
        for _ in range(keys):
            key = self._draw.randbytes(16)
            self.keys[partition_of(key, PARTITIONS)].append(key.hex())
        if told:
            self._tell()
        weights = {
            number: list(accumulate(1 / rank if zipf else 1.0 for rank in range(1, len(idents) + 1)))
            for number, idents in self.keys.items()
        }
        revoked = [self._revoke(number % PARTITIONS) for number in range(planted)]
        self.uses_from = len(self.batches)
        for number in range(batches):
            partition = number % PARTITIONS
            used = self._draw.choices(self.keys[partition], cum_weights=weights[partition], k=events_a_batch)
            lines = [self._use(ident) for ident in used]
            if (
                revoked
                and number >= batches * len(self.plants) / planted
                and partition == len(self.plants) % PARTITIONS
            ):
                ident = self.plants[len(self.batches)] = revoked[len(self.plants)]
                lines[-1] = self._refused(ident)
            self._seal(partition, lines)

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

    def histories(self, partition: int, *, uses: int = USES_BEFORE) -> Iterator[tuple[bytes, KeyHistory]]:
        """What the trail knows of each key of a partition when its life and so many uses have been told.

        The keys of a tenant share the object: only their ids are their own.
        """
        begun_ms = self._now_us // 1000 - 3_600_000
        known: dict[str, KeyHistory] = {}
        for ident in self.keys[partition]:
            tenant = _tenant(ident)
            if tenant not in known:
                known[tenant] = _history(ident, begun_ms, uses)
            yield bytes.fromhex(ident), known[tenant]

    def _tell(self) -> None:
        for partition, idents in self.keys.items():
            begun = [self._begin(ident, operation) for ident in idents for operation in ("create", "activate")]
            for start in range(0, len(begun), EVENTS_A_BATCH):
                self._seal(partition, begun[start : start + EVENTS_A_BATCH])

    def _begin(self, ident: str, operation: str) -> bytes:
        made = operation == "create"
        state = KeyState.PRE_ACTIVATION if made else KeyState.ACTIVE
        event = _event(ident, Operation(operation), 1 if made else 2, state, self._id(), self._time())
        return encode_line(event)

    def _revoke(self, partition: int) -> str:
        """Revoke a key that nobody else uses."""
        ident = self._draw.randbytes(16)
        while partition_of(ident, PARTITIONS) != partition:
            ident = self._draw.randbytes(16)
        key = ident.hex()
        lines = [self._begin(key, "create"), self._begin(key, "activate")]
        event = _event(key, Operation.REVOKE, 3, KeyState.REVOKED, self._id(), self._time())
        self._seal(partition, [*lines, encode_line(msgspec.structs.replace(event, reason=Reason.OPERATOR))])
        return key

    def _refused(self, ident: str) -> bytes:
        event = _event(ident, Operation.DECRYPT, 3, KeyState.REVOKED, self._id(), self._time())
        refused = msgspec.structs.replace(event, outcome=Outcome.DENIED, reason=Reason.KEY_STATE)
        return encode_line(refused)

    def _use(self, ident: str) -> bytes:
        """A line as `encode_line` writes it, without its checks: a load has hundreds of thousands."""
        return self._use_line % (
            self._id().encode(),
            b"decrypt" if self._draw.random() < 0.7 else b"encrypt",
            self._time().encode(),
            ident.encode(),
            _tenant(ident).encode(),
            b"user:%d" % self._draw.randrange(self._actors),
        )

    def _id(self) -> str:
        raw = f"{self._draw.getrandbits(128):032x}"
        return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"

    def _time(self) -> str:
        self._now_us += self._every_us
        return rfc3339(self._now_us)

    def _seal(self, partition: int, lines: Sequence[bytes]) -> None:
        decode_line(lines[0])  # a load of nonsense would be measured as well
        sequence, previous = self._heads.get(partition, (0, NO_PREVIOUS))
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


def _tenant(ident: str) -> str:
    return f"t-{ident[:2]}"


def _event(  # noqa: PLR0917 - the places of a line, in their order
    ident: str,
    operation: Operation,
    revision: int,
    state: KeyState,
    event_id: str = _NO_ID,
    at: str = _NO_TIME,
    tenant: str | None = None,
    actor: str = "user:1",
) -> AuditEvent:
    return AuditEvent(
        id=event_id,
        phase=Phase.SINGLE,
        operation=operation,
        outcome=Outcome.SUCCEEDED,
        occurred_at=at,
        service="billing",
        key=KeyRef(id=ident, version=1, revision=revision, kind="dek", state=state),
        owner=OwnerRef(tenant_id=tenant or _tenant(ident), integration_id="crm"),
        actor=actor,
        purpose="crm-sync",
        host="billing-7d9f",
    )


def _history(ident: str, begun_ms: int, uses: int) -> KeyHistory:
    history = KeyHistory(tenant=_tenant(ident))
    version = history.version(1, told=True)
    for revision in (1, 2):
        version.note(revision, hashlib.sha256(bytes((revision,))).digest(), begun_ms)
    version.state = str(KeyState.ACTIVE)
    used = _event(ident, Operation.DECRYPT, 2, KeyState.ACTIVE)
    for place in range(uses):
        history.remember(used, Outcome.SUCCEEDED, begun_ms + place, Limits())
    return history


def _use_line() -> bytes:
    """The line of a use, with places for id, operation, time, key, tenant and actor."""
    line = encode_line(_event(_NO_KEY, Operation.DECRYPT, 2, KeyState.ACTIVE, tenant=_NO_TENANT, actor=_NO_ACTOR))
    for mark in (_NO_ID, "decrypt", _NO_TIME, _NO_KEY, _NO_TENANT, _NO_ACTOR):
        line = line.replace(mark.encode(), b"%b")
    return line
