"""The pages say what the code does: settings are all there, code blocks run, links lead somewhere."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields
from prometheus_client import CollectorRegistry
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from alerts.model import Command
from cryptocore import acting, errors, testing
from cryptocore.contrib.answers import http_status
from cryptocore.settings import CoreSettings
from cryptocore.signing import Signer
from cryptocore.testing import register
from streams.feeds.settings import FeedSettings
from streams.log import topics
from streams.log.statelog import Position
from streams.log.statelog_kafka import KafkaStateLog
from streams.messages import KEY_EVENTS
from streams.running.process import EXIT_DEAD, EXIT_SETUP
from streams.settings import Settings
from streams.state import Kind, State

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SETTINGS: tuple[type[BaseSettings], ...] = (Settings, FeedSettings, CoreSettings)

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| `(KEYTRAIL_[A-Z_]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def shown(default: Any) -> str:
    """How the settings tables write a default."""
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ("", ()):
        return "none"
    if isinstance(default, tuple):
        return f"`{json.dumps(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return f"`{default:g}`" if default < 1e5 else f"`{default}`"
    return f"`{PurePath(default) if isinstance(default, PurePath) else str(default)}`"


def expected_rows() -> dict[str, str]:
    return {
        f"{settings.model_config['env_prefix']}{name.upper()}": shown(field.default)
        for settings in SETTINGS
        for name, field in settings.model_fields.items()
    }


def blocks(page: str, language: str) -> list[str]:
    return [block for kind, block in BLOCK.findall((DOCS / page).read_text()) if kind == language]


def anchors(page: Path) -> set[str]:
    """The names that a page's headings get where Markdown is shown."""
    prose = BLOCK.sub("", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(prose)}


# --- settings --------------------------------------------------------------------------------------------------------


def test_the_page_on_operations_lists_every_setting_with_its_default() -> None:
    rows = {name: default for name, default, _ in ROW.findall((DOCS / "operations.md").read_text())}

    assert rows == expected_rows()


def test_every_listed_setting_says_what_it_is_for() -> None:
    assert [name for name, _, meaning in ROW.findall((DOCS / "operations.md").read_text()) if len(meaning) < 3] == []


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    test_runs = {"KEYTRAIL_REQUIRE_SERVERS", "KEYTRAIL_ES_JAVA"}
    known = expected_rows().keys() | test_runs
    unknown = [
        (page.relative_to(ROOT).as_posix(), name)
        for page in [*PAGES, ROOT / "docker-compose.yml"]
        for name in re.findall(r"KEYTRAIL_[A-Z_]*[A-Z]\b", page.read_text())
        if name not in known and not any(name + "_" == settings.model_config["env_prefix"] for settings in SETTINGS)
    ]

    assert unknown == []


# --- embedding -------------------------------------------------------------------------------------------------------


@pytest.fixture
def service_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer.generate()
    signer.write_file(tmp_path / "billing.key")
    (tmp_path / "sources.json").write_bytes(register(signer, source="billing").encode())
    for name, value in {
        "SERVICE": "billing",
        "SPOOL_DIR": str(tmp_path / "spool"),
        "STORE_URL": f"sqlite:///{tmp_path / 'keys.sqlite'}",
        "REGISTRY_FILE": str(tmp_path / "sources.json"),
        "SIGNER_FILE": str(tmp_path / "billing.key"),
        "KAFKA_BOOTSTRAP": "kafka.example:9093",
        "KAFKA_SASL_USERNAME": "billing",
        "KAFKA_SASL_PASSWORD": "unused",
        "KEK_ALIAS": "tenant-kek",
        "KEK_VAULT_URL": "https://kv-prod.vault.azure.net",
        "KEK_NAME": "tokens",
    }.items():
        monkeypatch.setenv(f"KEYTRAIL_CORE_{name}", value)


def run_page() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks("embedding.md", "python"):
        exec(compile(block, "docs/embedding.md", "exec"), names)
    return names


async def test_the_code_of_the_page_on_embedding_runs_and_its_tests_pass(service_environment: None) -> None:
    names = run_page()

    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) >= 3
    for test in tests:
        await test()
    await names["core"].close()


async def test_the_shown_sync_and_middleware_act_as_whom_they_say(service_environment: None) -> None:
    names = run_page()
    from_env, owner = names["core"], names["CRM"]

    async def handle(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await names["save_token"](core, row, owner, "refresh-me")

    async with names["testing"].core() as core:
        row: dict[str, Any] = {"id": "8f3c"}
        app = names["make_service"](handle, core)
        await app({"type": "http", "state": {"user_id": "4711"}}, None, None)
        assert await names["nightly_sync"](core, [row], owner) == ["refresh-me"]
        encrypt, decrypt = (core.events.only(names["Operation"](act))[0] for act in ("encrypt", "decrypt"))

    assert (encrypt.actor, encrypt.purpose) == ("user:4711", "store-token")
    assert (decrypt.actor, decrypt.purpose) == ("job:nightly-sync", "crm-sync")
    await from_env.close()


async def test_the_shown_collector_exports_what_the_core_counts(service_environment: None) -> None:
    names = run_page()
    async with names["testing"].core() as core:
        exported = CollectorRegistry()
        exported.register(names["KeytrailCollector"](core))
        with acting(actor="user:4711", purpose="store-token"):
            for _ in range(3):
                await core.encrypt(b"token", owner=names["CRM"], record="r", create_missing=True)
        uses = {"operation": "encrypt", "outcome": "succeeded"}

        assert exported.get_sample_value("keytrail_core_events_total", uses) == 3
        assert exported.get_sample_value("keytrail_core_cache_hits_total") == 2
        assert exported.get_sample_value("keytrail_core_vault_wraps_total") == 1
        assert exported.get_sample_value("keytrail_core_spool_bytes") == core.stats().spool_bytes
    await names["core"].close()


ERROR_ROW = re.compile(r"^\| `(\w+)` \| (yes|no) \| (.{20,}?) \| (\d{3}) \|$", re.MULTILINE)
READERS_OWN = {"RecordInvalid", "BatchRejected"}
"""Errors of whoever reads records and batches, which no call of a core raises."""


def errors_below(kind: type[errors.CoreError]) -> set[type[errors.CoreError]]:
    below = {one for child in kind.__subclasses__() for one in errors_below(child) | {child}}
    return {one for one in below if one.__module__ == errors.__name__}


def made(kind: type[errors.CoreError], *, retryable: bool) -> errors.CoreError:
    if issubclass(kind, errors.Failed):
        return kind("text", retryable=retryable)
    return kind("field", "problem") if issubclass(kind, errors.FormatError) else kind("text")


async def test_the_ten_lines_of_the_readme_run(service_environment: None) -> None:
    [block] = [text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "python"]
    assert len(block.splitlines()) <= 10
    first, rest = block.split("core = CryptoCore.from_env()", 1)
    names: dict[str, Any] = {}
    exec(compile(first + "core = CryptoCore.from_env()", "README.md", "exec"), names)
    await names["core"].close()
    names["token"] = b"refresh-me"
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="sign-up"):
            await core.create_key(names["Owner"].tenant("t-88", "crm"))
            [event] = [await core.describe(names["Owner"].tenant("t-88", "crm"))]
            await core.activate(event.key_id)
        names["core"] = core
        code = compile(rest, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(code, names)

    assert names["token"] == b"refresh-me"
    assert names["stored"] != b"refresh-me"


def test_the_table_of_errors_is_the_tree_of_errors_with_what_each_says_and_answers() -> None:
    rows = ERROR_ROW.findall((DOCS / "embedding.md").read_text())
    branches = {errors.Denied, errors.Failed, errors.Misuse, errors.FormatError}
    raised = {kind for kind in errors_below(errors.CoreError) - branches if kind.__name__ not in READERS_OWN}
    expected = {
        (kind.__name__, "yes" if error.retryable else "no", str(http_status(error)))
        for kind in raised
        for error in (made(kind, retryable=True), made(kind, retryable=False))
    }

    assert len(expected) >= 15
    assert {(name, retryable, status) for name, retryable, _, status in rows} == expected
    assert len(rows) == len(expected)


# --- operations ------------------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_the_shown_way_past_a_gap_moves_the_position_and_nothing_else(kafka: str) -> None:
    settings = Settings(kafka_bootstrap=kafka, topic_prefix="docs-gap.", app_id="docs-gap", partitions=2)
    assert await topics.ensure(settings) == []
    [script] = [block for block in blocks("operations.md", "python") if "accept_gap" in block]
    names: dict[str, Any] = {}
    exec(compile(script, "docs/operations.md", "exec"), names)
    before = Position(applied=40, indexed=38, skip=(39,), now_ms=1_700_000_000_000)
    await _commit(settings, before, record=b"\x01key")

    await names["accept_gap"](settings, KEY_EVENTS, 1, 900)

    state = State()
    log = _state_log(settings)
    assert await log.open(state) == Position(applied=900, indexed=900, now_ms=1_700_000_000_000)
    await log.close()
    assert state.idents(Kind.KEY) == [b"key"]


async def _commit(settings: Settings, position: Position, *, record: bytes) -> None:
    log = _state_log(settings)
    await log.open(State())
    await log.commit([(record, b"\x01{}")], position, [])
    await log.close()


def _state_log(settings: Settings) -> KafkaStateLog:
    return KafkaStateLog(
        transactional_id=f"{settings.topic_prefix}{settings.app_id}.{KEY_EVENTS}.1",
        topic=settings.state_topic(KEY_EVENTS),
        partition=1,
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )


def test_the_shown_command_is_one_that_triage_takes() -> None:
    [shown_command] = blocks("operations.md", "json")
    command = msgspec.json.decode(shown_command, type=Command)

    assert (command.act, command.person) == ("acknowledge", "user:lena")
    assert set(json.loads(shown_command)) - {"type"} == {field.name for field in fields(Command)} - {"v"}


def test_the_table_of_exit_codes_has_those_of_a_worker() -> None:
    codes = re.findall(r"^\| (\d+) \|", (DOCS / "operations.md").read_text(), re.MULTILINE)

    assert {str(EXIT_DEAD), str(EXIT_SETUP), "0"} <= set(codes)


def test_the_table_of_topics_has_every_topic() -> None:
    page = (DOCS / "operations.md").read_text()
    wanted = topics.wanted(Settings())

    assert [
        topic.name for topic in wanted if f"`{topic.name}`" not in page and "keytrail.state." not in topic.name
    ] == []
    assert "`keytrail.state.<input>`" in page


# --- all pages -------------------------------------------------------------------------------------------------------


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        yield from ((page, target) for target in LINK.findall(BLOCK.sub("", page.read_text())))


def test_every_link_to_a_file_or_heading_leads_somewhere() -> None:
    broken = []
    for page, target in links():
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{page.relative_to(ROOT)}: {target}")

    assert broken == []


def test_the_index_of_the_documentation_links_every_page() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve() for page, target in links() if page == DOCS / "README.md"
    }
    pages = set(DOCS.rglob("*.md")) - {DOCS / "README.md"}

    assert sorted(page.name for page in pages if page.resolve() not in linked) == []


def test_every_decision_ends_with_what_it_costs() -> None:
    decisions = sorted((DOCS / "decisions").glob("0*.md"))

    assert [page.name[:4] for page in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    assert [page.name for page in decisions if HEADING.findall(page.read_text())[-1] != "Negative consequences"] == []
    assert [page.name for page in decisions if len(page.read_text().splitlines()) > 60] == []
