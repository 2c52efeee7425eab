"""What rules see and what they say: KeyUse, VaultAccess and KekUse in; Finding out.

Everything here is a value: no I/O, no clock. Times are integers with their unit in the name (`_us`, `_ms`: since the
epoch, UTC); people see RFC 3339. `streams` fills these from events and vault records, rules only read them.
"""

from enum import StrEnum
from typing import Any, Literal, Self

from msgspec import Struct, field

from cryptocore.events import Operation, Outcome


class Severity(StrEnum):
    """How soon a person must look."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 4 for critical."""
        return list(Severity).index(self)


class Scope(StrEnum):
    """Whose state a rule is given."""

    KEY = "key"
    KEK = "kek"
    PRINCIPAL = "principal"
    TENANT = "tenant"


class Rule(Struct, frozen=True, kw_only=True):
    """A detection's metadata. `policy` is a clause of the policy, `technique` a MITRE ATT&CK id."""

    id: str
    title: str
    scope: Scope
    severity: Severity
    policy: str
    technique: str | None = None
    known_gaps: str
    first_step: str

    @property
    def runbook(self) -> str:
        """Path of the runbook below the documentation root."""
        return f"docs/runbooks/{self.id}.md"


class Evidence(Struct, frozen=True):
    """One document that a finding stands on: `kind` and `id` as in the index."""

    kind: str
    id: str
    at_ms: int


class Finding(Struct, frozen=True, kw_only=True):
    """One hit. `tenant`, `key` and `principal` ("" = does not apply) with the rule make the fingerprint."""

    rule_id: str
    title: str
    severity: Severity
    summary: str
    effective_ms: int
    tenant: str = ""
    key: str = ""
    principal: str = ""
    who: str = ""
    sure: str = ""
    first_step: str = ""
    evidence: tuple[Evidence, ...] = ()
    facts: dict[str, str] = {}

    @classmethod
    def of(cls, rule: Rule, *, summary: str, effective_ms: int, severity: Severity | None = None, **parts: Any) -> Self:
        """Fill in what the rule's metadata says; `parts` are further fields by name."""
        return cls(
            rule_id=rule.id,
            title=rule.title,
            severity=severity or rule.severity,
            summary=summary,
            effective_ms=effective_ms,
            **({"first_step": rule.first_step} | parts),
        )


class RecentUse(Struct, frozen=True, array_like=True):
    """One earlier use that the state of a key (or of a service) remembers."""

    event_id: str
    effective_ms: int
    operation: Operation
    outcome: Outcome
    revision: int
    version: int
    actor: str
    purpose: str
    service: str
    reason: str | None = None


class KeyView(Struct, frozen=True, kw_only=True):
    """A key version as the trail knows it. `revoked_in` is the revision that revoked it; nobody may use a decoy."""

    id: str
    version: int
    state: str | None
    revision: int
    revoked_ms: int | None = None
    revoked_in: int | None = None
    revocation_reason: str | None = None
    decoy: bool = False


class KeyUse(Struct, frozen=True, kw_only=True):
    """One use of a key by a service, as its verified event tells it, with what the trail knew at that moment.

    `key` is None where the event names none (a ciphertext that could not be parsed). `recent` holds earlier uses of
    the same key, oldest first; this use is not among them. `failed` holds the last failed or denied ones, kept apart so
    that a busy key's successes do not push them out; where no key is known, those of the same service without a key.
    """

    event_id: str
    operation: Operation
    outcome: Outcome
    reason: str | None
    effective_ms: int
    service: str
    actor: str
    purpose: str
    tenant: str
    key: KeyView | None
    key_revision: int
    recent: tuple[RecentUse, ...] | list[RecentUse] = ()
    failed: tuple[RecentUse, ...] | list[RecentUse] = ()
    suspect: bool = False


class AccessClass(StrEnum):
    """What a vault operation does to its object."""

    USE = "use"
    READ = "read"
    LIST = "list"
    ADMIN = "admin"
    CHALLENGE = "challenge"
    NOTIFICATION = "notification"
    UNKNOWN = "unknown"


class AccessOutcome(StrEnum):
    """How a vault operation ended, by its HTTP status and never by resultType."""

    SUCCEEDED = "succeeded"
    DENIED = "denied"
    FAILED = "failed"
    THROTTLED = "throttled"
    NOT_FOUND = "not_found"


class PrincipalKind(StrEnum):
    """Who called the vault: a person, a workload, a service of Azure, or nobody whom the record names.

    azure_service: the identity of a resource in which no code of customers runs, such as a storage account that
    encrypts under a key of the vault, or an application of Microsoft's own.
    """

    USER = "user"
    WORKLOAD = "workload"
    AZURE_SERVICE = "azure_service"
    UNKNOWN = "unknown"


class Principal(Struct, frozen=True):
    """The vault's caller; `id` is lower case, `resource` type and name of whose managed identity it is, if it is one.

    Of an application of Microsoft's own, `resource` is its name.
    """

    id: str | None
    kind: PrincipalKind
    app_id: str | None = None
    upn: str | None = None
    resource: str | None = None


class KeyChange(Struct, frozen=True):
    """What a KeyUpdate asked for, or a notification says of a key; None = not said. `expires_at` is RFC 3339."""

    enabled: bool | None = None
    expires_at: str | None = None
    operations: tuple[str, ...] | None = None


class VaultAccess(Struct, frozen=True, kw_only=True):
    """One Key Vault log record, normalised. Names, hosts and ids are lower case; `time` keeps seven digits.

    `audit_log` is what a write of a diagnostic setting asked of the vault's audit log: on, off, None = not said.
    `role` is the role that a role assignment gives, by the id of its definition, and `given_to` the principal who gets
    it, where the record says so.
    """

    time: str
    operation: str
    access_class: AccessClass = field(name="class")
    outcome: AccessOutcome | None
    denial: str | None
    http_status: int | None
    vault: str | None
    object_kind: str | None
    object_name: str | None
    object_version: str | None
    principal: Principal
    address: str | None
    network: str | None
    tls_version: str | None
    correlation_id: str | None
    shape: str
    key_change: KeyChange | None
    access_id: str
    resource_id: str | None
    time_us: int
    audit_log: bool | None = None
    role: str | None = None
    given_to: str | None = None


class KekUseStatus(StrEnum):
    """What the join says of one KEK operation; `explained` and `unexplained` are said of administrative acts only."""

    MATCHED = "matched"
    UNACCOUNTED = "unaccounted"
    UNLOGGED = "unlogged"
    PENDING = "pending"
    NOT_EVALUATED = "not_evaluated"
    ALLOWED = "allowed"
    EXPLAINED = "explained"
    UNEXPLAINED = "unexplained"


class Strength(StrEnum):
    """By what a vault record and an event were joined: the service's request id, our call id, or attributes alone."""

    EXACT = "exact"
    CLAIMED = "claimed"
    WEAK = "weak"


class KekUse(Struct, frozen=True, kw_only=True):
    """One KEK operation with the judgement of the join; `id` is the access_id, or the event id where unlogged.

    `reason` says why it is not matched: no_event, foreign_principal, azure_service, id_reused, no_vault_record,
    no_batches, too_many; of an allowed use it is the id of its entry in allowed.toml. `event_id` of an id_reused use is
    the event whose id it carries. `behind_ms` is how far the slowest live instance of `source` was behind the record
    when it was judged (0: all had passed it), `instances` how many were live.
    """

    id: str
    status: KekUseStatus
    strength: Strength | None
    reason: str | None
    final: bool
    vault: str
    name: str
    version: str | None
    operation: str
    outcome: str
    time_us: int
    principal_id: str | None
    principal_kind: str | None = None
    principal_label: str | None = None
    address: str | None = None
    correlation_id: str | None = None
    access_id: str | None = None
    event_id: str | None = None
    source: str | None = None
    actor: str | None = None
    purpose: str | None = None
    tenant: str | None = None
    key_id: str | None = None
    behind_ms: int | None = None
    instances: int | None = None


class KekAct(Struct, frozen=True, kw_only=True):
    """One administrative act beside what the join says of it; `judged` None where no event can be about it."""

    access: VaultAccess
    judged: KekUse | None = None

    @property
    def time_us(self) -> int:
        """When the vault says it happened."""
        return self.access.time_us


class KekChange(Struct, frozen=True, kw_only=True):
    """What one record says of a KEK: enabled or disabled, or (None) that it got a new version.

    `version` is the one it speaks of, where it names one.
    """

    time_us: int
    enabled: bool | None
    version: str | None = None


class KekAccess(Struct, frozen=True, kw_only=True):
    """One use of a KEK beside all that the vault's own records say of the KEK, oldest first."""

    use: KekUse
    changes: tuple[KekChange, ...] = ()

    @property
    def time_us(self) -> int:
        """When the vault says it happened."""
        return self.use.time_us


class FindingMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="finding"):
    """A finding on its way to triage; `count` is cumulative for the fingerprint since `opened_ms`."""

    v: int = 1
    finding_id: str
    fingerprint: str
    opened_ms: int
    count: int
    first_ms: int
    last_ms: int
    finding: Finding


class FindingResolved(Struct, frozen=True, kw_only=True, tag_field="type", tag="resolved"):
    """Hits of a finding that were explained after all: `retracted` of `count`, both cumulative."""

    v: int = 1
    finding_id: str
    fingerprint: str
    count: int
    retracted: int
    at_ms: int
    explanation: str


class Command(Struct, frozen=True, kw_only=True, tag_field="type", tag="command"):
    """What a person decided about an alert. `person` is as asserted by whoever could write to the topic.

    `until_ms` ends an acknowledgement or a silence; both need one. The same `id` counts once.
    """

    v: int = 1
    id: str
    act: Literal["acknowledge", "silence", "resolve"]
    alert_id: str
    person: str
    until_ms: int | None = None
    note: str = ""


class Notification(Struct, frozen=True, kw_only=True):
    """One delivery that is owed: the same `id` is never shown to a person twice by a channel that can tell."""

    id: str
    alert_id: str
    kind: str  # opened | worse | resolved | canary
    severity: Severity
    subject: str
    text: str
    alert: dict[str, Any]
