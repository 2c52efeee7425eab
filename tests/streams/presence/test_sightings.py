"""Silent and undeclared vaults, judged in one place for all partitions of vault-access."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from alerts.model import FindingMessage, FindingResolved
from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS, Limits
from cryptocore.registry import Registry
from streams.feeds.vaults import VaultDeclarations
from streams.messages import FINDINGS, SOURCES, Effects, Message
from streams.presence.sightings import ABSENT_MS, MAX_VAULTS, TELL_MS, VaultSeen
from streams.presence.sources import SourcesStep, decode, encode
from streams.state import Kind, State
from streams.vaultlogs.vault import VaultStep
from tests.streams.vaultlogs.records import RESOURCE, Record, record
from tests.streams.vaultlogs.test_vault import message

T0 = 1_794_796_867_000
DECLARED = VaultDeclarations.parse(
    f"""
[[vault]]
name = "kt-prod"
resource_id = "{RESOURCE}"
owner = "platform team"
"""
)
_told: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FindingMessage | FindingResolved)


class Sources:
    """The sources agent with a declaration, its state and what it said."""

    def __init__(self, declared: VaultDeclarations | None = DECLARED) -> None:
        self._declared = declared
        self.state = State()
        self.effects = Effects()
        self.now_ms = T0
        self.offset = 0
        self._make()

    def _make(self) -> None:
        registry = Registry(deployment=bytes(16), signers=())
        self.step = SourcesStep(registry=registry, limits=Limits(), declared=self._declared)
        self.step.restore(self.state)

    def restart(self) -> None:
        self.state.cut()
        restored = State()
        for key, value in self.state.dump().items():
            restored.load(key, value)
        self.state = restored
        self._make()

    def pass_until(self, until_ms: int, *, every_ms: int = MINUTE_MS) -> "Sources":
        while self.now_ms < until_ms:
            self.now_ms = min(self.now_ms + every_ms, until_ms)
            self.step.tick(self.now_ms, self.state, self.effects)
        return self

    def see(self, vault: str) -> "Sources":
        value = encode(VaultSeen(vault=vault, append_ms=self.now_ms))
        self.take(value)
        return self

    def take(self, value: bytes) -> None:
        self.offset += 1
        incoming = Message(SOURCES, 0, self.offset, self.now_ms, None, value)
        self.step.apply(incoming, self.now_ms, self.state, self.effects)

    def said(self) -> Counter[tuple[str, str]]:
        """How often each finding of each vault was told, resolutions apart."""
        told = [_told.decode(out.value) for out in self.effects.out if out.topic == FINDINGS]
        self.effects = Effects()
        return Counter(
            (one.finding.rule_id, one.finding.key) if isinstance(one, FindingMessage) else ("resolved", "")
            for one in told
        )


def sent(*records: Record, step: VaultStep | None = None, state: State | None = None, every_ms: int = 0) -> list[bytes]:
    """What a vault agent tells the sources agent of these records."""
    step, state, effects = step or VaultStep(limits=Limits(), declared=DECLARED), state or State(), Effects()
    for at, each in enumerate(records):
        taken = message(each, offset=at, append_ms=T0 + at * every_ms)
        step.apply(taken, taken.append_ms, state, effects)
    return [out.value for out in effects.out if out.topic == SOURCES]


def numbered(at: int) -> Record:
    return record() | {"correlationId": f"{at}"}


def test_a_vault_agent_names_a_vault_once_in_ten_minutes_and_only_where_vaults_are_declared() -> None:
    many = [numbered(at) for at in range(25)]

    named = sent(*many, every_ms=MINUTE_MS)

    assert [decode(one) for one in named] == [
        VaultSeen(vault="kt-prod", append_ms=T0 + at * TELL_MS) for at in range(3)
    ]
    assert sent(*many, step=VaultStep(limits=Limits())) == []


ACT = {
    "time": "2026-11-16T02:41:07.1234567Z",
    "resourceId": RESOURCE,
    "operationName": "MICROSOFT.KEYVAULT/VAULTS/WRITE",
    "category": "Administrative",
    "resultType": "Success",
}


def setting(act: str, *, progress: str = "Success", logs: list[dict[str, Any]] | None = None, at: int = 0) -> Record:
    """A record of the Activity Log about a diagnostic setting of the vault."""
    body = {} if logs is None else {"requestbody": {"properties": {"logs": logs}}}
    return ACT | {
        "resourceId": f"{RESOURCE}/providers/microsoft.insights/diagnosticSettings/all",
        "operationName": f"microsoft.insights/diagnosticSettings/{act}",
        "resultType": progress,
        "correlationId": f"{at}",
        "properties": body,
    }


def test_the_activity_log_is_told_apart_and_quarantined_records_do_not_make_a_vault_speak() -> None:
    told = [decode(one) for one in sent(ACT, record(httpStatusCode="strange"))]

    assert told == [VaultSeen(vault="kt-prod", append_ms=T0, activity="seen")]


@pytest.mark.parametrize(
    ("made", "activity"),
    [
        (setting("write", logs=[{"category": "AuditEvent", "enabled": True}]), "on"),
        (setting("write", logs=[{"category": "AuditEvent", "enabled": False}]), "off"),
        (setting("write"), "written"),
        (setting("delete"), "deleted"),
        (setting("delete", progress="Start"), "seen"),
        (setting("delete", progress="Failure"), "seen"),
    ],
)
def test_what_became_of_a_diagnostic_setting_is_told_at_once(made: Record, activity: str) -> None:
    told = [decode(one) for one in sent(ACT, made)]

    assert [one.activity for one in told if isinstance(one, VaultSeen)] == list(dict.fromkeys(["seen", activity]))


@pytest.mark.parametrize(
    ("spoke", "activities", "said"),
    [
        (False, [], "no record has ever come"),
        (False, ["seen"], "no record has ever come; the Activity Log tells of it: it lacks a diagnostic setting for"),
        (False, ["on"], "a diagnostic setting was written at 2026-11-16T02:41:07Z"),
        (False, ["on", "deleted", "seen"], "its diagnostic setting was deleted at 2026-11-16T02:41:07Z"),
        (True, ["off"], "its diagnostic setting was written at 2026-11-16T02:41:07Z"),
        (True, ["seen"], "the Activity Log goes on: the vault's diagnostic setting, or where it leads, was lost"),
    ],
)
def test_a_silent_vault_is_told_with_what_is_known_of_its_diagnostic_setting(
    spoke: bool, activities: list[Any], said: str
) -> None:
    run = Sources()
    if spoke:
        run.see("kt-prod")
    for activity in activities:
        run.take(encode(VaultSeen(vault="kt-prod", append_ms=run.now_ms, activity=activity)))
    run.restart()

    run.pass_until(T0 + DAY_MS + 2 * MINUTE_MS)

    [told] = [_told.decode(out.value) for out in run.effects.out if out.topic == FINDINGS]
    assert told.finding.rule_id == "vault_silent"
    assert said in told.finding.summary


def test_the_activity_log_of_a_vault_that_nobody_declared_is_no_finding_and_is_forgotten() -> None:
    run = Sources().see("kt-prod")
    run.take(encode(VaultSeen(vault="kv-theirs", append_ms=run.now_ms, activity="seen")))

    run.pass_until(T0 + 10 * MINUTE_MS)

    assert run.said() == Counter()
    run.pass_until(T0 + 32 * DAY_MS, every_ms=30 * MINUTE_MS)
    assert not any(b"kv-theirs" in ident for ident in run.state.idents(Kind.METER))


def test_a_vault_that_speaks_is_never_silent_and_one_that_stops_is_told_once_a_day() -> None:
    run = Sources()
    for hour in range(48):
        run.see("kt-prod").pass_until(T0 + (hour + 1) * HOUR_MS, every_ms=10 * MINUTE_MS)
    quiet = run.said()
    last_ms = T0 + 47 * HOUR_MS

    run.pass_until(last_ms + DAY_MS - MINUTE_MS)
    almost = run.said()
    run.pass_until(last_ms + DAY_MS)
    told = run.said()
    run.pass_until(last_ms + DAY_MS + 23 * HOUR_MS)
    same_day = run.said()
    run.pass_until(last_ms + 2 * DAY_MS + 2 * MINUTE_MS)

    assert quiet == almost == same_day == Counter()
    assert told == run.said() == Counter({("vault_silent", "kt-prod"): 1})


def test_a_vault_that_speaks_again_resolves_its_alert_and_may_fall_silent_anew() -> None:
    run = Sources().pass_until(T0 + DAY_MS + 2 * MINUTE_MS)
    before = run.said()
    run.restart()

    run.see("kt-prod")
    resolved = run.said()
    run.see("kt-prod")
    nothing = run.said()
    run.pass_until(run.now_ms + DAY_MS)

    assert before == run.said() == Counter({("vault_silent", "kt-prod"): 1})
    assert resolved == Counter({("resolved", ""): 1})
    assert nothing == Counter()


def test_while_the_monitor_was_away_nobody_is_called_silent() -> None:
    run = Sources().see("kt-prod").pass_until(T0 + HOUR_MS)
    run.restart()
    back_ms = T0 + 3 * DAY_MS

    run.pass_until(back_ms, every_ms=ABSENT_MS + 2 * DAY_MS)
    run.pass_until(back_ms + DAY_MS - MINUTE_MS)
    before = run.said()
    run.pass_until(back_ms + DAY_MS)

    assert before == Counter()
    assert run.said() == Counter({("vault_silent", "kt-prod"): 1})


def test_an_undeclared_vault_is_told_once_a_day_while_it_speaks() -> None:
    run = Sources().see("kt-prod").see("kv-shadow").pass_until(T0 + 5 * MINUTE_MS)
    first = run.said()
    run.restart()
    run.see("kt-prod").see("kv-shadow").pass_until(T0 + 20 * HOUR_MS)
    same_day = run.said()
    run.pass_until(T0 + DAY_MS + 3 * MINUTE_MS, every_ms=10 * MINUTE_MS)

    assert first == run.said() == Counter({("vault_undeclared", "kv-shadow"): 1})
    assert same_day == Counter()


def test_without_a_declaration_sightings_change_nothing() -> None:
    run = Sources(None).see("kv-shadow").pass_until(T0 + 2 * DAY_MS, every_ms=HOUR_MS)

    assert run.said() == Counter()
    assert run.state.dump() == {}


def test_invented_vaults_do_not_fill_the_memory() -> None:
    run = Sources()
    for number in range(MAX_VAULTS + 50):
        run.see(f"v{number}")

    assert run.state.count(Kind.METER) == MAX_VAULTS


def test_a_sighting_that_no_agent_of_ours_wrote_is_rejected() -> None:
    run = Sources()

    run.take(b'{"type":"vault","v":2,"vault":"x","append_ms":1}')

    assert [out.topic for out in run.effects.out] == ["rejected"]


def test_a_cut_diagnostic_setting_is_a_critical_finding_of_the_vault_agent_once_for_its_pair_of_records() -> None:
    step, state, effects = VaultStep(limits=Limits()), State(), Effects()
    setting = {
        "resourceId": f"{RESOURCE}/PROVIDERS/MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/AUDIT",
        "operationName": "MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/DELETE",
        "category": "Administrative",
        "caller": "mallory@example.com",
        "correlationId": "c1",
    }
    pair = [
        setting | {"time": "2026-11-16T02:41:07.1234567Z", "resultType": "Start", "resultSignature": "Started."},
        setting | {"time": "2026-11-16T02:41:08.1234567Z", "resultType": "Success", "resultSignature": "Succeeded.OK"},
    ]

    for at, each in enumerate(pair):
        taken = message(each, offset=at)
        step.apply(taken, taken.append_ms, state, effects)

    told = [_told.decode(out.value) for out in effects.out if out.topic == FINDINGS]
    assert [(one.finding.rule_id, one.finding.severity, one.finding.key, one.count) for one in told] == [
        ("vault_logging_cut", "critical", "kt-prod", 1)
    ]
    assert "mallory@example.com" in told[0].finding.summary
