"""One partition of the who agent under a clock of its own, and vault accesses to feed it."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Literal

import msgspec

from alerts.examples import vault_access
from alerts.model import AccessClass, AccessOutcome, Finding, FindingMessage, Principal, PrincipalKind, VaultAccess
from alerts.thresholds import DAY_MS, MINUTE_MS, Limits
from cryptocore.clock import rfc3339
from streams.conduct.baseline_commands import command
from streams.conduct.baselines import Profile
from streams.conduct.observations import tell
from streams.conduct.who import METER, WhoMeter, WhoStep
from streams.messages import FINDINGS, WHO, Effects, Message
from streams.state import Kind, State
from streams.vaultlogs.operations import classify

LIMITS = Limits()
T0 = 1_790_553_600_000
SERVICE = "aaaa0000-0000-4000-8000-00000000000a"
OTHER = "bbbb0000-0000-4000-8000-00000000000b"
_STATUS = {200: AccessOutcome.SUCCEEDED, 403: AccessOutcome.DENIED, 404: AccessOutcome.NOT_FOUND}
_finding = msgspec.json.Decoder(FindingMessage).decode


def access(
    at_ms: int,
    name: str = "smtp",
    operation: str = "SecretGet",
    *,
    who: str | None = SERVICE,
    status: int = 200,
    vault: str = "kv-prod",
    network: str | None = "20.50.1.0/24",
    address: str = "20.50.1.7",
    upn: str | None = None,
    salt: int = 0,
) -> VaultAccess:
    """One access; equal arguments give equal ids, `salt` tells two of them apart."""
    kind = PrincipalKind.USER if upn else PrincipalKind.WORKLOAD
    challenge = who is None
    facts = f"{at_ms}/{vault}/{name}/{operation}/{who}/{status}/{salt}"
    return vault_access(
        operation,
        None if challenge else _STATUS[status],
        access_class=AccessClass.CHALLENGE if challenge else classify(operation)[1],
        time=rfc3339(at_ms * 1000),
        time_us=at_ms * 1000,
        vault=vault,
        object_kind=None if challenge or not name else "key" if operation.startswith("Key") else "secret",
        object_name=None if challenge or not name else name,
        principal=Principal(who, PrincipalKind.UNKNOWN if challenge else kind, None, upn),
        network=network,
        address=address,
        denial="rbac" if status == 403 else None,
        access_id=sha256(facts.encode()).hexdigest(),
    )


def challenge(at_ms: int, address: str = "198.51.100.9", *, salt: int = 0) -> VaultAccess:
    """The vault tells an address to sign in."""
    return access(at_ms, operation="Authentication", who=None, address=address, network=None, salt=salt)


class Watch:
    """A step, its state, and all findings as the last message of each tells them."""

    def __init__(
        self, *, joined: bool = True, limits: Limits = LIMITS, administrators: frozenset[str] = frozenset()
    ) -> None:
        self.limits, self.joined, self.administrators = limits, joined, administrators
        self.state = State()
        self.step = self._step()
        self.step.restore(self.state)
        self.now_ms = T0
        self.told: dict[str, FindingMessage] = {}
        self.rejected = 0
        self._offset = 0

    def _step(self) -> WhoStep:
        return WhoStep(limits=self.limits, joined=self.joined, administrators=self.administrators)

    def feed(self, *accesses: VaultAccess, found: Iterable[Finding] = ()) -> "Watch":
        """Let accesses arrive one after the other, each when it happened or, if that is past, now."""
        for each in accesses:
            self.arrive(max(self.now_ms, each.time_us // 1000), each, found)
        return self

    def arrive(self, at_ms: int, each: VaultAccess, found: Iterable[Finding] = ()) -> None:
        """Let one access arrive at a moment that is not before the last one; ticks in between, each minute."""
        self.until(at_ms)
        effects = Effects()
        tell(each, at_ms, found, effects)
        self._spread(effects)

    def until(self, at_ms: int) -> "Watch":
        """Let time pass; minutes in which nothing can become due are skipped."""
        while self.now_ms < at_ms:
            idle = self.state.count(Kind.BIN) == 0 and self.state.count(Kind.ADDRESS) == 0
            self.now_ms = at_ms if idle else min(at_ms, (self.now_ms // MINUTE_MS + 1) * MINUTE_MS)
            effects = Effects()
            self.step.tick(self.now_ms, self.state, effects)
            self._spread(effects)
        return self

    def settle(self) -> "Watch":
        """Let everything be judged that can be."""
        return self.until(self.now_ms + 2 * 60 * MINUTE_MS)

    def say(self, act: Literal["accept", "reset"], who: str = SERVICE, *, vault: str = "", ident: str = "c-1") -> None:
        """Let a person decide."""
        key, value = command(act, who, vault=vault, person="user:on-call", ident=ident)
        self._apply(key, value)

    def restart(self) -> None:
        """Cut, lose the process, and read the state back."""
        self.state.cut()
        restored = State()
        for key, value in self.state.dump().items():
            restored.load(key, value)
        self.state, self.step = restored, self._step()
        self.step.restore(restored)

    def raw(self, value: bytes) -> None:
        """Let a message arrive as it is."""
        self._apply(b"", value)

    @property
    def findings(self) -> list[Finding]:
        return [message.finding for message in self.told.values()]

    def rules(self) -> list[str]:
        return sorted(finding.rule_id for finding in self.findings)

    def profile(self, who: str = SERVICE) -> Profile:
        found = self.state.get(Kind.PRINCIPAL, who.encode(), Profile)
        assert found is not None
        return found

    @property
    def meter(self) -> WhoMeter:
        return self.state.get(Kind.METER, METER, WhoMeter) or WhoMeter()

    def _apply(self, key: bytes | None, value: bytes) -> None:
        effects = Effects()
        message = Message(WHO, 0, self._offset, self.now_ms, key, value)
        self._offset += 1
        self.step.apply(message, self.now_ms, self.state, effects)
        self._spread(effects)

    def _spread(self, effects: Effects) -> None:
        for out in effects.out:
            if out.topic == WHO:
                self._apply(out.key, out.value)
            elif out.topic == FINDINGS:
                message = _finding(out.value)
                self.told[message.finding_id] = message
            else:
                self.rejected += 1


def past(days: int = 20, name: str = "smtp", *, every_ms: int = 4 * 60 * MINUTE_MS, **who: Any) -> list[VaultAccess]:
    """Two reads every four hours, for days from T0 on: a principal with a past."""
    steps = range(0, days * DAY_MS, every_ms)
    return [access(T0 + at_ms + second, name, **who) for at_ms in steps for second in (1_000, 2_000)]
