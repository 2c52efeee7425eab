"""Commands on the core's database: tokens, threat level, incidents; log, vault and spool are away."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cryptocore import testing
from cryptocore.care import terms
from cryptocore.context import acting
from cryptocore.development import make_registry
from cryptocore.envelope import Owner
from cryptocore.events import AuditEvent, Operation, decode_line
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore, database_ms
from cryptocore.testing import CoreUnderTest
from streams.cli import app
from streams.commands.terminal import NOT_ALL_WELL, UNREACHABLE, WRONG_USE
from tests.servers.machine import free_port

SERVICE = testing.SERVICE
CRM, MAIL = Owner.tenant("t-88", "crm"), Owner.tenant("t-88", "mail")
LENA = ("--actor", "user:lena")
VALUE = b"planted-token-value"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A database and a registry; everything else is named and not there."""
    make_registry(tmp_path, [SERVICE], now_ms=0, days=50_000)
    values = {
        "SERVICE": SERVICE,
        "SPOOL_DIR": "/proc/no/such/folder",
        "STORE_URL": f"sqlite:///{tmp_path / 'keys.sqlite'}",
        "REGISTRY_FILE": str(tmp_path / "sources.json"),
        "SIGNER_FILE": str(tmp_path / f"{SERVICE}.key"),
        "KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "KEK_ALIAS": testing.ALIAS,
        "KEK_VAULT_URL": "https://kv-nowhere.vault.azure.net",
        "KEK_NAME": "tenant-kek",
    }
    return {f"KEYTRAIL_CORE_{name}": value for name, value in values.items()}


@pytest.fixture
def stored(environment: dict[str, str]) -> Iterator[KeyStore]:
    """A store with three tokens, of which one has expired by the time a command looks."""
    url = environment["KEYTRAIL_CORE_STORE_URL"]
    registry = Registry.load(Path(environment["KEYTRAIL_CORE_REGISTRY_FILE"]))
    signer = Signer.from_file(environment["KEYTRAIL_CORE_SIGNER_FILE"])

    async def fill() -> None:
        async with testing.core(store_url=url, signer=signer) as core:
            with acting("user:1", "setup"):
                await _keep(core)

    asyncio.run(fill())
    store = KeyStore(url, registry=registry)
    yield store
    store.close()


async def _keep(core: CoreUnderTest) -> None:
    """The clock of a test core stands a week or more before that of the commands."""
    now_ms = core.store.transaction(database_ms)
    far_ms = now_ms + 10**12
    for owner, name, expires_ms in (
        (CRM, "access", now_ms + 1_000),
        (CRM, "refresh", far_ms),
        (MAIL, "access", far_ms),
    ):
        await core.tokens.store(owner, name, VALUE, expires_at_ms=expires_ms, create_missing=True)


def run(environment: dict[str, str], *arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments), env=environment)
    assert VALUE.decode() not in result.output
    return result


def listed(environment: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    result = run(environment, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, list)
    return found


def told(store: KeyStore, operation: Operation) -> list[AuditEvent]:
    lines = [decode_line(row.line) for row in store.outbox(SERVICE, 1_000) if row.vouched]
    return [line for line in lines if isinstance(line, AuditEvent) and line.operation is operation]


def test_tokens_are_listed_without_their_values(environment: dict[str, str], stored: KeyStore) -> None:
    del stored
    found = listed(environment, "tokens", "list", "--tenant", "t-88", "--integration", "crm")

    assert [(one["owner"], one["token_id"]) for one in found] == [("t-88/crm", "access"), ("t-88/crm", "refresh")]
    assert "t-88/mail" in run(environment, "tokens", "list").stdout


def test_an_emergency_ends_tokens_with_nothing_but_the_database(environment: dict[str, str], stored: KeyStore) -> None:
    result = run(environment, "tokens", "invalidate", "--integration", "crm", "--yes", "--note", "leak", *LENA)

    assert result.exit_code == 0, result.output
    assert "2 tokens invalidated" in result.stdout
    assert "events wait in the outbox" in result.stderr
    assert [one["token_id"] for one in listed(environment, "tokens", "list")] == ["access"]
    events = told(stored, Operation.TOKEN_INVALIDATE)
    assert {(event.token_id, event.actor, event.note) for event in events} == {
        ("access", "user:lena", "leak"),
        ("refresh", "user:lena", "leak"),
    }
    ended = listed(environment, "tokens", "list", "--ended")
    assert {one["ended_by"] for one in ended} == {"user:lena"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tenant", "t-88", *LENA), "say --yes"),
        (("--yes", *LENA), "say which tokens"),
        (("--token", "access", "--yes", *LENA), "say which tokens"),
        (("--tenant", "t-88", "--yes", "--actor", "service:billing"), "a person acts here"),
        (("--key", "xyz", "--yes", *LENA), "32 hex digits"),
        (("--secret", "smtp", "--tenant", "t-88", "--yes", *LENA), "either --secret"),
    ],
)
def test_an_invalidation_that_is_not_clear_or_not_confirmed_does_nothing(
    environment: dict[str, str], stored: KeyStore, arguments: tuple[str, ...], says: str
) -> None:
    result = run(environment, "tokens", "invalidate", *arguments)

    assert result.exit_code == WRONG_USE
    assert says in result.stderr
    assert told(stored, Operation.TOKEN_INVALIDATE) == []


def test_a_purge_lists_first_and_erases_when_told(environment: dict[str, str], stored: KeyStore) -> None:
    first = run(environment, "tokens", "purge-expired", *LENA)
    assert "1 expired tokens would be erased" in first.stdout
    assert told(stored, Operation.TOKEN_EXPIRE) == []

    second = run(environment, "tokens", "purge-expired", "--apply", "--yes", *LENA)
    assert "1 expired tokens erased" in second.stdout
    assert [event.token_id for event in told(stored, Operation.TOKEN_EXPIRE)] == ["access"]
    assert "0 expired tokens" in run(environment, "tokens", "purge-expired", *LENA).stdout


def test_a_threat_level_is_raised_shown_and_ended(environment: dict[str, str]) -> None:
    raised = run(environment, "threat", "set", "elevated", "--until", "7d", "--reason", "wave", *LENA)
    shown = json.loads(run(environment, "threat", "show", "--json").stdout)
    ended = run(environment, "threat", "set", "normal", "--reason", "over", *LENA)

    assert (raised.exit_code, ended.exit_code) == (0, 0)
    assert (shown["level"], shown["set_by"], shown["reason"]) == ("elevated", "user:lena", "wave")
    assert json.loads(run(environment, "threat", "show", "--json").stdout)["level"] == "normal"
    assert run(environment, "threat", "set", "severe", "--until", "soon", "--reason", "x", *LENA).exit_code == WRONG_USE


def test_an_incident_goes_from_open_to_closed(environment: dict[str, str]) -> None:
    opened = run(
        environment, "incidents", "open", "device_loss", "laptop lost", "--occurred", "5h", "--json", *LENA
    )  # fmt: skip
    incident = json.loads(opened.stdout)
    early = run(environment, "incidents", "close", incident["id"], *LENA)
    said = ("--no-notification", "--audited", "now", "--note", "encrypted", "--affected", "device:L-17")
    run(environment, "incidents", "update", incident["id"], *said, "--actor", "user:jo")
    closed = run(environment, "incidents", "close", incident["id"], "--note", "reviewed", *LENA)

    assert incident["reported_late"] is True
    assert early.exit_code == NOT_ALL_WELL
    assert "still owes: decision, audit" in early.stderr
    assert closed.exit_code == 0
    shown = json.loads(run(environment, "incidents", "show", incident["id"], "--json").stdout)
    assert shown["notification"]["decided_by"] == "user:jo"
    assert [one.get("note") for one in shown["history"]] == [None, "encrypted", "reviewed"]
    assert listed(environment, "incidents", "list") == []
    assert len(listed(environment, "incidents", "list", "--closed")) == 1
    assert "laptop lost" in run(environment, "incidents", "list", "--closed").stdout
    assert "device:L-17" in run(environment, "incidents", "show", incident["id"]).stdout


def test_a_deployment_has_its_own_due_dates(environment: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "terms.toml"
    packaged = Path(terms.__file__).with_name("terms.toml").read_text()
    own.write_text(packaged.replace("device_loss_report_hours = 4", "device_loss_report_hours = 8"))
    said = ("device_loss", "laptop lost", "--occurred", "5h", "--json", *LENA)

    opened = json.loads(run(environment, "incidents", "open", *said, "--terms", str(own)).stdout)
    own.write_text(packaged.replace("audit_days = 30", ""))
    refused = run(environment, "incidents", "open", *said, "--terms", str(own))

    assert "reported_late" not in opened
    assert refused.exit_code == WRONG_USE
    assert "incident.audit_days: missing" in refused.stderr


READS = (
    ("threat", "show"),
    ("tokens", "list"),
    ("incidents", "list", "--closed"),
    ("incidents", "show", "INCIDENT"),
)


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_who_only_reads_says_where_the_store_is_and_whom_to_believe_and_nothing_else(
    environment: dict[str, str], stored: KeyStore, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    del stored
    run(environment, "threat", "set", "severe", "--until", "7d", "--reason", "wave", *LENA)
    opened = run(environment, "incidents", "open", "other", "laptop lost", "--json", *LENA)
    ident = json.loads(opened.stdout)["id"]
    words = [ident if word == "INCIDENT" else word for word in command]
    before = run(environment, *words)
    needed = {name: environment[name] for name in ("KEYTRAIL_CORE_STORE_URL", "KEYTRAIL_CORE_REGISTRY_FILE")}
    for name in environment:
        monkeypatch.delenv(name, raising=False)

    alone = run(needed, *words)

    assert (alone.exit_code, alone.stdout, alone.stderr) == (0, before.stdout, "")
    assert any(word in alone.stdout for word in ("severe", "t-88/crm", "laptop lost"))
    for missing in needed:
        said = run({**needed, missing: ""}, *words)
        assert (said.exit_code, said.stdout) == (WRONG_USE, "")
        assert said.stderr == f"keytrail: {missing}: Field required\n"
    odd = run({**needed, "KEYTRAIL_CORE_REGISTRY_FILE": "/proc/no/such/file"}, *words)
    assert odd.exit_code == WRONG_USE
    assert "Traceback" not in odd.output


def test_who_acts_is_asked_for_the_rest(environment: dict[str, str]) -> None:
    del environment["KEYTRAIL_CORE_SIGNER_FILE"]
    result = run(environment, "threat", "set", "normal", "--reason", "over", *LENA)

    assert result.exit_code == WRONG_USE
    assert "KEYTRAIL_CORE_SIGNER_FILE: Field required" in result.stderr


def test_what_somebody_else_wrote_is_not_read_without_a_signer_either(
    environment: dict[str, str], tmp_path: Path
) -> None:
    run(environment, "threat", "set", "severe", "--until", "7d", "--reason", "wave", *LENA)
    opened = run(environment, "incidents", "open", "other", "laptop lost", "--json", *LENA)
    make_registry(tmp_path / "another", [SERVICE], now_ms=0, days=50_000)
    other = {**environment, "KEYTRAIL_CORE_REGISTRY_FILE": str(tmp_path / "another" / "sources.json")}
    level, incident = run(other, "threat", "show"), run(other, "incidents", "list", "--json")

    assert (level.exit_code, level.stdout) == (UNREACHABLE, "")
    assert "not registered for keys at that time" in level.stderr
    assert json.loads(incident.stdout) == []
    assert f"{json.loads(opened.stdout)['id']} is not shown" in incident.stderr


def test_what_is_not_there_is_told_in_a_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    unknown = run(environment, "incidents", "show", "inc-0000000000000000")
    unset = run({**environment, "KEYTRAIL_CORE_STORE_URL": ""}, "threat", "show")
    away = run({**environment, "KEYTRAIL_CORE_STORE_URL": f"sqlite:///{tmp_path}/no/keys.sqlite"}, "tokens", "list")

    assert unknown.exit_code == NOT_ALL_WELL
    assert "there is no incident" in unknown.stderr
    assert unset.exit_code == WRONG_USE
    assert "KEYTRAIL_CORE_STORE_URL" in unset.stderr
    assert away.exit_code == UNREACHABLE
    for result in (unknown, unset, away):
        assert "Traceback" not in result.output
