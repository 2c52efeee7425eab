"""Every act in any order, through the public face, against a model that knows docs/formats.md and nothing else."""

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, InvalidTransition
from cryptocore.events import Operation, Outcome
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life.approvals import Action
from cryptocore.lines.vocabulary import LIFE_CYCLE
from cryptocore.signing import Signer
from cryptocore.store.tables import KEY_HISTORY
from cryptocore.testing import CoreUnderTest
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.approving import APPROVERS, both
from tests.cryptocore.callers_rows import CallersRows

OWNER = Owner.tenant("t-88", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
SIGNER = Signer.generate()
KEKS = {str(number): generate_private_key(65537, 2048) for number in (1, 2)}
Name = tuple[str, int]

ARROWS = {
    "activate": {KeyState.PRE_ACTIVATION: KeyState.ACTIVE},
    "suspend": {KeyState.ACTIVE: KeyState.SUSPENDED},
    "resume": {KeyState.SUSPENDED: KeyState.ACTIVE},
    "revoke": dict.fromkeys(
        (KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED, KeyState.ARCHIVED), KeyState.REVOKED
    ),
    "archive": {KeyState.ACTIVE: KeyState.ARCHIVED, KeyState.SUSPENDED: KeyState.ARCHIVED},
}
LIVE = {KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED}
DESTROYABLE = {KeyState.PRE_ACTIVATION, KeyState.REVOKED, KeyState.ARCHIVED}


@dataclass
class Known:
    """What the model knows of a key version."""

    state: KeyState
    superseded: bool = False
    revision: int = 1
    kek: str = "1"
    rows_left: bool = False
    next: Name | None = None
    ciphertext: bytes = b""

    @property
    def encrypts(self) -> bool:
        return self.state is KeyState.ACTIVE and not self.superseded


class Keks(LocalKeyWrapper):
    """Two KEK versions, drawn once; which one is new can be turned."""

    newest = "1"

    async def current_version(self) -> str:
        return self.newest


class EveryAct(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Name, Known] = {}
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()

    @initialize()
    def open(self) -> None:
        self.wrapper = Keks(testing.ALIAS, keys=KEKS)
        self.core: CoreUnderTest = testing.make_core(
            Path(self.folder.name), signer=SIGNER, approvers=APPROVERS, wrapper=self.wrapper
        )
        self.run(self.core.open())

    def teardown(self) -> None:
        if hasattr(self, "core"):
            self.each_revision_left_one_event()
            self.run(self.core.close())
            self.core.store.close()
        self.runner.close()
        self.folder.cleanup()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    # Acts

    @rule()
    def create(self) -> None:
        lives = any(not known.superseded and known.state in LIVE for known in self.known.values())
        made = self.tried(self.core.create_key(OWNER, **ADMIN), Operation.CREATE, allowed=not lives)
        if made is not None:
            self.known[made.key_id, 1] = Known(KeyState.PRE_ACTIVATION, kek=self.wrapper.newest)
        self.agrees()

    @precondition(lambda self: self.known)
    @rule(act=sampled_from(sorted(ARROWS)), pick=integers(0, 99), whole=booleans())
    def follow(self, act: str, pick: int, whole: bool) -> None:
        key_id, number = self.picked(pick)
        named = {
            name: known
            for name, known in self.known.items()
            if name[0] == key_id and (whole or act == "activate" or name[1] == number)
        }
        moving = {name: known for name, known in named.items() if known.state in ARROWS[act]}
        begin = [name for name, known in moving.items() if act in ("activate", "resume") and not known.superseded]
        others = [name for name, known in self.known.items() if known.encrypts]
        allowed = bool(moving) and len(begin) + len(others if begin else []) <= 1
        options: dict[str, Any] = dict(ADMIN)
        if act != "activate":
            options |= {"reason": KeyReason.OPERATOR, "version": None if whole else number}
        self.tried(getattr(self.core, act)(key_id, **options), Operation(act), allowed=allowed)
        if allowed:
            for known in moving.values():
                known.state = ARROWS[act][known.state]
                known.revision += 1
        self.agrees()

    @rule(reason=sampled_from([KeyReason.SCHEDULED, KeyReason.COMPROMISE_SUSPECTED]))
    def rotate(self, reason: KeyReason) -> None:
        current = [name for name, known in self.known.items() if known.encrypts]
        made = self.tried(self.core.rotate(OWNER, reason=reason, **ADMIN), Operation.ROTATE, allowed=bool(current))
        if made is not None:
            old = self.known[current[0]]
            old.superseded, old.rows_left, old.next = True, True, (made.key_id, made.version)
            old.revision += 1
            self.known[made.key_id, made.version] = Known(KeyState.ACTIVE, revision=2, kek=self.wrapper.newest)
        self.agrees()

    @rule(turn=booleans())
    def rewrap(self, turn: bool) -> None:
        self.wrapper.newest = {"1": "2", "2": "1"}[self.wrapper.newest] if turn else self.wrapper.newest
        stale = [
            known
            for known in self.known.values()
            if known.kek != self.wrapper.newest and known.state is not KeyState.DESTROYED
        ]
        assert self.run(self.core.rewrap(**ADMIN)).done == len(stale)
        for known in stale:
            known.kek = self.wrapper.newest
            known.revision += 1
        self.agrees()

    @precondition(lambda self: any(known.rows_left for known in self.known.values()))
    @rule()
    def report(self) -> None:
        for rotation in self.run(self.core.rotations()):
            self.run(self.core.report_reencrypted(rotation.id, 0, **ADMIN))
        for known in self.known.values():
            known.rows_left = False

    @precondition(lambda self: self.known)
    @rule(pick=integers(0, 99), restored=booleans())
    def destroy(self, pick: int, restored: bool) -> None:
        key_id, number = self.picked(pick)
        known = self.known[key_id, number]
        approvals = self.run(both(self.core, Action.DESTROY, key_id, number))
        somewhere = known.next is not None and self.known[known.next].state in LIVE
        allowed = known.state in DESTROYABLE and not (known.rows_left and somewhere)
        asked = self.tried(self.core.request_destruction(approvals, **ADMIN), Operation.DESTROY, allowed=allowed)
        if asked is not None and restored:
            self.run(self.core.restore(asked.id, **ADMIN))
        elif asked is not None:
            self.core.clock.advance(7 * 86_400)
            self.run(self.core.destroy(asked.id, **ADMIN))
            known.state = KeyState.DESTROYED
            known.revision += 2
        self.agrees()

    # Uses

    @rule()
    def encrypt(self) -> None:
        current = [known for known in self.known.values() if known.encrypts]
        ciphertext = self.tried(
            self.core.encrypt(b"token", owner=OWNER, record="tokens/0", **ADMIN),
            Operation.ENCRYPT,
            allowed=bool(current),
        )
        if ciphertext is not None:
            current[0].ciphertext = ciphertext

    @precondition(lambda self: any(known.ciphertext for known in self.known.values()))
    @rule(pick=integers(0, 99))
    def decrypt(self, pick: int) -> None:
        known = [known for known in self.known.values() if known.ciphertext]
        one = known[pick % len(known)]
        work = self.core.decrypt(one.ciphertext, owner=OWNER, record="tokens/0", **ADMIN)
        self.tried(work, Operation.DECRYPT, allowed=one.state is KeyState.ACTIVE)

    @precondition(lambda self: any(known.ciphertext for known in self.known.values()))
    @rule(pick=integers(0, 99))
    def reencrypt(self, pick: int) -> None:
        known = [known for known in self.known.values() if known.ciphertext]
        one = known[pick % len(known)]
        rows = CallersRows(OWNER, {"0": one.ciphertext})
        target = any(other.encrypts for other in self.known.values())
        done = self.run(self.core.reencrypt("rows", rows, **ADMIN))
        if one.state is KeyState.ACTIVE and target:
            assert (done.progress.done, done.progress.skipped) == ((0, 1) if one.encrypts else (1, 0))
        else:
            assert done.failed == ("0",)

    # What holds

    def tried(self, work: Any, operation: Operation, *, allowed: bool) -> Any:
        """Do it; what is not allowed is refused, and leaves one denied event."""
        self.core.clock.advance(0.001)
        if allowed:
            return self.run(work)
        before = len(self.denied(operation))
        try:
            self.run(work)
        except (InvalidTransition, AccessDenied):
            told = len(self.denied(operation)) - before
            assert told == 1, f"{operation} left {told} events"
            return None
        raise AssertionError(f"{operation} was not refused")

    def denied(self, operation: Operation) -> list[Any]:
        return [event for event in self.core.events.only(operation) if event.outcome is Outcome.DENIED]

    def picked(self, pick: int) -> Name:
        return sorted(self.known)[pick % len(self.known)]

    def agrees(self) -> None:
        """The store says what the model says; one version encrypts at most; every revision has its history."""
        found = {
            (info.key_id, info.version): (info.state, info.revision, info.kek_version)
            for key_id in {name[0] for name in self.known}
            for info in self.run(self.core.versions(key_id))
        }
        assert found == {name: (known.state, known.revision, known.kek) for name, known in self.known.items()}
        assert sum(known.encrypts for known in self.known.values()) <= 1
        rows = self.core.store.transaction(lambda connection: connection.execute(KEY_HISTORY.select()).all())
        revisions = Counter((row.key_id.hex(), row.version) for row in rows)
        assert revisions == {name: known.revision for name, known in self.known.items()}

    def each_revision_left_one_event(self) -> None:
        self.run(self.core.relay())
        told = Counter(
            (event.key.id, event.key.version, event.key.revision)
            for event in self.core.events
            if event.operation in LIFE_CYCLE and event.outcome is Outcome.SUCCEEDED
            if event.key is not None and event.key.revision is not None
        )
        assert told == {
            (*name, revision): 1 for name, known in self.known.items() for revision in range(1, known.revision + 1)
        }


EveryAct.TestCase.settings = settings(
    max_examples=int(os.environ.get("STATE_EXAMPLES", "30")),
    stateful_step_count=20,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],  # tracing costs more than it tells here
)
test_every_act_in_any_order = EveryAct.TestCase
