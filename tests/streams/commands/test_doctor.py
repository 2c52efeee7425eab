"""`keytrail doctor` on real servers, well and unwell."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cryptocore.clock import SystemClock, rfc3339
from cryptocore.spool.lock import SpoolLock, spool_path
from cryptocore.store.engine import StoreOptions
from cryptocore.store.migration import migrate
from cryptocore.testing import ManualClock
from streams.commands.terminal import NOT_ALL_WELL
from streams.doctor import index, log, service
from streams.doctor.findings import Area, Finding, Verdict, examine
from streams.log import generations, topics
from streams.log.statelog import Position
from streams.log.statelog_kafka import KafkaStateLog
from streams.messages import KEY_EVENTS, SOURCES
from streams.running.worker import open_index
from streams.settings import Settings
from streams.state import State, encode
from tests.servers.machine import free_port
from tests.streams.commands.test_commands import run
from tests.streams.working import fresh

HOUR_US = 3_600 * 1_000_000


def deployed(folder: Path, settings: Settings, elasticsearch_url: str, prefix: str) -> dict[str, str]:
    assert run("sources", "init", "--out", str(folder / "deployment"), "--service", "billing").exit_code == 0
    (folder / "vaults.toml").write_text(VAULTS)
    return {
        "KEYTRAIL_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix,
        "KEYTRAIL_PARTITIONS": str(settings.partitions),
        "KEYTRAIL_ELASTICSEARCH_URL": elasticsearch_url,
        "KEYTRAIL_INDEX_PREFIX": prefix,
        "KEYTRAIL_INDEX_REPLICAS": "0",
        "KEYTRAIL_SOURCES_FILE": str(folder / "deployment" / "sources.json"),
        "KEYTRAIL_VAULTS_FILE": str(folder / "vaults.toml"),
        "KEYTRAIL_WEBHOOK_URL": "http://127.0.0.1:1/hook",
        "KEYTRAIL_WEBHOOK_SECRET": "c" * 32,
    }


RESOURCE = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.KeyVault/vaults"
VAULTS = f"""
[[vault]]
name = "kv-prod"
owner = "team-security"
resource_id = "{RESOURCE}/kv-prod"
keks = ["tenant-kek"]
"""


def of(found: list[dict[str, Any]], area: str, subject: str) -> dict[str, Any]:
    return next(one for one in found if one["area"] == area and subject in one["subject"])


def test_a_whole_deployment_is_well(kafka: str, elasticsearch_url: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    environment = deployed(tmp_path, settings, elasticsearch_url, f"doctor-{settings.topic_prefix.strip('.')}")
    chosen = Settings(elasticsearch_url=elasticsearch_url, index_prefix=environment["KEYTRAIL_INDEX_PREFIX"])  # type: ignore[arg-type]
    asyncio.run(_ensure(chosen))

    result = run("doctor", "--json", **environment)

    found = json.loads(result.stdout)
    assert [one["says"] for one in found if one["verdict"] == "wrong"] == []
    assert result.exit_code == 0
    assert of(found, "index", "templates")["verdict"] == "ok"
    assert of(found, "log", "clock")["verdict"] == "ok"
    assert of(found, "index", "clock")["verdict"] == "ok"
    assert "cccc" not in result.stdout


async def _ensure(settings: Settings) -> None:
    index_ = open_index(settings)
    await index_.ensure()
    await index_.close()


def test_what_is_wrong_is_named_with_what_to_do_and_the_rest_is_still_looked_at(
    kafka: str, elasticsearch_url: str, tmp_path: Path
) -> None:
    settings = Settings(kafka_bootstrap=kafka, topic_prefix=f"t{uuid4().hex[:8]}.", partitions=3)
    asyncio.run(_short_lived(settings))
    environment = deployed(tmp_path, settings, elasticsearch_url, "doctor-none")
    (tmp_path / "vaults.toml").write_text("[[vault]]\nname = 3\n")
    environment |= {"KEYTRAIL_PRODUCTION": "true"}
    del environment["KEYTRAIL_WEBHOOK_URL"], environment["KEYTRAIL_WEBHOOK_SECRET"]

    result = run("doctor", "--json", **environment)

    found = json.loads(result.stdout)
    wrong = [f"{one['subject']}: {one['says']}" for one in found if one["verdict"] == "wrong"]
    assert result.exit_code == NOT_ALL_WELL
    assert any("vaults.toml: vault 1.name" in text for text in wrong)
    assert f"{settings.topic(KEY_EVENTS)}: has 2 partitions, 3 needed" in wrong
    assert f"{settings.topic(KEY_EVENTS)}: retention.ms is 60000, 1209600000 needed" in wrong
    assert "channels: no channel but the log: nobody is called" in wrong
    assert of(found, "index", "templates")["verdict"] == "warning"
    assert all(one["do"] for one in found if one["verdict"] == "wrong")


async def _short_lived(settings: Settings) -> None:
    """Make one topic otherwise than it must be, then the others."""
    admin = AIOKafkaAdminClient(**settings.kafka_connection())
    await admin.start()
    name = settings.topic(KEY_EVENTS)
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs={"retention.ms": "60000"})])
    while name not in await admin.list_topics():  # noqa: ASYNC110 - the broker has no event
        await asyncio.sleep(0.05)
    await admin.close()
    await topics.ensure(settings)


async def test_settings_of_another_generation_are_told_which_one_to_use(kafka: str, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path)
    await _mark(settings, generations.Mark(generation=2, partitions=4, at_ms=0))

    before, after = [
        await log.look(settings.model_copy(update={"generation": number, "partitions": 4}), SystemClock())
        for number in (1, 3)
    ]

    told = {(one.subject, one.says): one.do for one in before + after if one.verdict is Verdict.WRONG}
    elsewhere = {subject: do for (subject, says), do in told.items() if "the state is of generation 2" in says}
    missing = [do for (_, says), do in told.items() if says == "is missing"]
    assert set(elsewhere) == {settings.topic(KEY_EVENTS), f"{settings.topic(KEY_EVENTS)}.g3"}
    assert missing, "those of generation 3"
    assert {*elsewhere.values(), *missing} == {"use generation 2, KEYTRAIL_PARTITIONS=4"}
    assert told[settings.topic(KEY_EVENTS), "has 2 partitions, 4 needed"].startswith("KEYTRAIL_PARTITIONS as it has")


async def _mark(settings: Settings, mark: generations.Mark) -> None:
    """Write the mark as `keytrail topics migrate` does at its end."""
    state_log = KafkaStateLog(
        transactional_id=f"{settings.topic_prefix}mark",
        topic=settings.state_topic(SOURCES),
        partition=0,
        partitions=settings.topic_partitions,
        full_name=settings.topic,
        connection=settings.kafka_connection(),
    )
    await state_log.open(State())
    await state_log.commit(
        [(generations.MARK_KEY, encode(mark))], Position(applied=1, indexed=1, skip=(), now_ms=1), []
    )
    await state_log.close()


def test_servers_that_are_not_there_are_findings_and_no_traceback(tmp_path: Path) -> None:
    environment = {
        "KEYTRAIL_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "KEYTRAIL_ELASTICSEARCH_URL": f"http://127.0.0.1:{free_port()}",
        "KEYTRAIL_SOURCES_FILE": str(tmp_path / "none.json"),
    }

    result = run("doctor", "--json", **environment)

    wrong = {one["area"] for one in json.loads(result.stdout) if one["verdict"] == "wrong"}
    assert wrong == {"files", "log", "index"}
    assert result.exit_code == NOT_ALL_WELL


async def test_a_clock_that_is_an_hour_off_is_wrong_on_both_servers(
    kafka: str, elasticsearch_url: str, tmp_path: Path
) -> None:
    settings = await fresh(kafka, tmp_path)
    chosen = Settings(elasticsearch_url=elasticsearch_url)  # type: ignore[arg-type]
    wrong_clock = ManualClock(rfc3339(SystemClock().now_us() - HOUR_US))

    found = await log.look(settings, wrong_clock) + await index.look(chosen, open_index(chosen), wrong_clock)

    clocks = {one.subject: one for one in found if one.subject.startswith("clock")}
    assert {one.verdict for one in clocks.values()} == {Verdict.WRONG}
    assert set(clocks) == {"clock of the broker", "clock of the index"}
    seconds = [float(one.says.partition(" s ")[0]) for one in clocks.values()]
    assert all(3_590 < second < 3_700 for second in seconds), seconds  # the wrong clock stands still meanwhile


def test_a_service_is_looked_at_where_its_settings_are(tmp_path: Path) -> None:
    assert run("sources", "init", "--out", str(tmp_path / "d"), "--service", "billing").exit_code == 0
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o755)
    environment = {
        "KEYTRAIL_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "KEYTRAIL_ELASTICSEARCH_URL": f"http://127.0.0.1:{free_port()}",
        "KEYTRAIL_CORE_SERVICE": "billing",
        "KEYTRAIL_CORE_SPOOL_DIR": str(spool),
    }

    lacking = json.loads(run("doctor", "--json", **environment).stdout)

    assert "KEYTRAIL_CORE_REGISTRY_FILE" in of(lacking, "service", "settings")["says"]


async def test_a_look_that_hangs_or_breaks_leaves_the_others_their_turn() -> None:
    async def breaks() -> list[Finding]:
        raise KeyError("secret-value")

    async def well() -> list[Finding]:
        area = Area("second")
        area.ok("all", "well")
        return area.findings

    found = await examine([("first", breaks), ("second", well)])

    assert [(one.area, one.verdict) for one in found] == [("first", Verdict.WRONG), ("second", Verdict.OK)]
    assert "secret-value" not in repr(found)


def test_a_spool_in_memory_is_told_apart_from_one_on_a_disk(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    assert service.file_system(tmp_path) not in {"tmpfs", "ramfs"} or tmp_path.is_relative_to("/dev/shm")
    if memory.exists():
        assert service.file_system(memory) == "tmpfs"


def test_spools_that_nobody_adopts_are_a_warning_after_an_hour_and_those_in_use_are_not(tmp_path: Path) -> None:
    lock = SpoolLock.take(spool_path(tmp_path, "billing", b"\x01" * 16))
    assert lock is not None
    for number in (1, 2, 3):
        spool_path(tmp_path, "billing", bytes([number]) * 16).touch()
    now_s = spool_path(tmp_path, "billing", b"\x02" * 16).stat().st_mtime
    os.utime(spool_path(tmp_path, "billing", b"\x02" * 16), (now_s - 7_300, now_s - 7_300))

    area = Area("service")
    service.orphans(area, tmp_path, "billing", now_s=now_s + 1)
    service.orphans(area, tmp_path, "mailer", now_s=now_s + 1)
    lock.release()

    old, none = area.findings
    assert (old.verdict, none.verdict) == (Verdict.WARNING, Verdict.OK)
    assert old.says.startswith("1 of processes that are gone")
    assert old.says.endswith("for 2 h")
    assert "keytrail drain" in old.do
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".spool", ".spool", ".spool"]


def test_spools_left_a_moment_ago_are_not_yet_a_warning(tmp_path: Path) -> None:
    path = spool_path(tmp_path, "billing", b"\x01" * 16)
    path.touch()
    area = Area("service")

    service.orphans(area, tmp_path, "billing", now_s=path.stat().st_mtime + 60)

    [found] = area.findings
    assert found.verdict is Verdict.OK
    assert "less than an hour" in found.says


def test_a_key_store_in_sqlite_is_looked_at_and_not_made(tmp_path: Path) -> None:
    found = service.key_store(f"sqlite:///{tmp_path / 'keys.sqlite'}", StoreOptions())

    assert [(one.subject, one.verdict) for one in found] == [("key store: file", Verdict.OK)]
    assert list(tmp_path.iterdir()) == []


def test_a_key_store_in_postgresql_that_was_never_migrated_is_wrong_and_says_what_to_do(postgres_url: str) -> None:
    found = service.key_store(postgres_url, StoreOptions(allow_plaintext=True))

    [schema] = [one for one in found if one.subject == "key store: schema"]
    assert schema.verdict is Verdict.WRONG
    assert "keytrail store migrate" in schema.do


def test_a_key_store_in_postgresql_shows_schema_triggers_roles_and_clock(postgres_url: str) -> None:
    migrate(postgres_url)

    found = {one.subject: one for one in service.key_store(postgres_url, StoreOptions(allow_plaintext=True))}

    well = {"key store: schema", "key store: triggers", "key store: grants", "key store: clock"}
    assert {found[subject].verdict for subject in well} == {Verdict.OK}
    assert found["key store: user"].verdict is Verdict.WRONG  # who migrates owns the tables; services have their own
    assert "GRANT" in found["key store: user"].do


def test_an_address_that_is_no_key_store_is_wrong_and_its_password_is_not_said() -> None:
    [found] = service.key_store("mysql://billing:hunter2@db/keys", StoreOptions())

    assert found.verdict is Verdict.WRONG
    assert "hunter2" not in repr(found)
