"""One call to a vault by a service of ours, told twice: by the service's own events and by the vault's record."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bench.month.acts import Act, draw_uuid, us
from bench.month.chain import Process
from bench.month.keytable import Key, Standing
from bench.month.plan import CLIENTS, KEKS, START_S
from cryptocore.clock import rfc3339
from cryptocore.events import AuditEvent, KekRef, KeyRef, Operation, Outcome, Phase, Reason, VaultAttempt, kek_key_id

OK, FORBIDDEN, THROTTLED = 200, 403, 429
DISABLED: Final = "Operation unwrapKey is not allowed on a disabled key."
_VAULT_OPERATION: Final = {Operation.WRAP: "KeyWrap", Operation.UNWRAP: "KeyUnwrap"}
_THROTTLED_SHARE: Final = 0.01


class Made(NamedTuple):
    """An attempt as both sides know it: what a thief who reads the log may copy."""

    at_us: int
    process: Process
    key: Key
    kek_version: str
    call_id: str
    request_id: str


class Caller:
    """Makes events and records of vault calls.

    Args:
        vault_log: takes the records.
    """

    def __init__(self, draw: random.Random, vault_log: Callable[[Act], None]) -> None:
        self._draw = draw
        self._vault_log = vault_log
        self.made: list[Made] = []

    def event(
        self,
        process: Process,
        at_us: int,
        operation: Operation,
        key: Key,
        ref: KeyRef,
        *,
        outcome: Outcome | None = Outcome.SUCCEEDED,
        reason: Reason | None = None,
        phase: Phase = Phase.SINGLE,
        **fields: object,
    ) -> AuditEvent:
        """One event about a key."""
        return AuditEvent(
            id=draw_uuid(self._draw),
            phase=phase,
            operation=operation,
            outcome=outcome,
            reason=reason,
            occurred_at=rfc3339(START_S * 1_000_000 + at_us),
            service=process.service,
            key=ref,
            owner=key.owner,
            actor=f"job:{process.service}",
            purpose="nightly-sync",
            **fields,  # type: ignore[arg-type]
        )

    def call(
        self,
        process: Process,
        at_us: int,
        operation: Operation,
        key: Key,
        standing: Standing,
        *,
        status: int = OK,
        crashes: bool = False,
        spared: bool = False,
    ) -> int:
        """Wrap or unwrap: an intent, one or two attempts, an outcome; returns when it ended."""
        ref, kek = key.ref(standing), key.kek(standing.kek_version)
        throttled = self._draw.random() < _THROTTLED_SHARE
        statuses = [THROTTLED, status] if throttled and not crashes else [status]
        attempts = self._attempts(at_us, statuses)
        call_ids = tuple(attempt.call_id for attempt in attempts)
        intent = self.event(
            process, at_us, operation, key, ref, outcome=None, phase=Phase.INTENT, kek=kek, call_ids=call_ids
        )
        process.say(at_us, [intent])
        for attempt, code, started_us in zip(attempts, statuses, self._starts(at_us, len(attempts)), strict=True):
            self._record(process, started_us + 8_000, operation, key, standing, attempt, code, spared=spared)
        end_us = self._starts(at_us, len(attempts))[-1] + 40_000
        if crashes:
            return end_us
        denied = status == FORBIDDEN
        outcome = self.event(
            process,
            end_us,
            operation,
            key,
            ref,
            outcome=Outcome.DENIED if denied else Outcome.SUCCEEDED,
            reason=Reason.VAULT_DENIED if denied else None,
            phase=Phase.OUTCOME,
            kek=kek,
            intent_id=intent.id,
            vault_attempts=tuple(attempts),
        )
        process.say(end_us, [outcome])
        return end_us

    def rotate_kek(self, process: Process, at_us: int, alias: str) -> int:
        """Rotate a KEK in its vault, as an act of the key service; returns when it ended."""
        vault, name = KEKS[alias]
        attempts = self._attempts(at_us, [OK])
        told = {
            "operation": Operation.ROTATE,
            "service": process.service,
            "key": KeyRef(id=kek_key_id(vault, name), kind="kek"),
            "kek": KekRef(vault=vault, name=name),
            "actor": "user:1009",
            "purpose": "rotation",
        }
        intent = AuditEvent(
            id=draw_uuid(self._draw),
            phase=Phase.INTENT,
            occurred_at=rfc3339(START_S * 1_000_000 + at_us),
            call_ids=(attempts[0].call_id,),
            **told,  # type: ignore[arg-type]
        )
        process.say(at_us, [intent])
        end_us = at_us + 60_000
        outcome = AuditEvent(
            id=draw_uuid(self._draw),
            phase=Phase.OUTCOME,
            outcome=Outcome.SUCCEEDED,
            occurred_at=rfc3339(START_S * 1_000_000 + end_us),
            intent_id=intent.id,
            vault_attempts=tuple(attempts),
            **told,  # type: ignore[arg-type]
        )
        process.say(end_us, [outcome])
        self._vault_log(
            Act(
                at_us=at_us + 20_000,
                principal=process.service,
                vault=vault,
                operation="KeyRotate",
                name=name,
                address=address_of(process.service),
                correlation=(attempts[0].call_id if vault in CLIENTS else attempts[0].request_id) or "",
            )
        )
        return end_us

    def _attempts(self, at_us: int, statuses: Sequence[int]) -> list[VaultAttempt]:
        return [
            VaultAttempt(
                call_id=draw_uuid(self._draw),
                request_id=draw_uuid(self._draw),
                http_status=status,
                started_at=rfc3339(START_S * 1_000_000 + started_us),
                ended_at=rfc3339(START_S * 1_000_000 + started_us + 30_000),
            )
            for status, started_us in zip(statuses, self._starts(at_us, len(statuses)), strict=True)
        ]

    @staticmethod
    def _starts(at_us: int, count: int) -> list[int]:
        return [at_us + 5_000 + number * us(1.2) for number in range(count)]

    def _record(  # noqa: PLR0917 - what the call already has
        self,
        process: Process,
        at_us: int,
        operation: Operation,
        key: Key,
        standing: Standing,
        attempt: VaultAttempt,
        status: int,
        *,
        spared: bool,
    ) -> None:
        kek = key.kek(standing.kek_version)
        request_id = attempt.request_id or ""
        act = Act(
            at_us=at_us,
            principal=process.service,
            vault=kek.vault,
            operation=_VAULT_OPERATION[operation],
            name=kek.name,
            version=kek.version or "",
            status=status,
            address=address_of(process.service),
            correlation=attempt.call_id if kek.vault in CLIENTS else request_id,
            description=DISABLED if status == FORBIDDEN else "",
            spared=spared,
        )
        self._vault_log(act)
        self.made.append(Made(at_us, process, key, standing.kek_version, attempt.call_id, request_id))


def address_of(service: str) -> str:
    """Where a service calls from."""
    return f"20.70.{sum(service.encode()) % 250}.4"
