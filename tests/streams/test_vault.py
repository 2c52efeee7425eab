"""The vault agent: what one record leaves behind, once, whatever order and number its copies come in."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from alerts.model import FindingMessage
from alerts.thresholds import HOUR_MS, Limits
from streams import correlate
from streams.index.port import DocKind
from streams.messages import CORRELATE, FINDINGS, REJECTED, VAULT_ACCESS, Effects, Message
from streams.rejected import decode as decode_rejected
from streams.state import Kind, State
from streams.vault import METER, KekState, VaultMeter, VaultStep, taken
from streams.vaultlogs.files import FileRecord, read
from streams.vaultlogs.messages import file_key, wrap
from tests.streams.vaultlogs.records import RESOURCE, VERSION, Record, as_azkv, as_diagnostics, record

T0 = 1_794_796_867_000
LIMITS = Limits()
SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "akv"
_finding = msgspec.json.Decoder(FindingMessage).decode


def message(original: Record, *, offset: int = 0, append_ms: int = T0, resource_id: str | None = None) -> Message:
    value = wrap(original, feed="test", resource_id=resource_id, fetched_us=append_ms * 1000)
    return Message(VAULT_ACCESS, 0, offset, append_ms, file_key(original), value)


class Run:
    """A step, its state and what it asked for."""

    def __init__(self) -> None:
        self.step = VaultStep(limits=LIMITS)
        self.state = State()
        self.effects = Effects()
        self.step.restore(self.state)

    def take(self, *messages: Message) -> "Run":
        for each in messages:
            self.step.apply(each, each.append_ms, self.state, self.effects)
        return self

    def restart(self) -> None:
        """Cut, lose the process, and read the state back."""
        self.state.cut()
        restored = State()
        for key, value in self.state.dump().items():
            restored.load(key, value)
        self.state, self.step = restored, VaultStep(limits=LIMITS)
        self.step.restore(restored)

    def sent(self, topic: str) -> list[bytes]:
        return [out.value for out in self.effects.out if out.topic == topic]

    def findings(self) -> Counter[str]:
        return Counter(_finding(value).finding.rule_id for value in self.sent(FINDINGS))

    def documents(self, kind: DocKind) -> list[str]:
        return [document.id for document in self.effects.documents if document.kind is kind]

    @property
    def meter(self) -> VaultMeter:
        return self.state.get(Kind.METER, METER, VaultMeter) or VaultMeter()


def test_an_unwrap_becomes_a_document_and_a_use_keyed_by_vault_and_key() -> None:
    run = Run().take(message(record("KeyUnwrap")))

    [out] = [out for out in run.effects.out if out.topic == CORRELATE]
    use = correlate.decode(out.value)
    assert isinstance(use, correlate.Use)
    assert out.key == b"kt-prod/tokens-kek"
    assert (use.vault, use.name, use.version) == ("kt-prod", "tokens-kek", VERSION)
    assert (use.operation, use.outcome, use.correlation_id) == (
        "KeyUnwrap",
        "succeeded",
        "49c05377-7187-4f18-8374-0e101bba261d",
    )
    assert (use.principal_kind, use.address, use.append_ms) == ("workload", "20.50.1.7", T0)
    assert run.documents(DocKind.VAULT_ACCESS) == [use.access_id]


def test_the_document_holds_the_record_as_it_was_received() -> None:
    original = record("KeyUnwrap", surprise={"nested": [1, None]})

    run = Run().take(message(original))

    body = json.loads(run.effects.documents[0].body)
    assert body["original"] == original
    assert (body["class"], body["outcome"], body["access_id"]) == ("use", "succeeded", run.effects.documents[0].id)


def test_copies_in_any_shape_are_counted_and_leave_nothing_behind() -> None:
    original = record("KeyUnwrap")

    run = Run().take(message(original), message(original, offset=1))
    run.restart()
    run.take(message(as_diagnostics(original), offset=2), message(as_azkv(original), offset=3, append_ms=T0 + HOUR_MS))

    assert len(run.sent(CORRELATE)) == len(run.documents(DocKind.VAULT_ACCESS)) == 1
    assert (run.meter.records, run.meter.duplicates, run.meter.rejected) == (1, 3, 0)


def test_an_access_is_remembered_for_twenty_six_hours_of_append_time() -> None:
    run = Run().take(message(record()))
    run.restart()

    run.step.tick(T0 + LIMITS.access_seen_ms - 1, run.state, run.effects)
    assert run.state.count(Kind.SEEN) == 1
    run.step.tick(T0 + LIMITS.access_seen_ms, run.state, run.effects)

    assert run.state.count(Kind.SEEN) == 0


def test_only_uses_of_keys_go_to_the_join() -> None:
    others = [
        record("KeyGet"),
        record("KeyBackup"),
        record("Authentication", 401, id=None) | {"identity": {}},
        record("KeyNearExpiryEventGridNotification"),
        record("KeyTeleport"),
        record("SecretGet", id="https://kt-prod.vault.azure.net/secrets/a", requestUri=None),
    ]

    run = Run().take(*[message(each, offset=at) for at, each in enumerate(others)])

    assert run.sent(CORRELATE) == []
    assert len(run.documents(DocKind.VAULT_ACCESS)) == len(others)


def test_a_denied_unwrap_is_a_use_too() -> None:
    [value] = Run().take(message(record("KeyUnwrap", 403))).sent(CORRELATE)

    use = correlate.decode(value)

    assert isinstance(use, correlate.Use)
    assert use.outcome == "denied"


def test_administrative_acts_are_findings_and_challenges_and_gets_are_not() -> None:
    quiet = Run().take(message(record("KeyGet")), message(record("Authentication", 401, id=None) | {"identity": {}}))
    loud = Run().take(message(record("KeyPurge", 403)))

    assert quiet.findings() == Counter()
    assert loud.findings() == Counter({"kek_administration": 1})


def test_a_thousand_unknown_operations_are_one_finding() -> None:
    run = Run()
    for at in range(1000):
        run.take(message(record(f"KeyTeleport{at % 100}", time_marker=at) | {"correlationId": str(at)}, offset=at))

    assert run.findings() == Counter({"unknown_operation": 1})
    assert len(run.meter.unknown) == 64
    assert len(run.documents(DocKind.VAULT_ACCESS)) == 1000


def test_what_must_not_be_trusted_is_quarantined_with_its_reason_and_said() -> None:
    look_alike = record(id="https://kt-prod.vault.azure.net.evil.example/keys/tokens-kek")
    mismatch = record(id="https://other.vault.azure.net/keys/tokens-kek")
    nameless = record("KeyUnwrap", id=None, requestUri="https://kt-prod.vault.azure.net/")

    run = Run().take(*[message(each, offset=at) for at, each in enumerate([look_alike, mismatch, nameless])])

    problems = [decode_rejected(value).problem.partition(":")[0] for value in run.sent(REJECTED)]
    assert problems == ["foreign_host", "vault_mismatch", "object_missing"]
    assert run.documents(DocKind.VAULT_ACCESS) == []
    assert len(run.documents(DocKind.REJECTED)) == run.meter.rejected == 3
    assert run.findings() == Counter({"rejected_rate": 1})
    assert run.sent(CORRELATE) == []


def test_a_feed_that_names_another_vault_than_the_record_is_not_believed() -> None:
    run = Run().take(message(record(), resource_id=RESOURCE.replace("KT-PROD", "OTHER")))

    assert run.meter.rejected == 1


def test_messages_that_no_feed_of_ours_writes_are_quarantined() -> None:
    values = [b"", b"{}", b"[1]", b'{"v":2,"feed":"f","fetched_at":"","original":{}}', b"\xff", b"[" * 50_000]
    values.append(b'{"v":1,"feed":"f","fetched_at":"","original":[1]}')

    run = Run().take(*[Message(VAULT_ACCESS, 0, at, T0, b"k", value) for at, value in enumerate(values)])

    assert run.meter.rejected == len(values) == len(run.sent(REJECTED))


def test_one_bad_record_among_thousands_is_kept_and_not_alarmed_about() -> None:
    good = [message(record() | {"correlationId": str(at)}, offset=at) for at in range(1500)]

    run = Run().take(*good, message({"nothing": "known"}, offset=1500))

    assert run.meter.rejected == len(run.sent(REJECTED)) == 1
    assert run.findings() == Counter()


def updates() -> Iterable[Record]:
    for at, enabled in enumerate([True, False, True, False]):
        attributes = {"attributes": {"enabled": enabled}}
        yield record("KeyUpdate", keyProperties=attributes) | {"time": f"2026-11-16T02:41:07.000000{at}Z"}
    yield record("KeyUpdate", 403, keyProperties={"attributes": {"enabled": True}}) | {
        "time": "2026-11-16T02:41:07.0000009Z",
    }
    yield record("KeyUpdate", keyProperties={"operations": ["wrapKey"]}) | {"time": "2026-11-16T02:41:07.0000005Z"}


def test_the_newest_successful_change_of_a_key_holds_in_any_order_to_the_seventh_digit() -> None:
    messages = [message(each, offset=at) for at, each in enumerate(updates())]
    states = []
    for seed in range(10):
        random.Random(seed).shuffle(messages)
        run = Run().take(*messages)
        states.append(run.state.get(Kind.KEK, b"kt-prod/tokens-kek", KekState))

    assert (
        states
        == [
            KekState(
                changed_at="2026-11-16T02:41:07.0000005Z",
                operation="KeyUpdate",
                principal_id="aaaa0000-0000-4000-8000-00000000000a",
                enabled=False,
                enabled_at="2026-11-16T02:41:07.0000003Z",
                enabled_version=VERSION,
            ),
        ]
        * 10
    )


def at(minute: int, original: Record) -> Record:
    return original | {"time": f"2026-11-16T02:{minute:02d}:00.0000000Z"}


def toggled(*, enabled: bool) -> Record:
    return record("KeyUpdate", keyProperties={"attributes": {"enabled": enabled}})


def test_a_wrap_that_a_disabled_key_still_does_is_told_also_after_a_restart() -> None:
    run = Run().take(message(at(1, toggled(enabled=False))))
    run.restart()
    run.take(message(at(2, record("KeyWrap")), offset=1), message(at(3, record("KeyUnwrap", 403)), offset=2))

    [found] = [one for one in map(_finding, run.sent(FINDINGS)) if one.finding.rule_id == "disabled_kek_wrap"]
    assert (found.finding.key, found.count) == ("kt-prod/tokens-kek", 1)
    assert "disabled since 2026-11-16T02:01" in found.finding.summary


def test_a_wrap_of_before_or_after_or_under_a_newer_version_is_not_told() -> None:
    newer = record("KeyWrap", requestUri=f"https://kt-prod.vault.azure.net/keys/tokens-kek/{'f' * 32}/wrapkey")
    run = Run().take(
        message(at(5, toggled(enabled=False))),
        message(at(4, record("KeyWrap")), offset=1),
        message(at(6, newer), offset=2),
        message(at(9, toggled(enabled=True)), offset=3),
        message(at(10, record("KeyWrap")), offset=4),
    )

    assert run.findings()["disabled_kek_wrap"] == 0


def test_reading_again_gives_the_same_documents() -> None:
    messages = [message(record()), message(record(httpStatusCode=True), offset=1)]
    run = Run().take(*messages)
    again = Effects()

    for each in messages:
        VaultStep(limits=LIMITS).reindex(each, again)

    assert again.documents == run.effects.documents
    assert again.out == []


def test_taking_a_message_needs_no_state() -> None:
    original, access = taken(message(record()))

    assert json.loads(bytes(original)) == record()
    assert access.object_name == "tokens-kek"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the public Key Vault records are not on this machine")
def test_the_public_records_are_twenty_two_accesses_and_one_copy_and_two_alerts() -> None:
    found = [item.original for item in read([SAMPLES]) if isinstance(item, FileRecord)]

    run = Run().take(*[message(each, offset=at) for at, each in enumerate(found)])

    assert (run.meter.records, run.meter.duplicates, run.meter.rejected) == (22, 1, 0)
    assert len(run.documents(DocKind.VAULT_ACCESS)) == 22
    assert run.sent(CORRELATE) == []  # not one of them is the use of a key
    run.step.tick(T0 + 60_000, run.state, run.effects)
    counts = {reported.finding.key: reported.count for reported in map(_finding, run.sent(FINDINGS))}
    # backup and delete of one key by one person are one alert with two hits; the denied purge is another
    assert counts == {"testpermissionvault/egzghfgrrg": 2, "testpermissionvault/myfirstkey": 1}
