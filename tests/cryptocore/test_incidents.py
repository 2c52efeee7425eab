from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from cryptocore import testing
from cryptocore.care.impact import ServiceUse
from cryptocore.care.incident_facts import Change, Notification, Owed
from cryptocore.care.overdue import OverdueKind
from cryptocore.care.statements import Statements
from cryptocore.care.terms import DAY_MS, HOUR_MS, Classification, IncidentKind, Terms, ThreatLevel
from cryptocore.context import acting
from cryptocore.core import CryptoCore
from cryptocore.envelope import Owner
from cryptocore.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidTransition,
    KeyUnavailable,
    TermsInvalid,
)
from cryptocore.events import AuditEvent, Operation, Reason, decode_line
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life.approvals import Action, SignedApproval
from cryptocore.life.destruction import read_certificate
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.store.rotation_tables import DESTRUCTION
from cryptocore.store.statement_tables import STATEMENT
from cryptocore.testing import CoreUnderTest
from tests.cryptocore.approving import APPROVERS, approval
from tests.cryptocore.stores import Database, postgres_database, sqlite_database
from tests.cryptocore.test_tokens import WRAPPER, cut_off, kept, now_ms

CRM = Owner.tenant("t-88", "crm")
MAIL = Owner.tenant("t-88", "mail")
OTHER = Owner.tenant("t-881", "crm")
RECORD = "rows/1"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return postgres_database(str(request.getfixturevalue("postgres_url")))


@pytest.fixture
def store_url(database: Database) -> str:
    return database.url


@pytest.fixture
async def core(store_url: str) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=store_url, approvers=APPROVERS, wrapper=WRAPPER) as tested:
        with acting(actor="user:1001", purpose="key-care"):
            yield tested


async def active_key(core: CryptoCore, owner: Owner = CRM) -> str:
    await core.encrypt(b"x", owner=owner, record=RECORD, create_missing=True)
    return (await core.describe(owner)).key_id


def outbox(core: CryptoCore) -> list[AuditEvent]:
    lines = [decode_line(row.line) for row in core.parts.store.outbox(testing.SERVICE, 10_000) if row.vouched]
    return [line for line in lines if isinstance(line, AuditEvent)]


@pytest.fixture
async def sqlite_core(tmp_path: Path) -> AsyncIterator[CoreUnderTest]:
    """For what the database has no part in."""
    async with testing.core(store_url=sqlite_database(tmp_path).url, wrapper=WRAPPER) as tested:
        with acting(actor="user:1001", purpose="key-care"):
            yield tested


# --- terms


def test_the_packaged_terms_name_their_sources() -> None:
    terms = Terms.load()

    assert terms.kek_days == 365
    assert terms.device_loss_report_hours == 4
    assert all("policy" in source for source in terms.sources.values())


def test_a_raised_threat_level_shortens_every_cryptoperiod() -> None:
    terms = Terms.load()

    for classification in (None, *Classification):
        periods = [terms.dek_ms(classification, level) for level in ThreatLevel]
        assert periods == sorted(periods, reverse=True)
        assert len(set(periods)) == len(periods)
    assert terms.dek_ms(None, ThreatLevel.NORMAL) == terms.dek_ms(terms.unlabelled, ThreatLevel.NORMAL)


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("restricted = 90", "", "dek.restricted"),
        ("restricted = 90", "restricted = 0", "dek.restricted"),
        ("restricted = 90", "restricted = true", "dek.restricted"),
        ("restricted = 90", "restricted = 90\nsecret = 1", "dek.secret"),
        ('unlabelled = "confidential"', 'unlabelled = "secret"', "dek.unlabelled"),
        ("[kek]", "[kek.days]", "kek"),
        ('source = "policy 6.3a (KEKs yearly or upon compromise)"', 'source = " "', "kek.source"),
        ("[dek]", "[dek", "file"),
    ],
)
def test_terms_that_leave_something_open_are_refused(before: str, after: str, field: str) -> None:
    packaged = Path(__file__).parents[2] / "cryptocore" / "care" / "terms.toml"
    text_of = packaged.read_text()
    assert before in text_of

    with pytest.raises(TermsInvalid) as caught:
        Terms.parse(text_of.replace(before, after))
    assert caught.value.field.startswith(field)


# --- labels and the threat level


async def test_a_label_says_who_set_it_and_the_last_one_counts(core: CoreUnderTest) -> None:
    key_id = await active_key(core)
    await core.label(key_id, Classification.INTERNAL, "crm-team")
    again = await core.label(key_id, Classification.INTERNAL, "crm-team", actor="user:1002")
    await core.label(key_id, Classification.RESTRICTED, "payments", actor="user:1002")

    label = (await core.labels())[key_id]
    assert again.set_by == "user:1001"
    assert (label.classification, label.team, label.set_by) == (Classification.RESTRICTED, "payments", "user:1002")


async def test_only_a_key_that_is_there_gets_a_label(sqlite_core: CoreUnderTest) -> None:
    with pytest.raises(InvalidTransition):
        await sqlite_core.label("ab" * 16, Classification.PUBLIC, "team")
    with pytest.raises(ConfigurationError):
        await sqlite_core.label(await active_key(sqlite_core), Classification.PUBLIC, "Two Words")


async def test_a_raised_level_ends_by_itself_and_by_hand(core: CoreUnderTest) -> None:
    until_ms = now_ms(core) + DAY_MS
    await core.threats.set(ThreatLevel.ELEVATED, reason="phishing wave", until_ms=until_ms)
    raised = await core.threats.now()
    await core.threats.set(ThreatLevel.NORMAL, reason="over")

    assert (raised.level, raised.until_ms, raised.set_by) == (ThreatLevel.ELEVATED, until_ms, "user:1001")
    assert (await core.threats.now()).level is ThreatLevel.NORMAL


async def test_a_raised_level_is_over_at_its_end(tmp_path: Path) -> None:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}", wrapper=WRAPPER) as core:
        with acting("user:1001", "key-care"):
            await core.threats.set(ThreatLevel.SEVERE, reason="breach", until_ms=now_ms(core) + 1_000)
            core.clock.advance(1)

            assert (await core.threats.now()).level is ThreatLevel.NORMAL


@pytest.mark.parametrize("until", [None, -1, 367 * DAY_MS])
async def test_a_raised_level_needs_an_end_in_sight(sqlite_core: CoreUnderTest, until: int | None) -> None:
    with pytest.raises(ConfigurationError):
        await sqlite_core.threats.set(
            ThreatLevel.ELEVATED, reason="x", until_ms=None if until is None else now_ms(sqlite_core) + until
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE statement SET stated_ms = 1",
        "DELETE FROM statement",
    ],
)
async def test_what_was_stated_stays(core: CoreUnderTest, database: Database, statement: str) -> None:
    await core.threats.set(ThreatLevel.NORMAL, reason="start")

    with pytest.raises(IntegrityError, match="append-only"):
        database.run(statement)


@pytest.mark.parametrize(
    "forgery",
    [
        """UPDATE statement SET body = '{"level":"normal","set_by":"user:1","reason":"x"}' WHERE revision = 2""",
        "DELETE FROM statement WHERE revision = 1",
        "UPDATE statement SET subject = 'other' WHERE revision = 1",
        "UPDATE statement SET revision = 3 WHERE revision = 2",
        "UPDATE statement SET kind = 'threat', subject = 'deployment', revision = revision + 2",
    ],
)
async def test_a_statement_that_somebody_else_wrote_or_took_away_is_not_believed(tmp_path: Path, forgery: str) -> None:
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    async with testing.core(store_url=url, wrapper=WRAPPER) as core:
        with acting("user:1001", "key-care"):
            key_id = await active_key(core)
            await core.threats.set(ThreatLevel.ELEVATED, reason="one", until_ms=now_ms(core) + DAY_MS)
            await core.threats.set(ThreatLevel.SEVERE, reason="two", until_ms=now_ms(core) + DAY_MS)
            if "kind" in forgery:
                forgery += " WHERE kind = 'label'"
                await core.label(key_id, Classification.PUBLIC, "team")
            for statement in ("DROP TRIGGER statement_update", "DROP TRIGGER statement_delete", forgery):
                sqlite_database(tmp_path).run(statement)

            with pytest.raises(KeyUnavailable, match="not to be trusted"):
                await core.threats.now()


def test_a_statement_is_signed_as_the_format_says(tmp_path: Path) -> None:
    """Built by hand from docs/formats.md; the second revision holds the digest of the first one's head."""
    signer = Signer.from_private_bytes(bytes(range(32)))
    registry = testing.register(signer, deployment=b"d" * 16)
    store = KeyStore(f"sqlite:///{tmp_path / 'keys.sqlite'}", registry=registry)
    statements = Statements("label", registry, signer)

    def write(connection: Connection) -> None:
        first = statements.append(connection, "a-key", Notification(due_ms=1), before=None, now_ms=1_000)
        statements.append(connection, "a-key", Notification(due_ms=2), before=first, now_ms=2_000)

    store.transaction(write)
    rows = store.transaction(lambda connection: connection.execute(select(STATEMENT)).mappings().all())
    store.close()

    previous = bytes(32)
    for number, row in enumerate(sorted(rows, key=lambda row: int(row["revision"])), 1):
        head = (
            b"d" * 16
            + sha256(signer.public_key).digest()[:16]
            + number.to_bytes(8, "big")
            + (1_000 * number).to_bytes(8, "big")
            + previous
            + sha256(b'{"due_ms":%d}' % number).digest()
            + b"\x00\x05label\x00\x05a-key"
        )
        Ed25519PublicKey.from_public_bytes(signer.public_key).verify(
            row["signature"], b"keytrail/statement/v1\x00" + head
        )
        previous = sha256(head).digest()


# --- what is late


async def test_a_key_is_late_by_its_class_and_by_the_threat(tmp_path: Path) -> None:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}", wrapper=WRAPPER) as core:
        with acting("user:1001", "key-care"):
            restricted, unlabelled = await active_key(core), await active_key(core, OTHER)
            await core.label(restricted, Classification.RESTRICTED, "payments")
            made_ms = now_ms(core)
            core.clock.advance(91 * DAY_MS / 1000)
            by_class = await core.overdue()
            await core.threats.set(ThreatLevel.ELEVATED, reason="wave", until_ms=now_ms(core) + DAY_MS)
            by_threat = await core.overdue()

    assert [(late.kind, late.subject, late.due_ms, late.team) for late in by_class] == [
        (OverdueKind.KEY, f"{restricted}/1", made_ms + 90 * DAY_MS, "payments")
    ]
    assert [late.subject for late in by_threat] == [f"{restricted}/1", f"{unlabelled}/1"]
    assert "unlabelled, so confidential" in by_threat[1].what


async def test_a_kek_without_a_newer_version_is_late_after_a_year(core: CoreUnderTest) -> None:
    await active_key(core)
    year = 366 * DAY_MS

    late = {one.kind: one for one in await core.overdue(now_ms=now_ms(core) + year)}
    named = (await core.describe(CRM)).kek_version
    known = await core.overdue(now_ms=now_ms(core), kek_created_ms={(testing.ALIAS, named): now_ms(core) - year})

    assert late[OverdueKind.KEK].subject.startswith(testing.ALIAS)
    assert [one.kind for one in known] == [OverdueKind.KEK]


async def test_rotations_tokens_and_incidents_are_late_too(tmp_path: Path) -> None:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}", wrapper=WRAPPER) as core:
        with acting("user:1001", "key-care"):
            await active_key(core)
            await core.rotate(CRM, reason=KeyReason.SCHEDULED)
            await kept(core, core.tokens, MAIL)
            await core.incidents().open(IncidentKind.OTHER, "a laptop found open")
            assert await core.overdue() == []
            core.clock.advance(40 * DAY_MS / 1000)
            late = await core.overdue()

    assert [one.kind for one in late] == [OverdueKind.TOKENS, OverdueKind.INCIDENT, OverdueKind.ROTATION]


async def test_a_key_whose_record_is_not_to_be_believed_is_listed_as_such(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    async with testing.core(store_url=url, wrapper=WRAPPER) as core:
        with acting("user:1001", "key-care"):
            key_id = await active_key(core)
            sqlite_database(tmp_path).run("DROP TRIGGER key_version_step")
            sqlite_database(tmp_path).run("UPDATE key_version SET signature = zeroblob(64)")

            (late,) = await core.overdue()

    assert (late.kind, late.subject) == (OverdueKind.RECORD, f"{key_id}/1")


# --- incidents


async def test_an_incident_is_closed_only_when_nothing_is_owed(core: CoreUnderTest) -> None:
    incidents = core.incidents()
    opened = await incidents.open(IncidentKind.DEVICE_LOSS, "laptop left on a train", affected=["device:L-17"])
    assert opened.owed() == (Owed.DECISION, Owed.AUDIT)
    with pytest.raises(InvalidTransition, match="decision, audit"):
        await incidents.close(opened.id)

    at_ms = now_ms(core)
    await incidents.update(opened.id, Change(notification_required=True, note="keys were on it"), actor="user:7")
    assert (await incidents.get(opened.id)).owed() == (Owed.NOTIFICATION, Owed.AUDIT)
    await incidents.update(opened.id, Change(notification_sent_ms=at_ms, audited_ms=at_ms))
    closed = await incidents.close(opened.id, note="reviewed")

    assert closed.facts.notification.decided_by == "user:7"
    assert [one.revision for one in await incidents.history(opened.id)] == [1, 2, 3, 4]
    assert await incidents.all() == []
    assert await incidents.all(closed=True) == [closed]
    with pytest.raises(InvalidTransition, match="is closed"):
        await incidents.update(opened.id, Change(note="more"))


async def test_due_dates_come_from_the_terms(sqlite_core: CoreUnderTest) -> None:
    lost_ms = now_ms(sqlite_core) - 5 * HOUR_MS
    incident = await sqlite_core.incidents().open(IncidentKind.DEVICE_LOSS, "laptop", occurred_ms=lost_ms)

    assert incident.facts.report_due_ms == lost_ms + 4 * HOUR_MS
    assert incident.reported_late
    assert incident.facts.notification.due_ms == incident.facts.detected_ms + 72 * HOUR_MS
    assert incident.facts.audit_due_ms == incident.facts.detected_ms + 30 * DAY_MS
    assert incident.late(incident.facts.notification.due_ms) == (Owed.DECISION,)


@pytest.mark.parametrize(
    "told",
    [
        {"summary": "a\nb"},
        {"summary": ""},
        {"summary": "x", "detected_ms": 2**46},
        {"summary": "x", "affected": ["a\x00"]},
        {"summary": "x", "occurred_ms": 2_000, "detected_ms": 1_000},
    ],
)
async def test_an_incident_of_nonsense_is_refused(sqlite_core: CoreUnderTest, told: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await sqlite_core.incidents().open(IncidentKind.OTHER, **told)
    assert await sqlite_core.incidents().all() == []


async def test_an_incident_that_is_not_there_is_said_to_be_missing(sqlite_core: CoreUnderTest) -> None:
    with pytest.raises(AccessDenied):
        await sqlite_core.incidents().get("inc-0000000000000000")


# --- what hangs on a key, and a compromise


class Seen:
    """A history that knows of one use."""

    def __init__(self, *services: str) -> None:
        self._uses = tuple(ServiceUse(service, "decrypt", 3, HOUR_MS) for service in services)

    async def of_key(self, key_id: str) -> tuple[ServiceUse, ...]:
        del key_id
        return self._uses

    async def of_kek(self, vault: str, name: str) -> tuple[ServiceUse, ...]:
        del vault, name
        return self._uses


async def test_the_blast_radius_of_a_key_is_its_owner_its_tokens_and_its_users(core: CoreUnderTest) -> None:
    key_id = await active_key(core)
    await kept(core, core.tokens)
    await kept(core, core.tokens, OTHER)

    unknown = await core.blast_radius(key_id)
    known = await core.blast_radius(key_id, history=Seen("billing"))

    assert unknown.owners == (CRM,)
    assert [token.token_id for token in unknown.tokens] == ["access"]
    assert (unknown.uses, unknown.services) == (None, None)
    assert known.services == ("billing",)
    with pytest.raises(AccessDenied):
        await core.blast_radius("ab" * 16)


async def test_the_blast_radius_of_a_kek_is_every_key_under_it(core: CoreUnderTest) -> None:
    await active_key(core)
    await core.rotate(CRM, reason=KeyReason.SCHEDULED)
    await kept(core, core.tokens, OTHER)
    version = (await core.describe(CRM)).kek_version

    reach = await core.blast_radius(kek=testing.ALIAS, kek_version=version, history=Seen())

    assert set(reach.owners) == {CRM, OTHER}
    assert len(reach.keys) == 3
    assert [token.owner for token in reach.tokens] == [OTHER]
    assert reach.services == ()
    assert (await core.blast_radius(kek=testing.ALIAS, kek_version="none")).keys == ()


async def test_a_compromise_revokes_gives_a_new_version_ends_tokens_and_is_written_down(core: CoreUnderTest) -> None:
    key_id = await active_key(core)
    await core.rotate(CRM, reason=KeyReason.SCHEDULED)
    await kept(core, core.tokens)
    await kept(core, core.tokens, MAIL)
    await core.label(key_id, Classification.RESTRICTED, "payments")

    done = await core.compromise(key_id, "key seen in a log", history=Seen("billing"))

    assert sorted(info.version for info in done.revoked) == [1, 2]
    assert done.rotated is not None
    assert (done.rotated.version, done.rotated.state) == (3, KeyState.ACTIVE)
    assert done.tokens == 1
    assert [token.owner for token in await core.tokens.tokens()] == [MAIL]
    assert done.notify == ("role:security", "team:payments", "service:billing", "tenant:t-88")
    assert done.incident is not None
    facts = done.incident.facts
    assert (facts.kind, facts.versions) == (IncidentKind.KEY, (1, 2))
    assert f"key:{key_id}/2" in facts.affected
    revoked = [event for event in outbox(core) if event.operation is Operation.REVOKE]
    assert {(event.reason, event.note) for event in revoked} == {
        (Reason.COMPROMISE_SUSPECTED, f"incident {done.incident.id}")
    }
    assert await core.encrypt(b"on it goes", owner=CRM, record=RECORD)


async def test_a_compromise_needs_the_database_only(store_url: str) -> None:
    async with testing.core(store_url=store_url, wrapper=WRAPPER) as living:
        with acting("user:1", "setup"):
            key_id = await active_key(living)
            await kept(living, living.tokens)
        core = cut_off(store_url, living.registry, living.parts.signer)

    with acting("user:1001", "emergency"):
        done = await core.compromise(key_id, "laptop stolen")

    assert done.rotated is None
    assert done.not_rotated
    assert [info.state for info in done.revoked] == [KeyState.REVOKED]
    assert done.tokens == 1
    assert done.incident is not None
    assert "no new version" in (done.incident.facts.note or "")
    core.parts.store.close()


async def test_a_compromise_that_was_cut_off_goes_on_with_the_same_incident(core: CoreUnderTest) -> None:
    key_id = await active_key(core)
    await kept(core, core.tokens)
    incident = await core.incidents().open(IncidentKind.KEY, "begun", key_id=key_id, versions=[1])
    await core.rotate(CRM, reason=KeyReason.COMPROMISE_SUSPECTED)

    done = await core.compromise(key_id, "again")
    again = await core.compromise(key_id, "once more")

    assert done.incident is not None
    assert again.incident is not None
    assert done.incident.id == again.incident.id == incident.id
    assert [info.version for info in done.revoked] == [1]
    assert (again.revoked, again.tokens) == ((), 0)
    newest = await core.describe(CRM)
    assert (newest.version, newest.state) == (2, KeyState.ACTIVE)


async def test_a_version_that_took_the_place_of_another_can_be_compromised_too(core: CoreUnderTest) -> None:
    key_id = await active_key(core)
    first = await core.compromise(key_id, "seen in a log")

    second = await core.compromise(key_id, "seen again", versions=[2])

    assert first.incident is not None
    assert second.incident is not None
    assert second.incident.id == first.incident.id
    assert second.incident.facts.versions == (1, 2)
    assert [info.version for info in second.revoked] == [2]
    assert (await core.describe(CRM)).version == 3


async def test_rows_that_somebody_else_wrote_do_not_stand_in_the_way_of_a_revocation(
    core: CoreUnderTest, database: Database
) -> None:
    key_id = await active_key(core)
    await kept(core, core.tokens)
    forged = "INSERT INTO statement VALUES ('{kind}', '{subject}', 1, 1, {blob}, {blob}, {blob})"
    for kind, subject in (("incident", "inc-0123456789abcdef"), ("label", key_id)):
        database.run(forged.format(kind=kind, subject=subject, blob=database.blob("00" * 16)))

    done = await core.compromise(key_id, "seen in a log")
    late = await core.overdue()

    assert done.incident is not None
    assert (len(done.revoked), done.tokens) == (1, 1)
    assert [one.id for one in await core.incidents().all()] == [done.incident.id]
    assert {one.subject for one in late if one.kind is OverdueKind.RECORD} == {
        "incident inc-0123456789abcdef",
        f"label {key_id}",
    }


async def test_a_history_that_fails_and_statements_that_cannot_be_made_do_not_either(tmp_path: Path) -> None:
    class Failing(Seen):
        async def of_key(self, key_id: str) -> tuple[ServiceUse, ...]:
            raise ConnectionError(key_id)

    database = sqlite_database(tmp_path)
    async with testing.core(store_url=database.url, wrapper=WRAPPER) as core:
        with acting("user:1001", "key-care"):
            key_id = await active_key(core)
            await kept(core, core.tokens)
            database.run("DROP TABLE statement")

            done = await core.compromise(key_id, "seen in a log", history=Failing())

    assert (done.incident, len(done.revoked), done.tokens) == (None, 1, 1)
    assert done.not_recorded
    assert done.notify == ("role:security", "tenant:t-88")


# --- a tenant leaves


async def approved(core: CoreUnderTest, key_id: str) -> list[SignedApproval]:
    from_ms = now_ms(core) - 1_000
    return [
        approval(core, Action.DESTROY, record, by, from_ms=from_ms)
        for record in await core.records(key_id)
        for by in APPROVERS.values()
    ]


async def test_a_tenant_leaves_with_one_request_for_all_its_keys(core: CoreUnderTest) -> None:
    for owner in (CRM, MAIL, OTHER):
        await active_key(core, owner)
        await kept(core, core.tokens, owner)

    first = await core.offboard("t-88")
    again = await core.offboard("t-88")
    approvals = [one for key in first.awaiting for one in await approved(core, key.key_id)]
    with pytest.raises(InvalidTransition, match="1 of the tenant's 2"):
        await core.offboard("t-88", approvals=approvals[:2])
    asked = await core.offboard("t-88", approvals=approvals)
    resumed = await core.offboard("t-88")

    assert (first.tokens, again.tokens) == (2, 0)
    assert {key.state for key in first.archived} == {KeyState.ARCHIVED}
    assert (len(first.archived), len(again.archived), len(again.awaiting)) == (2, 0, 2)
    assert asked.destruction is not None
    assert resumed.destruction is not None
    assert resumed.destruction.id == asked.destruction.id
    assert {item.key_id for item in asked.destruction.request.items} == {key.key_id for key in first.awaiting}
    assert [token.owner for token in await core.tokens.tokens()] == [OTHER]
    with pytest.raises(AccessDenied):
        await core.encrypt(b"x", owner=CRM, record=RECORD)


async def test_a_tenant_whose_request_is_not_believed_does_not_look_as_if_none_was_made(
    core: CoreUnderTest, database: Database
) -> None:
    await active_key(core, CRM)
    first = await core.offboard("t-88")
    approvals = [one for key in first.awaiting for one in await approved(core, key.key_id)]
    asked = await core.offboard("t-88", approvals=approvals)
    assert asked.destruction is not None
    await active_key(core, OTHER)
    with database.unguarded() as connection:
        connection.execute(update(DESTRUCTION).values(signature=bytes(64)))

    for given in ((), approvals):
        with pytest.raises(KeyUnavailable, match=asked.destruction.id) as caught:
            await core.offboard("t-88", approvals=given)
        assert not caught.value.retryable
    assert len(await core.disbelieved_destructions()) == 1

    database.run("UPDATE destruction SET restored_ms = 1")  # somebody has looked into it, and lets it go
    assert (await core.offboard("t-88")).destruction is None


async def test_one_certificate_covers_all_keys_of_a_tenant_that_left(tmp_path: Path) -> None:
    url = sqlite_database(tmp_path).url
    async with testing.core(store_url=url, approvers=APPROVERS, wrapper=WRAPPER) as core:
        with acting("user:1001", "offboarding"):
            for owner in (CRM, MAIL):
                await active_key(core, owner)
            await core.rotate(CRM, reason=KeyReason.SCHEDULED)
            await core.report_reencrypted((await core.rotation(CRM)).id, 0)
            first = await core.offboard("t-88")
            approvals = [
                one for key_id in {key.key_id for key in first.awaiting} for one in await approved(core, key_id)
            ]
            asked = await core.offboard("t-88", approvals=approvals)
            assert asked.destruction is not None
            core.clock.advance(8 * DAY_MS / 1000)
            await core.destroy(asked.destruction.id, reason=KeyReason.OFFBOARDED)
            core.clock.advance(3_600)
            certified = await core.certify_destruction(asked.destruction.id)
            gone = await core.offboard("t-88")

    assert certified.certificate is not None
    certificate = read_certificate(certified.certificate, core.registry)
    assert {(one.key_id, one.version) for one in certificate.items} == {
        (key.key_id, key.version) for key in first.awaiting
    }
    assert len(certificate.items) == 3
    assert gone.awaiting == ()


async def test_a_tenant_without_keys_cannot_leave(sqlite_core: CoreUnderTest) -> None:
    await active_key(sqlite_core, OTHER)

    with pytest.raises(InvalidTransition):
        await sqlite_core.offboard("t-88")
