"""`keytrail vault`: what people read of a known index."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from alerts.examples import kek_use, vault_access
from alerts.model import KekUse, KekUseStatus, Strength
from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS
from cryptocore.clock import rfc3339_ms
from streams.cli import app
from streams.commands.moments import moment_ms
from streams.commands.terminal import NOT_ALL_WELL, UNREACHABLE, WRONG_USE, now_ms
from streams.index.documents import kek_use_document, vault_access_document
from streams.index.elastic import ElasticIndex
from streams.index.embedded import EmbeddedIndex
from streams.index.port import EventIndex
from streams.presence import coverage
from streams.presence.coverage import Sight
from tests.servers.machine import free_port

NOON_MS = now_ms() // HOUR_MS * HOUR_MS - 6 * HOUR_MS
MATCHED, UNACCOUNTED, UNLOGGED = KekUseStatus.MATCHED, KekUseStatus.UNACCOUNTED, KekUseStatus.UNLOGGED


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["vault", *arguments], env=environment)


def use(number: int, at_ms: int, status: KekUseStatus, **fields: str) -> KekUse:
    reason = {MATCHED: None, UNACCOUNTED: "no_event", UNLOGGED: "no_vault_record"}[status]
    strength = Strength.EXACT if status is MATCHED else None
    return kek_use(status, reason, id=f"{number:064x}", time_us=at_ms * 1000, strength=strength, **fields)


USES = (
    use(1, NOON_MS + MINUTE_MS, MATCHED, vault="kv-prod", name="tenant-kek", actor="user:4711"),
    use(2, NOON_MS + 2 * MINUTE_MS, UNACCOUNTED, vault="kv-prod", name="tenant-kek", principal_id="stranger"),
    use(3, NOON_MS + 3 * MINUTE_MS, UNLOGGED, vault="kv-prod", name="tokens-kek", principal_label="lena@Example.com"),
    use(4, NOON_MS + HOUR_MS, UNLOGGED, vault="kv-prod", name="tenant-kek"),
    use(5, NOON_MS + 3 * HOUR_MS, MATCHED, vault="kv-other", name="[red]kek[/red]"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "index.sqlite"
    asyncio.run(fill(EmbeddedIndex(path)))
    return path


async def fill(index: EventIndex) -> None:
    await index.ensure()
    seen = [one for one in USES if one.status is not UNLOGGED]
    accesses = [
        vault_access("KeyUnwrap", access_id=one.id, vault=one.vault, time_us=one.time_us, shape="envelope", time=one.id)
        for one in seen
    ]
    activity = vault_access(
        "VaultPatch", access_id="ff", vault="kv-prod", time_us=(NOON_MS + HOUR_MS) * 1000, shape="activity"
    )
    documents = [vault_access_document(one, {}, one.time_us // 1000) for one in (*accesses, activity)]
    await index.write([*documents, *(kek_use_document(one, 1, b"") for one in USES)])
    await index.close()


def test_uses_are_found_by_key_and_principal(file: Path) -> None:
    def found(*arguments: str) -> list[int]:
        result = run("uses", "--index", str(file), "--json", *arguments)
        assert result.exit_code == 0, result.output
        return [int(one["id"], 16) for one in json.loads(result.stdout)]

    assert found() == [1, 2, 3, 4, 5]
    assert found("--key", "KV-prod/tenant-kek") == [1, 2, 4]
    assert found("--key", "tokens-kek") == [3]
    assert found("--principal", "STRANGER") == [2]
    assert found("--principal", "lena@Example.com") == [3]  # as alerts and this list name who has a label
    assert found("--since", rfc3339_ms(NOON_MS + HOUR_MS)) == [4, 5]


def test_uses_are_shown_with_their_explanation_and_names_are_never_markup(file: Path) -> None:
    result = run("uses", "--index", str(file), "--limit", "5")

    assert "user:4711" in result.stdout
    assert "no_event" in result.stdout
    assert "kv-other/[red]kek[/red]" in result.stdout
    assert "5 uses" in result.stdout
    assert result.stderr == ""


def test_a_list_that_was_cut_says_so(file: Path) -> None:
    result = run("uses", "--index", str(file), "--limit", "4")

    assert "4 uses" in result.stdout
    assert "these are the oldest 4 of more" in result.stderr


def test_one_use_is_one_and_none_is_a_sentence_that_says_where_to_look(file: Path) -> None:
    one = run("uses", "--index", str(file), "-k", "tokens-kek")
    none = run("uses", "--index", str(file), "--key", "other-kek")

    assert "1 use\n" in one.stdout
    assert none.stdout.startswith("No such use of a KEK since ")
    assert "--since 7d" in none.stdout


def test_coverage_counts_each_hour_and_names_those_in_which_the_log_was_blind(file: Path) -> None:
    result = run("coverage", "--index", str(file), "--since", rfc3339_ms(NOON_MS), "--json")

    other, prod = json.loads(result.stdout)
    assert (other["vault"], other["matched"], other["hours_blind"]) == ("kv-other", 1, 0)
    assert [hour["sight"] for hour in prod["by_hour"][:3]] == ["partly", "blind", "silent"]
    assert [hour["records"] for hour in prod["by_hour"][:2]] == [2, 0], "the Activity Log is not the vault's own"
    assert (prod["matched"], prod["unaccounted"], prod["unlogged"], prod["pending"]) == (1, 1, 2, 0)
    assert (prod["hours"], prod["hours_blind"], prod["hours_partly"]) == (7, 1, 1)
    assert prod["hours_silent"] == 5


def test_coverage_begins_with_the_vaults_the_worst_first_and_then_names_the_hours_to_look_at(file: Path) -> None:
    result = run("coverage", "--index", str(file))

    vaults, hours = result.stdout.split("Hours to look at:")
    assert vaults.index("kv-prod") < vaults.index("kv-other")
    assert [line.split("│")[3].strip() for line in hours.splitlines() if "kv-" in line] == ["partly", "blind"]


def test_every_hour_is_listed_when_asked_for(file: Path) -> None:
    result = run("coverage", "--index", str(file), "--hours")

    assert sum("kv-other" in line for line in result.stdout.splitlines()) == 2
    assert "All hours with something to say:" in result.stdout


DECLARED = """
[[vault]]
name = "kv-prod"
resource_id = "/subscriptions/s/resourceGroups/r/providers/Microsoft.KeyVault/vaults/kv-prod"
owner = "platform"

[[vault]]
name = "kv-mute"
resource_id = "/subscriptions/s/resourceGroups/r/providers/Microsoft.KeyVault/vaults/kv-mute"
owner = "platform"
quiet_hours = 24
"""


def test_a_declared_vault_without_records_is_blind_and_an_undeclared_one_is_called_so(file: Path) -> None:
    declared = file.with_name("vaults.toml")
    declared.write_text(DECLARED)

    result = run("coverage", "--index", str(file), "--vaults", str(declared), "--since", "25h")
    short = run("coverage", "--index", str(file), "--vaults", str(declared), "--since", "3h", "--json")

    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in result.stdout.splitlines() if "kv-" in line]
    assert rows[:3] == [["kv-mute", "blind, no record"], ["kv-prod", "partly"], ["kv-other", "seen, not declared"]]
    mute = next(one for one in json.loads(short.stdout) if one["vault"] == "kv-mute")
    assert (mute["sight"], mute["declared"], mute["records"]) == ("silent", True, 0), "it may be quiet for a day"


def test_a_declaration_that_cannot_be_used_is_named(file: Path) -> None:
    result = run("coverage", "--index", str(file), "--vaults", str(file.with_name("absent.toml")))

    assert result.exit_code == WRONG_USE
    assert "absent.toml: file: " in result.stderr


def test_an_index_that_knows_nothing_of_the_time_says_so(file: Path) -> None:
    later = run("coverage", "--index", str(file), "--since", "1m")

    assert later.stdout.startswith("No record of a vault and no use of a KEK since ")


def test_the_settings_name_the_declaration_where_the_index_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "vaults.toml").write_text("[[vault]]")

    result = run("coverage", KEYTRAIL_VAULTS_FILE=str(tmp_path / "vaults.toml"))

    assert result.exit_code == WRONG_USE
    assert "vault 1.name: is missing" in result.stderr


def test_a_week_without_data_is_said_so_and_gives_no_report(file: Path) -> None:
    arguments = ["report", "weekly", "--index", str(file), "--week", "2020-W10", "--out", str(file.parent / "reports")]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == NOT_ALL_WELL
    assert "nothing is known of week 2020-W10" in result.stderr
    assert not (file.parent / "reports").exists()


@pytest.mark.parametrize("command", ["uses", "coverage"])
def test_an_index_that_is_not_there_is_told_in_a_sentence(command: str, tmp_path: Path) -> None:
    text = tmp_path / "index.sqlite"
    text.write_text("no database, whatever its name says; long enough to have a header" * 10)

    absent = run(command, "--index", str(tmp_path / "absent"))
    other = run(command, "--index", str(text))
    silent = run(command, KEYTRAIL_ELASTICSEARCH_URL=f"http://127.0.0.1:{free_port()}")

    assert (absent.exit_code, other.exit_code, silent.exit_code) == (WRONG_USE, WRONG_USE, UNREACHABLE)
    assert "no such file" in absent.stderr
    assert "is no index" in other.stderr
    assert "the index does not answer" in silent.stderr


def test_a_moment_that_is_none_and_one_too_long_ago_are_refused(file: Path) -> None:
    assert "give a date" in run("uses", "--index", str(file), "--since", "tomorrow").stderr
    assert "31 days at most" in run("coverage", "--index", str(file), "--since", "400d").stderr


@given(st.integers(1, 99_999), st.sampled_from([("m", MINUTE_MS), ("h", HOUR_MS), ("d", DAY_MS)]))
def test_how_long_ago_is_taken_from_now(count: int, unit: tuple[str, int]) -> None:
    assert moment_ms(f"{count}{unit[0]}", now_ms=NOON_MS) == NOON_MS - count * unit[1]


def test_a_date_is_its_midnight_in_utc_and_a_zone_counts() -> None:
    assert moment_ms("1970-01-02", now_ms=0) == DAY_MS
    assert moment_ms("1970-01-01T02:00:00+01:00", now_ms=0) == HOUR_MS


async def test_both_indices_count_the_same(elasticsearch_url: str, tmp_path: Path) -> None:
    names = {"urls": [elasticsearch_url], "prefix": f"cov{now_ms()}", "replicas": 0}
    embedded = EmbeddedIndex(tmp_path / "both.sqlite")
    await fill(embedded)
    await fill(ElasticIndex.connect(**names))  # type: ignore[arg-type]
    elastic = ElasticIndex.connect(**names)  # type: ignore[arg-type]

    until_ms = NOON_MS + 5 * HOUR_MS
    found = await coverage.read(elastic, since_ms=NOON_MS, until_ms=until_ms)
    wanted = await coverage.read(embedded, since_ms=NOON_MS, until_ms=until_ms)
    await elastic.close()
    await embedded.close()

    assert [one.shown() for one in found] == [one.shown() for one in wanted]
    assert [one.count(Sight.BLIND) for one in found] == [0, 1]
