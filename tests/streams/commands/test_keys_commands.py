"""`keytrail keys` and `keytrail keks`, as people type them, against the local vault."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine

from alerts.thresholds import Limits
from cryptocore import settings
from cryptocore.batch import Seal
from cryptocore.core import CryptoCore
from cryptocore.envelope import Owner
from cryptocore.events import Operation, Outcome
from cryptocore.life import certifying, destroying, destruction_marks
from cryptocore.life.destruction import read_certificate
from cryptocore.store.key_store import database_ms
from streams.commands.terminal import NOT_ALL_WELL, SOME_REJECTED, UNREACHABLE, WRONG_USE
from streams.index.embedded import EmbeddedIndex
from streams.messages import KEY_EVENTS
from streams.pipeline import steps
from streams.running.memory import MemoryShell
from tests.streams.commands.localvault import Office, another_signer, make_office, vault_in_a_thread

LENA = ("--actor", "user:lena")
DAY_MS = 24 * 3_600_000
CRM = ("--tenant", "t-88", "--integration", "crm")


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """An empty store, and two configured KEKs of which the old one is made; new keys are wrapped under it."""
    with vault_in_a_thread() as server:
        made = make_office(tmp_path, server)
        monkeypatch.setattr(CryptoCore, "from_env", lambda **_: made.core())
        monkeypatch.setattr(settings, "build_transport", lambda *_, **__: made.transport)
        done(made, "keks", "create", "old-kek", *LENA)
        yield made


def done(office: Office, *arguments: str) -> str:
    result = office.run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(office: Office, *arguments: str) -> Any:
    return json.loads(done(office, *arguments, "--json"))


def refused(office: Office, *arguments: str, code: int = NOT_ALL_WELL) -> str:
    result = office.run(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def make_key(office: Office, *owner: str) -> str:
    [made] = told(office, "keys", "create", *(owner or CRM), "--activate", *LENA)
    return str(made["key"])


def approvals(office: Office, name: str, *what: str) -> list[str]:
    """Let both approve; gives the options."""
    files = []
    for person in ("ada", "ben"):
        out = office.folder / f"{name}-{person}"
        done(office, "keys", "approve", *what, "--signer-file", str(office.folder / f"{person}.key"), "--out", str(out),
             "--yes")  # fmt: skip
        files += ["--approvals", str(out)]
    return files


def states(office: Office) -> list[tuple[int, str]]:
    return [(one["version"], one["state"]) for one in told(office, "keys", "list")]


def test_a_key_is_made_rotated_suspended_resumed_and_revoked_and_the_timeline_says_by_whom(office: Office) -> None:
    key = make_key(office)
    done(office, "keys", "suspend", key, "--note", "odd", *LENA)
    done(office, "keys", "resume", key, "--actor", "user:jo")
    done(office, "keys", "rotate", key, *LENA)
    done(office, "keys", "archive", key, "--version", "1", "--yes", *LENA)
    assert "say --yes" in refused(office, "keys", "revoke", key, *LENA, code=WRONG_USE)
    done(office, "keys", "revoke", key, "--yes", *LENA)

    assert states(office) == [(1, "revoked"), (2, "revoked")]
    moments = told(office, "keys", "timeline", key)
    assert [(one["version"], one["act"]) for one in moments] == [
        (1, "create"), (1, "activate"), (1, "suspend"), (1, "resume"), (1, "rotate"),
        (2, "create"), (2, "activate"), (1, "archive"), (1, "revoke"), (2, "revoke"),
    ]  # fmt: skip
    assert (moments[2]["note"], moments[3]["actor"]) == ("odd", "user:jo")
    assert [event.actor for event in office.events.only(Operation.RESUME)] == ["user:jo"]
    shown = done(office, "keys", "show", key)
    assert "t-88/crm" in shown
    assert "waits for: reencrypt" in shown
    assert "user:jo" in done(office, "keys", "timeline", key)
    assert "compromise_suspected" in done(office, "keys", "timeline", key)


def test_a_rotation_is_seen_to_its_end(office: Office) -> None:
    key = make_key(office)
    done(office, "keys", "rotate", key, *LENA)
    [open_one] = told(office, "keys", "rotation", "list")
    assert (open_one["key"], open_one["version"], open_one["waits_for"]) == (key, 1, "reencrypt")
    assert told(office, "keys", "rotation", "list", "--late") == []
    retire = ("keys", "rotation", "retire", open_one["id"], "--yes", *LENA)
    assert "rows are left" in refused(office, *retire)
    assert "waits for: retire" in done(office, "keys", "rotation", "report", open_one["id"], "--rows-left", "0", *LENA)
    done(office, *retire)

    assert states(office) == [(1, "archived"), (2, "active")]
    assert told(office, "keys", "destroy", "request", *approvals(office, "old", f"{key}/1"), *LENA)["step"] == (
        "cooling off, then finish"
    )


def test_a_compromise_says_what_was_done_and_whom_to_tell(office: Office) -> None:
    key = make_key(office)
    found = told(office, "keys", "compromise", key, "seen in a log", "--yes", *LENA)

    assert found["rotated"]["version"] == 2
    assert [one["version"] for one in found["revoked"]] == [1]
    assert "tenant:t-88" in found["notify"]
    assert [one["id"] for one in told(office, "incidents", "list")] == [found["incident"]]
    assert "not established" in done(office, "keys", "blast-radius", key)


def test_a_key_is_destroyed_by_two_people_and_certified(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(office)
    done(office, "keys", "archive", key, "--yes", *LENA)
    both = approvals(office, "first", key)
    assert "2 are needed" in refused(office, "keys", "destroy", "request", *both[:2], *LENA)
    called_off = told(office, "keys", "destroy", "request", *both, *LENA)
    done(office, "keys", "destroy", "restore", called_off["id"], *LENA)
    assert "used before" in refused(office, "keys", "destroy", "request", *both, *LENA)
    again = approvals(office, "second", f"{key}/1")
    asked = told(office, "keys", "destroy", "request", *again, "--cooling-off", "1", *LENA)
    assert "cooling-off ends" in refused(office, "keys", "destroy", "finish", asked["id"], "--yes", *LENA)
    assert [one["id"] for one in told(office, "keys", "destroy", "list")] == [asked["id"]]

    for module in (destroying, destruction_marks, certifying):
        monkeypatch.setattr(module, "database_ms", _two_days_on)
    finished = told(office, "keys", "destroy", "finish", asked["id"], "--yes", *LENA)
    assert finished["overwritten_at"] is not None
    assert "an instance may use" in refused(office, *_certificate(office, asked["id"]), code=UNREACHABLE)
    monkeypatch.setattr(certifying, "database_ms", _three_days_on)
    says = told(office, *_certificate(office, asked["id"]))
    certificate = read_certificate((office.folder / "certificate").read_bytes(), office.registry)
    assert says["unrecoverable_after"] == certificate.unrecoverable_after != "not established"
    assert states(office) == [(1, "destroyed")]


def test_a_destruction_that_is_not_believed_is_named_beside_the_good_ones(office: Office) -> None:
    key = make_key(office)
    done(office, "keys", "archive", key, "--yes", *LENA)
    asked = told(office, "keys", "destroy", "request", *approvals(office, "first", key), *LENA)
    with closing(sqlite3.connect(office.folder / "keys.sqlite")) as connection, connection:
        connection.execute(
            "INSERT INTO destruction (destruction_id, request, signature, signer_id, due_ms)"
            " SELECT zeroblob(16), request, signature, signer_id, 0 FROM destruction"
        )

    listed = office.run("keys", "destroy", "list")

    assert listed.exit_code == SOME_REJECTED
    assert asked["id"] in listed.stdout
    assert f"{'0' * 32}: " in listed.stderr
    assert "another destruction's" in listed.stderr


def _two_days_on(connection: Connection) -> int:
    return database_ms(connection) + 2 * DAY_MS


def _three_days_on(connection: Connection) -> int:
    return database_ms(connection) + 3 * DAY_MS


def _certificate(office: Office, ident: str) -> tuple[str, ...]:
    return ("keys", "destroy", "certificate", ident, "--out", str(office.folder / "certificate"))


def test_a_kek_is_renewed_replaced_and_purged(office: Office) -> None:
    make_key(office)
    first = told(office, "keks", "show", "old-kek")["current"]
    done(office, "keks", "rotate", "old-kek", "--note", "yearly", *LENA)
    status = told(office, "keks", "rewrap-status", "old-kek")
    assert (status["done"], status["waiting"]) == (0, {first: 1})
    said = refused(office, "keks", "disable", "old-kek", "--version", first, *LENA)
    assert "1 key version is under it" in said
    assert "1 rewrapped, 0 needed nothing, 0 failed" in done(office, "keys", "rewrap", *LENA)
    done(office, "keks", "disable", "old-kek", "--version", first, *LENA)
    assert "disabled" in done(office, "keks", "show", "old-kek")
    done(office, "keks", "enable", "old-kek", "--version", first, *LENA)

    done(office, "keks", "create", "new-kek", *LENA)
    office.for_new_keys("new-kek", "old-kek")
    assert "1 key version is under it" in refused(office, "keks", "delete", "old-kek", "--yes", *LENA)
    done(office, "keys", "rewrap", "old-kek", "--to", "new-kek", *LENA)
    assert "say --yes" in refused(office, "keks", "delete", "old-kek", *LENA, code=WRONG_USE)
    done(office, "keks", "delete", "old-kek", "--yes", *LENA)
    assert "--statement FILE" in refused(office, "keks", "purge", "old-kek", "--yes", *LENA, code=WRONG_USE)
    statement = office.folder / "purge.json"
    done(office, "keks", "purge", "old-kek", "--statement", str(statement), *LENA)
    both = approvals(office, "purge", "--statement", str(statement))
    done(office, "keks", "purge", "old-kek", *both, "--yes", *LENA)

    assert [(one["kek"], one["state"]) for one in told(office, "keks", "list")] == [
        ("new-kek", "present"),
        ("old-kek", "absent"),
    ]
    ended = [event for event in office.events.only(Operation.DESTROY) if event.outcome is Outcome.SUCCEEDED]
    assert [event.actor for event in ended] == ["user:lena", "user:lena"]


def test_a_certificate_finds_by_itself_when_the_keks_were_purged_and_takes_no_other_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(office)
    first = told(office, "keks", "show", "old-kek")["current"]
    done(office, "keks", "rotate", "old-kek", *LENA)
    done(office, "keys", "rewrap", *LENA)
    second = told(office, "keks", "show", "old-kek")["current"]
    done(office, "keks", "create", "new-kek", *LENA)
    office.for_new_keys("new-kek", "old-kek")
    done(office, "keys", "archive", key, "--yes", *LENA)
    asked = told(office, "keys", "destroy", "request", *approvals(office, "end", key), *LENA)
    for module in (destroying, destruction_marks, certifying):
        monkeypatch.setattr(module, "database_ms", _eight_days_on)
    done(office, "keys", "destroy", "finish", asked["id"], "--yes", *LENA)
    monkeypatch.setattr(certifying, "database_ms", _nine_days_on)
    certificate = ("keys", "destroy", "certificate", asked["id"], "--out")
    declared = office.environment.pop("KEYTRAIL_COPIES_FILE")
    early = told(office, *certificate, str(office.folder / "early"))
    purged = purge_old_kek(office, "--copies", declared)
    out = office.folder / "certificate"
    says = told(office, *certificate, str(out))

    assert (early["purged"], early["unrecoverable_after"]) == (dict.fromkeys(says["purged"]), "not established")
    assert set(says["purged"]) == {f"old-kek/{first}", f"old-kek/{second}"}
    assert None not in says["purged"].values()
    assert says["unrecoverable_after"] == says["overwritten_at"], "the purge was before the DEK was overwritten"
    [item] = read_certificate(out.read_bytes(), office.registry).items
    assert {f"{kek.alias}/{kek.version}": kek.purged_at for kek in item.keks} == says["purged"]
    gone = {one["version"]: one["state"] for one in purged["versions"]}
    assert gone == {version: f"purged, gone by {says['purged'][f'old-kek/{version}']}" for version in (first, second)}
    assert told(office, "keks", "list")[1]["state"] == "absent"
    other = str(office.folder / "other")
    for time, why in (("2026-01-02", "its vault had it at"), (says["overwritten_at"], "it was gone by")):
        said = refused(office, *certificate, other, "--purged", f"old-kek/{first}={time}")
        assert f"old-kek/{first} was not purged at" in said
        assert why in said
    agreeing = f"old-kek/{first}={says['purged'][f'old-kek/{first}']}"
    assert told(office, *certificate, other, "--purged", agreeing)["purged"] == says["purged"]
    assert "gone by" in done(office, *certificate, str(office.folder / "shown"))


def purge_old_kek(office: Office, *copies: str) -> Any:
    """Delete and purge the old KEK, as two people approve."""
    done(office, "keks", "delete", "old-kek", *copies, "--yes", *LENA)
    statement = office.folder / "purge.json"
    done(office, "keks", "purge", "old-kek", "--statement", str(statement), *LENA)
    both = approvals(office, "purge", "--statement", str(statement))
    return told(office, "keks", "purge", "old-kek", *copies, *both, "--yes", *LENA)


def _eight_days_on(connection: Connection) -> int:
    return database_ms(connection) + 8 * DAY_MS


def _nine_days_on(connection: Connection) -> int:
    return database_ms(connection) + 9 * DAY_MS


def test_a_loss_is_written_down_approved_and_only_then_accepted(office: Office) -> None:
    make_key(office)
    office.for_new_keys("new-kek", "old-kek")
    loss = office.folder / "loss.json"
    deletion = ("keks", "delete", "old-kek", "--accept-loss", str(loss), "--yes", *LENA)
    first = office.run(*deletion)
    assert first.exit_code == NOT_ALL_WELL
    assert "two people approve it" in first.stdout
    assert [one["owner"] for one in json.loads(loss.read_bytes())["owners"]] == ["t-88/crm"]
    assert "2 are needed" in refused(office, *deletion)
    both = approvals(office, "loss", "--statement", str(loss))
    found = told(office, *deletion, *both)

    assert found["state"] == "deleted"
    assert found["purge_due"] is not None
    assert "1 owner," in done(office, "keks", "blast-radius", "old-kek")
    done(office, "keks", "recover", "old-kek", *LENA)


def test_records_are_signed_anew_under_another_signer(office: Office, tmp_path: Path) -> None:
    key = make_key(office)
    assert "compare with what?" in refused(office, "keys", "resign", *LENA, code=WRONG_USE)
    another_signer(office)
    looked = told(office, "keys", "resign", "--without-trail", *LENA)
    assert (looked["applied"], looked["signed"]) == (False, [f"{key}/1"])
    before = told(office, "keys", "timeline", key)
    done(office, "keys", "resign", "--without-trail", "--apply", *LENA)
    after = told(office, "keys", "timeline", key)

    assert after[:-1] == before
    assert after[-1]["signer"] != before[-1]["signer"]
    assert (after[-1]["state"], after[-1]["act"]) == ("active", "rewrap")
    assert told(office, "keys", "resign", "--without-trail", "--apply", *LENA)["signed"] == []
    gone = ("keys", "resign", "--index", str(tmp_path / "no.sqlite"), *LENA)
    assert "no such file" in refused(office, *gone, code=WRONG_USE)


def test_the_monitors_index_says_who_used_a_key_and_bears_out_its_records(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(office)
    for name, value in office.environment.items():
        monkeypatch.setenv(name, value)
    asyncio.run(_use(office))
    index = ("--index", str(tmp_path / "index.sqlite"))
    asyncio.run(_monitor(office, tmp_path / "index.sqlite"))

    moments = told(office, "keys", "timeline", key, *index)
    assert [(one["act"], one["actor"]) for one in moments if "wrap" not in one["act"]] == [
        ("create", "user:lena"),
        ("activate", "user:lena"),
        ("encrypt", "job:sync"),
    ]
    assert "seen no" not in done(office, "keys", "blast-radius", key, *index)
    uses = told(office, "keks", "blast-radius", "old-kek", *index)["uses"]
    assert {(use["service"], use["operation"]) for use in uses} == {("key-care", "wrap"), ("key-care", "unwrap")}
    another_signer(office)
    signed = told(office, "keys", "resign", "--apply", *index, *LENA)
    assert (signed["signed"], signed["refused"]) == ([f"{key}/1"], {})
    done(office, "keys", "suspend", key, *LENA)
    another_signer(office)
    late = office.run("keys", "resign", "--apply", *index, *LENA)
    assert late.exit_code == NOT_ALL_WELL
    assert "the trail knows revision 2, the store shows 4" in late.stdout


async def _use(office: Office) -> None:
    core = office.core()
    await core.encrypt(b"x", owner=Owner.tenant("t-88", "crm"), record="r", actor="job:sync", purpose="sync")
    await core.close()


async def _monitor(office: Office, file: Path) -> None:
    """Let a monitor take what the service sent."""
    index = EmbeddedIndex(file)
    await index.ensure()
    shell = MemoryShell(steps=steps(office.registry, Limits()), partitions={KEY_EVENTS: 8}, index=index)
    for partition, batch in office.transport.batches:
        at_ms = Seal.decode(batch.seal).sealed_at_ms
        headers = tuple(batch.headers())
        shell.append(KEY_EVENTS, key=None, value=batch.value, headers=headers, partition=partition, append_ms=at_ms)
    await shell.run()
    await shell.close()
    await index.close()


_IMPOSSIBLE: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("keys", "create", *LENA), WRONG_USE, "whose key?"),
    (("keys", "create", *CRM, "--kek", "nope", *LENA), WRONG_USE, "no KEK nope is configured"),
    (("keys", "create", *CRM, "--actor", "service:x"), WRONG_USE, "--actor service:x: a person acts here"),
    (("keys", "show", "0" * 32), NOT_ALL_WELL, "there is no key"),
    (("keys", "show", "xyz"), WRONG_USE, "32 hex digits"),
    (("keys", "timeline", "0" * 32), NOT_ALL_WELL, "there is no key"),
    (("keys", "rewrap", "nope", *LENA), WRONG_USE, "no KEK nope is configured"),
    (("keks", "disable", "old-kek", "--version", "v", *LENA), NOT_ALL_WELL, "version v of the KEK old-kek is not"),
    (("keks", "recover", "old-kek", *LENA), NOT_ALL_WELL, "is in its vault, and not deleted"),
    (("keks", "delete", "old-kek", "--yes", *LENA), NOT_ALL_WELL, "configure another one"),
    (("keks", "show", "nope"), WRONG_USE, "there are old-kek, new-kek"),
    (("keys", "create", *CRM, "--kek", "new-kek", *LENA), UNREACHABLE, "vault_not_found"),
    (("keys", "destroy", "finish", "0" * 32, "--yes", *LENA), NOT_ALL_WELL, "no such destruction"),
)


def test_what_cannot_be_done_is_one_sentence(office: Office) -> None:
    for command, code, says in _IMPOSSIBLE:
        assert says in refused(office, *command, code=code)


def test_nobody_approves_but_people_who_may_and_nothing_but_what_they_were_shown(office: Office) -> None:
    key = make_key(office)
    out = str(office.folder / "out")
    ada = ("--signer-file", str(office.folder / "ada.key"), "--out", out, "--yes")
    service = ("--signer-file", str(office.folder / "key-care.key"), "--out", out, "--yes")
    assert "no version of it is there" in refused(office, "keys", "approve", key, *ada, code=WRONG_USE)
    done(office, "keys", "archive", key, "--yes", *LENA)
    assert "approve nothing" in refused(office, "keys", "approve", key, *service, code=WRONG_USE)
    twice = office.folder / "twice.json"
    twice.write_text('{"type": "kek-loss", "type": "kek-purge", "deployment": "00"}')
    assert "is no statement" in refused(office, "keys", "approve", "--statement", str(twice), *ada, code=WRONG_USE)
    assert not (office.folder / "out").exists()


def test_a_record_that_is_not_to_be_believed_is_listed_as_such(office: Office) -> None:
    make_key(office)
    with create_engine(office.environment["KEYTRAIL_CORE_STORE_URL"]).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER key_version_step")
        connection.exec_driver_sql("UPDATE key_version SET state = 'revoked'")

    result = office.run("keys", "list", "--json")

    assert result.exit_code == NOT_ALL_WELL
    assert "not to be believed" in json.loads(result.stdout)[0]["problem"]


def test_what_is_late_says_when_a_vault_did_not_answer(office: Office) -> None:
    assert done(office, "keys", "overdue") == "Nothing is late.\n"
    assert told(office, "keys", "overdue", "--offline") == []
