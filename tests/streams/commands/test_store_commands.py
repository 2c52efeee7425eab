import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app

RUN = CliRunner()


def test_which_database_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYTRAIL_CORE_STORE_URL", raising=False)
    result = RUN.invoke(app, ["store", "check"])

    assert result.exit_code == 2
    assert "KEYTRAIL_CORE_STORE_URL" in result.output


def test_a_password_is_not_printed_whatever_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql://me:hidden@127.0.0.1:1/x", "postgresql://me:hidden@db.example/x", "what:hidden"):
        monkeypatch.setenv("KEYTRAIL_CORE_STORE_URL", url)
        for command in ("migrate", "check"):
            result = RUN.invoke(app, ["store", command])

            assert result.exit_code != 0
            assert "hidden" not in result.output


def test_sqlite_needs_no_migration(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["store", "migrate", "--url", f"sqlite:///{tmp_path}/keys.sqlite"])

    assert result.exit_code == 2
    assert "makes its tables itself" in result.output


def test_a_look_at_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["store", "check", "--url", f"sqlite:///{tmp_path}/keys.sqlite"])

    assert result.exit_code == 0
    assert "none yet" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.servers
def test_migrate_makes_the_tables_once_and_check_says_how_they_are(postgres_url: str) -> None:
    missing = RUN.invoke(app, ["store", "check", "--url", postgres_url])
    first = RUN.invoke(app, ["store", "migrate", "--url", postgres_url])
    second = RUN.invoke(app, ["store", "migrate", "--url", postgres_url])
    found = RUN.invoke(app, ["store", "check", "--url", postgres_url, "--json"])

    assert (missing.exit_code, first.exit_code, second.exit_code) == (1, 0, 0)
    assert "keytrail store migrate" in missing.output
    assert "applied 0001_keys" in first.output
    assert "nothing to do" in second.output
    looks = {look["subject"]: look for look in json.loads(found.output)}
    assert looks["schema"]["well"]
    assert looks["triggers"]["well"]
    assert looks["user"]["well"] is False  # the tests' user is a superuser
    assert found.exit_code == 1
