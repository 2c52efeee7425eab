"""`keytrail demo` and `keytrail replay` as their users run them: the real command, files out, contracts kept."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEYTRAIL = str(Path(sys.executable).with_name("keytrail"))
FILES = {
    ".keytrail-files",
    "alerts.ndjson",
    "batches.ndjson",
    "index.sqlite",
    "kek-use.ndjson",
    "report.html",
    "sources.json",
    "summary.json",
    "vault-access.ndjson",
    "vault-logs",
}
FEW = 1_500
WEDNESDAY_MS = 1_794_960_000_000  # of the simulated week, 00:00 UTC


def keytrail(*arguments: str | Path | int, cwd: Path) -> subprocess.CompletedProcess[str]:
    # A proxy that would swallow everything: the demo must not ask it.
    env = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "COLUMNS": "200"}
    command = [KEYTRAIL, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=240)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(folder: Path) -> list[tuple[Any, ...]]:
    """What must be the same for the same seed: rule, severity, owner, principal, count, first and last event time."""
    names = ("rule_id", "severity", "tenant", "principal", "count", "first_at", "last_at")
    return sorted(tuple(alert[name] for name in names) for alert in lines(folder / "alerts.ndjson"))


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the demo, for all tests that only read."""
    folder = tmp_path_factory.mktemp("demo")
    run = keytrail("demo", "--out", "out", "--events", FEW, cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "out"


def test_the_demo_writes_what_it_promises_and_nothing_beside_it(week: Path) -> None:
    assert {path.name for path in week.iterdir()} == FILES
    assert {path.name for path in week.parent.iterdir()} == {"out"}


def test_every_event_is_indexed_and_every_planted_act_raises_one_alert(week: Path) -> None:
    result = summary(week)

    assert result["emitted"] == result["indexed"] > result["intents"] > 0
    sent = re.search(r"<b>([\d,]+)</b> sent", (week / "report.html").read_text(encoding="utf-8"))
    assert sent is not None
    assert int(sent[1].replace(",", "")) == result["emitted"] - result["intents"]
    assert result["kek_use"]["unaccounted"] == 14
    assert result["kek_use"]["unlogged"] == result["kek_use"]["pending"] == result["rejected"] == 0
    assert result["alerts"] == {
        "crypto_failures": 1,
        "kek_administration": 1,
        "revoked_key_decrypt": 1,
        "unaccounted_kek_access": 1,
    }


def test_a_copied_call_id_does_not_hide_the_thief(week: Path) -> None:
    claimed = {use["correlation_id"] for use in lines(week / "kek-use.ndjson") if use["status"] == "matched"}
    stolen = [use for use in lines(week / "kek-use.ndjson") if use["status"] == "unaccounted"]

    assert sum(use["correlation_id"] in claimed for use in stolen) == 1
    assert {use["reason"] for use in stolen} == {"foreign_principal"}


def test_the_report_says_that_it_is_simulated_and_asks_nothing_from_outside(week: Path) -> None:
    page = (week / "report.html").read_text()

    assert "Simulated data" in page
    assert 'src="http' not in page
    assert "url(" not in page


@pytest.mark.parametrize("events", [1, 5_000])
def test_emitted_equals_indexed_for_every_size(tmp_path: Path, events: int) -> None:
    run = keytrail("demo", "--out", "out", "--events", events, cwd=tmp_path)

    result = summary(tmp_path / "out")
    assert run.returncode == 0
    assert result["emitted"] == result["indexed"]


def test_the_same_seed_tells_the_same_story_and_another_seed_another(week: Path, tmp_path: Path) -> None:
    keytrail("demo", "--out", "same", "--events", FEW, cwd=tmp_path)
    keytrail("demo", "--out", "other", "--events", FEW, "--seed", 48, cwd=tmp_path)

    assert told(tmp_path / "same") == told(week)
    assert told(tmp_path / "other") != told(week)


def replay_of(week: Path, out: Path, **instead: Path) -> subprocess.CompletedProcess[str]:
    files = {"vault-logs": week / "vault-logs", "batches": week / "batches.ndjson", "sources": week / "sources.json"}
    files |= {name.replace("_", "-"): path for name, path in instead.items()}
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    return keytrail("replay", *options, "--out", out, cwd=out.parent)


def test_replaying_the_demos_output_gives_the_demos_alerts_and_verdicts(week: Path, tmp_path: Path) -> None:
    run = replay_of(week, tmp_path / "again")

    verdict = ("id", "status", "strength", "reason", "event_id")
    assert run.returncode == 0, run.stdout + run.stderr
    assert told(tmp_path / "again") == told(week)
    assert [[use.get(name) for name in verdict] for use in lines(tmp_path / "again" / "kek-use.ndjson")] == [
        [use.get(name) for name in verdict] for use in lines(week / "kek-use.ndjson")
    ]
    assert summary(tmp_path / "again")["emitted"] == summary(week)["emitted"]


def test_a_replay_leaves_the_same_files_and_replaying_those_gives_the_same_again(week: Path, tmp_path: Path) -> None:
    shutil.copytree(week / "vault-logs", tmp_path / "logs")
    (tmp_path / "logs" / "broken.json").write_text('{"records": [{"time": 3}, "nonsense"')
    replay_of(week, tmp_path / "first", vault_logs=tmp_path / "logs")

    run = replay_of(tmp_path / "first", tmp_path / "second")

    compared = ("alerts.ndjson", "kek-use.ndjson", "vault-access.ndjson", "summary.json", "batches.ndjson")
    assert run.returncode == 3
    assert {path.name for path in (tmp_path / "first").iterdir()} == FILES | {"rejected.ndjson"}
    assert [(tmp_path / "second" / name).read_bytes() for name in compared] == [
        (tmp_path / "first" / name).read_bytes() for name in compared
    ]
    assert [refused["reason"] for refused in lines(tmp_path / "second" / "rejected.ndjson")] == [
        refused["reason"] for refused in lines(tmp_path / "first" / "rejected.ndjson")
    ]


def test_replaying_a_folder_into_itself_is_refused_and_nothing_of_it_is_lost(week: Path, tmp_path: Path) -> None:
    shutil.copytree(week, tmp_path / "week")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "week").rglob("*")) if path.is_file()}

    itself = replay_of(tmp_path / "week", tmp_path / "week")
    inside = keytrail("replay", "--vault-logs", "week", "--out", "week/more", cwd=tmp_path)

    assert (itself.returncode, inside.returncode) == (2, 2)
    assert "name another folder for the results" in itself.stderr.replace("\n", " ")
    assert {path: path.read_bytes() for path in sorted((tmp_path / "week").rglob("*")) if path.is_file()} == before


def test_old_results_do_not_mix_with_new_ones(week: Path, tmp_path: Path) -> None:
    shutil.copytree(week, tmp_path / "out")

    run = keytrail("replay", "--vault-logs", week / "vault-logs", "--out", "out", cwd=tmp_path)

    gone = {"batches.ndjson", "sources.json"}
    assert run.returncode == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == (FILES - gone) | {"rejected.ndjson"}


def test_a_registry_of_somebody_is_not_overwritten_by_the_demo(tmp_path: Path) -> None:
    (tmp_path / "sources.json").write_text("mine")

    run = keytrail("demo", "--out", ".", "--events", 1, cwd=tmp_path)

    assert run.returncode == 2
    assert "sources.json is in the way" in run.stderr
    assert (tmp_path / "sources.json").read_text() == "mine"


def test_who_is_allowed_on_replay_does_not_alert_and_is_counted(week: Path, tmp_path: Path) -> None:
    thief = next(use for use in lines(week / "kek-use.ndjson") if use["status"] == "unaccounted")
    fields = {"id": "known", "principal": thief["principal_id"], "vault": thief["vault"], "key": thief["name"]}
    fields |= {"reason": "restores a backup", "owner": "platform"}
    entry = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    entry += f'operations = ["{thief["operation"]}"]\napproved_by = ["lena", "tom"]\n'
    (tmp_path / "allowed.toml").write_text(f"[[allowed]]\n{entry}from = 2026-11-01\nuntil = 2026-12-01\n")

    run = replay_of(week, tmp_path / "out", allowed=tmp_path / "allowed.toml")

    counted = summary(tmp_path / "out")["kek_use"]
    assert run.returncode == 0, run.stderr
    assert counted["allowed"] == summary(week)["kek_use"]["unaccounted"] - counted["unaccounted"] > 0
    assert (tmp_path / "out" / "allowed.toml").read_bytes() == (tmp_path / "allowed.toml").read_bytes()


@pytest.mark.parametrize(
    ("sources", "allowed", "said"),
    [("summary.json", None, "no registry of signers"), ("sources.json", "summary.json", "not TOML")],
)
def test_a_reviewed_file_that_cannot_be_used_ends_a_replay(
    week: Path, tmp_path: Path, sources: str, allowed: str | None, said: str
) -> None:
    more = {} if allowed is None else {"allowed": week / allowed}

    run = replay_of(week, tmp_path / "out", sources=week / sources, **more)

    assert run.returncode == 2
    assert said in run.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == set()


def test_a_line_of_an_access_says_what_a_diagnostic_setting_does_to_the_audit_log(tmp_path: Path) -> None:
    resource = "/subscriptions/1/resourcegroups/r/providers/microsoft.keyvault/vaults/kv-prod"
    logs = [{"category": "AuditEvent", "enabled": False}]
    record = {
        "time": "2026-11-16T02:41:07.1234567Z",
        "resourceId": f"{resource}/providers/microsoft.insights/diagnosticsettings/all",
        "operationName": "microsoft.insights/diagnosticSettings/write",
        "category": "Administrative",
        "resultType": "Success",
        "properties": {"requestbody": {"properties": {"logs": logs}}},
    }
    (tmp_path / "logs.json").write_text(json.dumps(record))

    run = keytrail("replay", "--vault-logs", "logs.json", "--out", "out", cwd=tmp_path)

    (line,) = lines(tmp_path / "out" / "vault-access.ndjson")
    assert run.returncode == 0, run.stdout + run.stderr
    assert line["audit_log"] is False
    assert summary(tmp_path / "out")["alerts"] == {"vault_logging_cut": 1}


def test_without_batches_nothing_is_said_to_be_unaccounted(week: Path, tmp_path: Path) -> None:
    run = keytrail("replay", "--vault-logs", week / "vault-logs", "--out", "bare", cwd=tmp_path)

    result = summary(tmp_path / "bare")
    assert run.returncode == 0
    assert "unaccounted_kek_access" not in result["alerts"]
    assert result["kek_use"]["not_evaluated"] == sum(summary(week)["kek_use"].values())
    assert "--batches" in run.stdout


def test_batches_for_part_of_the_time_judge_that_part_only(week: Path, tmp_path: Path) -> None:
    early = [line for line in lines(week / "batches.ndjson") if line["append_ms"] < WEDNESDAY_MS]
    (tmp_path / "some.ndjson").write_text("".join(json.dumps(line) + "\n" for line in early))

    run = replay_of(week, tmp_path / "part", batches=tmp_path / "some.ndjson")

    counted = summary(tmp_path / "part")["kek_use"]
    assert run.returncode == 0
    assert counted["matched"] > 0
    assert counted["not_evaluated"] > 0


def test_a_batch_that_was_tampered_with_is_rejected_by_file_and_line(week: Path, tmp_path: Path) -> None:
    batches = lines(week / "batches.ndjson")
    batches[5]["value"] = batches[6]["value"]
    (tmp_path / "bad.ndjson").write_text("".join(json.dumps(line) + "\n" for line in batches))

    run = replay_of(week, tmp_path / "out", batches=tmp_path / "bad.ndjson")

    (rejected,) = lines(tmp_path / "out" / "rejected.ndjson")
    assert run.returncode == 3
    assert (Path(rejected["file"]).name, rejected["line"]) == ("bad.ndjson", 6)
    assert "seal_invalid" in rejected["reason"]
    assert summary(tmp_path / "out")["alerts"]["seal_invalid"] == 1


def test_a_batch_taken_away_is_found_missing(week: Path, tmp_path: Path) -> None:
    batches = lines(week / "batches.ndjson")
    counts = [len(batch["value"]) for batch in batches]
    del batches[counts.index(max(counts))]
    (tmp_path / "short.ndjson").write_text("".join(json.dumps(line) + "\n" for line in batches))

    replay_of(week, tmp_path / "out", batches=tmp_path / "short.ndjson")

    assert "audit_gap" in summary(tmp_path / "out")["alerts"]


def test_a_batch_that_comes_twice_is_counted_and_changes_nothing(week: Path, tmp_path: Path) -> None:
    batches = (week / "batches.ndjson").read_text().splitlines(keepends=True)
    (tmp_path / "twice.ndjson").write_text("".join(line * 2 for line in batches))

    run = replay_of(week, tmp_path / "out", batches=tmp_path / "twice.ndjson")

    assert run.returncode == 0
    assert told(tmp_path / "out") == told(week)
    assert summary(tmp_path / "out")["duplicates"]["batches"] == len(batches)
    assert summary(tmp_path / "out")["indexed"] == summary(week)["indexed"]


def test_records_that_cannot_be_read_are_named_and_the_rest_is_judged(week: Path, tmp_path: Path) -> None:
    shutil.copytree(week / "vault-logs", tmp_path / "logs")
    (tmp_path / "logs" / "broken.json").write_text('{"records": [{"time": 3}, "nonsense"')
    (tmp_path / "logs" / "alien.json").write_text('{"time":"2026-11-16T00:00:00.0000000Z","operationName":"KeyGet"}')

    run = keytrail("replay", "--vault-logs", "logs", "--out", "out", cwd=tmp_path)

    rejected = lines(tmp_path / "out" / "rejected.ndjson")
    assert run.returncode == 3
    assert {Path(each["file"]).name for each in rejected} == {"broken.json", "alien.json"}
    assert "Traceback" not in run.stdout + run.stderr
    assert sum(summary(tmp_path / "out")["kek_use"].values()) == sum(summary(week)["kek_use"].values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "--out", "x"], "nothing to read"),
        (["replay", "--vault-logs", "absent", "--out", "x"], "no such file or folder: absent"),
        (["replay", "--batches", ".", "--out", "x"], "--sources"),
        (["report", "weekly", "--week", "2026-W99", "--index", "empty.sqlite", "--out", "x"], "2026-W99"),
    ],
)
def test_a_wrong_call_is_told_so_in_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "empty.sqlite").touch()

    run = keytrail(*arguments, cwd=tmp_path)

    assert run.returncode == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_an_alert_from_old_files_stays_open_and_is_told_and_reported(week: Path, tmp_path: Path) -> None:
    record = next(line for line in vault_records(week) if line["operationName"] == "KeyPurge")
    later = record | {"time": "2026-12-20T00:00:00.0000000Z", "operationName": "KeyList"}
    (tmp_path / "logs.json").write_text(json.dumps([record, later]))

    run = keytrail("replay", "--vault-logs", "logs.json", "--out", "out", cwd=tmp_path)

    (alert,) = lines(tmp_path / "out" / "alerts.ndjson")
    assert alert["status"] == "open"
    assert alert["number"] in run.stdout
    assert alert["number"] in (tmp_path / "out" / "report.html").read_text()


def test_simulated_data_says_so_wherever_it_is_read_again(week: Path, tmp_path: Path) -> None:
    replay_of(week, tmp_path / "again")
    keytrail("replay", "--vault-logs", week / "vault-logs", "--out", "bare", cwd=tmp_path)
    keytrail("report", "weekly", "--week", "2026-W47", "--index", week / "index.sqlite", "--out", "r", cwd=tmp_path)

    pages = [tmp_path / "again" / "report.html", tmp_path / "bare" / "report.html", *(tmp_path / "r").iterdir()]
    assert len(pages) == 3
    assert all("Simulated data" in page.read_text() for page in pages)


def test_a_replay_of_two_weeks_says_which_one_the_report_leaves_out_and_how_to_get_it(
    week: Path, tmp_path: Path
) -> None:
    lines = (week / "vault-logs").rglob("*.json")
    shifted = tmp_path / "later"
    shifted.mkdir()
    for number, file in enumerate(sorted(lines)):
        text = file.read_text(encoding="utf-8")
        (shifted / f"{number}.json").write_text(text.replace("2026-11-1", "2026-10-1"), encoding="utf-8")

    run = keytrail("replay", "--vault-logs", week / "vault-logs", "--vault-logs", "later", "--out", "out", cwd=tmp_path)

    assert "Report of week 2026-W47" in run.stdout
    assert "The files hold other weeks, too: 2026-W42, 2026-W43." in run.stdout
    command = next(line for line in run.stdout.splitlines() if "report weekly" in line).split()
    other = keytrail(*command[1:], cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert (tmp_path / "out" / "keytrail-2026-W43.html").exists()
    assert (
        keytrail("replay", "--vault-logs", week / "vault-logs", "--out", "one", cwd=tmp_path).stdout.count("too:") == 0
    )


def test_a_folder_without_logs_is_no_clean_bill(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    run = keytrail("replay", "--vault-logs", "empty", "--out", "out", cwd=tmp_path)

    assert run.returncode == 2
    assert "no log records found" in run.stderr


@pytest.mark.parametrize("command", ["demo", "replay"])
def test_an_out_that_is_a_file_is_refused_in_one_sentence(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    given = ("--vault-logs", "file") if command == "replay" else ()

    run = keytrail(command, *given, "--out", "file", cwd=tmp_path)

    assert run.returncode == 2
    assert "cannot write into file" in run.stderr


def vault_records(week: Path) -> list[dict[str, Any]]:
    return [record for path in sorted((week / "vault-logs").rglob("PT1H.json")) for record in lines(path)]


def test_sources_init_makes_a_registry_that_can_be_read_and_overwrites_nothing(tmp_path: Path) -> None:
    command = ("sources", "init", "--out", "dev", "--service", "key-admin", "--service", "billing=0B0B-OID")

    first = keytrail(*command, cwd=tmp_path)
    second = keytrail(*command, cwd=tmp_path)

    registry = json.loads((tmp_path / "dev" / "sources.json").read_text())
    assert first.returncode == 0
    assert second.returncode == 2
    assert [entry["source"] for entry in registry["signers"]] == ["key-admin", "billing"]
    assert registry["signers"][1]["vault_principals"] == ["0b0b-oid"]
    assert (tmp_path / "dev" / "billing.key").stat().st_mode & 0o777 == 0o600


def test_the_schema_of_events_is_printed_as_json(tmp_path: Path) -> None:
    run = keytrail("schema", "event", cwd=tmp_path)

    assert json.loads(run.stdout)["$schema"].startswith("https://json-schema.org/")
