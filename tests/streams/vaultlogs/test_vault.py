"""The vault agent: what one record leaves behind, once, whatever order and number its copies come in."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.model import FindingMessage, Severity
from alerts.thresholds import HOUR_MS, Limits
from streams.conduct import observations
from streams.index.port import DocKind
from streams.joining import correlate
from streams.messages import CORRELATE, FINDINGS, REJECTED, VAULT_ACCESS, WHO, Effects, Message
from streams.rejected import decode as decode_rejected
from streams.state import Kind, State
from streams.vaultlogs.files import FileRecord, read
from streams.vaultlogs.messages import file_key, wrap
from streams.vaultlogs.vault import METER, VaultMeter, VaultStep, taken
from tests.streams.vaultlogs.records import RESOURCE, VERSION, WORKLOAD, Record, as_azkv, as_diagnostics, record

T0 = 1_794_796_867_000
LIMITS = Limits()
SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "akv"
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


def test_only_what_is_done_with_a_key_or_to_it_goes_to_the_join() -> None:
    others = [
        record("KeyGet"),
        record("VaultPatch", id=None, requestUri=None),
        record("Authentication", 401, id=None) | {"identity": {}},
        record("KeyNearExpiryEventGridNotification"),
        record("KeyTeleport"),
        record("SecretGet", id="https://kt-prod.vault.azure.net/secrets/a", requestUri=None),
    ]

    run = Run().take(*[message(each, offset=at) for at, each in enumerate(others)])

    assert run.sent(CORRELATE) == []
    assert len(run.documents(DocKind.VAULT_ACCESS)) == len(others)


def test_news_of_a_key_goes_to_the_join_with_its_version_and_its_expiry() -> None:
    data = {"VaultName": "kt-prod", "ObjectType": "Key", "ObjectName ": "tokens-kek", "Version": f" {VERSION}"}
    original = {
        "id": "1",
        "topic": RESOURCE,
        "eventType": "Microsoft.KeyVault.KeyNearExpiry",
        "eventTime": "2026-11-16T02:41:07.1234567Z",
        "data": data | {"EXP": "1794796867"},
    }

    run = Run().take(
        message(original), message(original | {"id": "2", "data": data | {"ObjectType": "Secret"}}, offset=1)
    )

    [use] = map(correlate.decode, run.sent(CORRELATE))
    assert isinstance(use, correlate.Use)
    assert use.act is not None
    assert use.act.key_change is not None
    assert (use.version, use.act.key_change.expires_at) == (VERSION, "2026-11-16T02:41:07.000000Z")
    assert run.findings() == Counter()


def test_a_denied_unwrap_is_a_use_too() -> None:
    [value] = Run().take(message(record("KeyUnwrap", 403))).sent(CORRELATE)

    use = correlate.decode(value)

    assert isinstance(use, correlate.Use)
    assert use.outcome == "denied"


def test_an_act_on_a_key_goes_to_the_join_with_its_record_and_is_not_told_here() -> None:
    run = Run().take(message(record("KeyPurge", 403)))

    [use] = map(correlate.decode, run.sent(CORRELATE))
    assert isinstance(use, correlate.Use)
    assert use.act is not None
    assert (use.operation, use.outcome, use.act.access_id) == ("KeyPurge", "denied", use.access_id)
    assert run.findings() == Counter()
    [seen] = map(observations.decode, run.sent(WHO))
    assert isinstance(seen, observations.Seen)
    assert seen.told is Severity.HIGH, "the baselines leave it to the join"


def test_acts_on_a_vault_are_findings_and_challenges_and_gets_are_not() -> None:
    quiet = Run().take(message(record("KeyGet")), message(record("Authentication", 401, id=None) | {"identity": {}}))
    loud = Run().take(message(on_vault("VaultDelete", 403)), message(restored(), offset=1))

    assert quiet.findings() == Counter()
    loud.step.tick(T0 + HOUR_MS, loud.state, loud.effects)
    assert [found.count for found in map(_finding, loud.sent(FINDINGS))] == [1, 2]
    assert loud.sent(CORRELATE) == [], "which key a restore brings in its record does not say"


def restored() -> Record:
    return record("KeyRestore", id=None, requestUri="https://kt-prod.vault.azure.net/keys/restore?api-version=7.6")


def on_vault(operation: str, status: int = 200, *, at_s: int = 7) -> Record:
    """What the vault's own log says of an act on the vault."""
    own = record(operation, status, id=None, requestUri="https://management.azure.com/x")
    return own | {"time": f"2026-11-16T02:41:{at_s:02d}.1234567Z", "correlationId": f"{operation}{at_s}"}


def in_activity_log(operation: str, *, at_s: int = 7, oid: str = WORKLOAD["oid"], below: str = "") -> Record:
    """What the Activity Log says of one."""
    return {
        "time": f"2026-11-16T02:41:{at_s:02d}.2000000Z",
        "category": "Administrative",
        "operationName": operation.upper(),
        "resultType": "Success",
        "correlationId": f"activity-{at_s}",
        "identity": {"claims": {"http://schemas.microsoft.com/identity/claims/objectidentifier": oid}},
        "properties": {"eventDataId": f"{operation}-{oid}-{at_s}"},
        "resourceId": RESOURCE + below,
    }


OTHER = "cccc0000-0000-4000-8000-00000000000c"
POLICIES = "Microsoft.KeyVault/vaults/accessPolicies/write"


def test_a_write_that_only_the_activity_log_shows_is_told() -> None:
    run = Run().take(message(in_activity_log(POLICIES)))

    [found] = map(_finding, run.sent(FINDINGS))
    assert (found.finding.rule_id, found.finding.key, found.count) == ("kek_administration", "kt-prod", 1)
    assert "access policies" in found.finding.summary


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_act_that_both_logs_show_is_one_hit_of_one_alert(order: tuple[int, int]) -> None:
    both = [message(on_vault("VaultPatch")), message(in_activity_log(POLICIES), offset=1)]

    run = Run().take(*[both[number] for number in order])
    run.step.tick(T0 + 10 * HOUR_MS, run.state, run.effects)

    assert [(found.finding.rule_id, found.count) for found in map(_finding, run.sent(FINDINGS))] == [
        ("kek_administration", 1)
    ]


acts_of_both_logs = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.sampled_from(["a", "b"])), max_size=12)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), acts=acts_of_both_logs)
def test_how_many_acts_two_logs_tell_of_does_not_depend_on_their_order(
    data: st.DataObject, acts: list[tuple[bool, int, str]]
) -> None:
    records = [
        message(in_activity_log(POLICIES, at_s=at_s, oid=who))
        if activity
        else message(on_vault("VaultPatch", at_s=at_s) | {"identity": {"claim": {"oid": who}}, "correlationId": who})
        for activity, at_s, who in dict.fromkeys(acts)
    ]

    counts = []
    for order in (records, data.draw(st.permutations(records))):
        run = Run().take(*order)
        run.step.tick(T0 + HOUR_MS // 2, run.state, run.effects)
        last = {found.fingerprint: found.count for found in map(_finding, run.sent(FINDINGS))}
        counts.append(last)

    assert counts[0] == counts[1]
    assert sum(counts[0].values()) <= len(records)


def test_a_role_on_a_vault_is_told_with_its_name_and_only_where_it_was_given() -> None:
    given = in_activity_log("Microsoft.Authorization/roleAssignments/write", below="/providers/x/roleAssignments/1")
    role = "/providers/Microsoft.Authorization/roleDefinitions/12338af0-0e69-4776-bea7-57ae8d297424"
    given["properties"]["requestbody"] = json.dumps(
        {"Id": "1", "Properties": {"RoleDefinitionId": role, "PrincipalId": OTHER}}
    )
    started = given | {"resultType": "Start", "properties": {"eventDataId": "the-start"}}

    run = Run().take(message(started), message(given, offset=1))

    [found] = map(_finding, run.sent(FINDINGS))
    assert found.finding.summary == (
        f"role assignment on kt-prod succeeded: gives {OTHER} a role on the vault: Key Vault Crypto User"
    )
    assert (found.finding.key, found.finding.severity) == ("kt-prod", Severity.HIGH)


def test_a_storage_account_is_a_service_of_azure_and_named() -> None:
    account = "/subscriptions/s/resourcegroups/g/providers/Microsoft.Storage/storageAccounts/Acme"
    claims = {"claim": {**WORKLOAD, "xms_mirid": account}}

    [value] = Run().take(message(record("KeyUnwrap") | {"identity": claims})).sent(CORRELATE)

    use = correlate.decode(value)
    assert isinstance(use, correlate.Use)
    assert (use.principal_kind, use.principal_label) == ("azure_service", "microsoft.storage/storageaccounts/acme")


def test_an_application_of_microsofts_own_is_named_and_its_backup_of_a_kek_told_all_the_same() -> None:
    claims = {"claim": {**WORKLOAD, "appid": "262044B1-e2ce-469f-a196-69ab7ada62d3"}}

    [value] = Run().take(message(record("KeyBackup") | {"identity": claims})).sent(CORRELATE)

    use = correlate.decode(value)
    assert isinstance(use, correlate.Use)
    assert (use.principal_kind, use.principal_label) == ("azure_service", "azure backup management service")
    assert use.act is not None


def test_a_person_with_such_an_application_is_a_person() -> None:
    claims = {"claim": {**WORKLOAD, "appid": "262044b1-e2ce-469f-a196-69ab7ada62d3", "scp": "user_impersonation"}}

    [value] = Run().take(message(record("KeyUnwrap") | {"identity": claims})).sent(CORRELATE)

    use = correlate.decode(value)
    assert isinstance(use, correlate.Use)
    assert use.principal_kind == "user"


@pytest.mark.parametrize(
    "resource",
    [
        "Microsoft.Compute/virtualMachines/x",
        "Microsoft.ManagedIdentity/userAssignedIdentities/x",
        "Microsoft.Web/sites/x",
        "Microsoft.Storage/storageAccounts/x/y/z",
    ],
)
def test_an_identity_whose_token_code_of_ours_can_take_is_a_workload(resource: str) -> None:
    claims = {"claim": {**WORKLOAD, "xms_mirid": f"/subscriptions/s/resourcegroups/g/providers/{resource}"}}

    [value] = Run().take(message(record("KeyUnwrap") | {"identity": claims})).sent(CORRELATE)

    use = correlate.decode(value)
    assert isinstance(use, correlate.Use)
    assert use.principal_kind == "workload"


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
def test_the_public_records_are_twenty_two_accesses_and_one_copy_and_three_acts() -> None:
    found = [item.original for item in read([SAMPLES]) if isinstance(item, FileRecord)]

    run = Run().take(*[message(each, offset=at) for at, each in enumerate(found)])

    assert (run.meter.records, run.meter.duplicates, run.meter.rejected) == (22, 1, 0)
    assert len(run.documents(DocKind.VAULT_ACCESS)) == 22
    acts = [use for use in map(correlate.decode, run.sent(CORRELATE)) if isinstance(use, correlate.Use)]
    assert sorted((use.operation, use.name, use.outcome) for use in acts) == [
        ("KeyBackup", "egzghfgrrg", "succeeded"),
        ("KeyDelete", "egzghfgrrg", "succeeded"),
        ("KeyPurge", "myfirstkey", "denied"),
    ]  # and not one of them is the use of a key
