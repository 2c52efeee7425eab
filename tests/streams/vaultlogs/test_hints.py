"""Whoever gives a file that cannot be read is told what it seems to be and what to do."""

import gzip
from pathlib import Path

import pytest

from streams.replaying.batchfile import Unreadable, read_batches
from streams.vaultlogs.files import FileReason, FileRejected, read
from streams.vaultlogs.hints import explained

HEADING = "TimeGenerated [UTC],OperationName,ResultType,CallerIPAddress\n"
ROWS = "2026-11-16T00:00:00Z,KeyGet,Success,10.0.0.1\n" * 50
GOOD = '{"time":"2026-11-16T00:00:00.0000000Z","operationName":"KeyGet"}\n'


def told(path: Path) -> list[str]:
    return [explained(one.path, one.line, one.reason) for one in read([path]) if isinstance(one, FileRejected)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("export.csv", HEADING + ROWS, "unsupported_file: seems to be a table (CSV): export the records as JSON"),
        ("export.json", HEADING + ROWS, "unsupported_file: seems to be a table (CSV): export the records as JSON"),
        ("export.json", (HEADING + ROWS).replace(",", "\t"), "unsupported_file: seems to be a table (CSV)"),
        ("export.xlsx", "PK\x03\x04rest", "unsupported_file: seems to be a ZIP archive or an Excel file: unpack it"),
        ("capture.json", "Obj\x01\x04\x14avro", "vault-feed eventhub"),
        ("blob.json", "\x01\x00\x02", "unsupported_file: seems to be no text"),
        ("page.json", "\n<!doctype html>\n<html>", "unsupported_file: seems to be HTML or XML"),
        ("whole.json", '{"records": [\n{"time": 1},\n', "not_json: begins as JSON and does not parse to its end"),
        ("PT1H.json", GOOD + '{"time":"2026', "cut_short: the end of the last record is missing"),
        ("PT1H.json", GOOD + "what is this", "not_json: the line is no JSON document; the file's other lines were"),
    ],
)
def test_one_sentence_says_what_the_file_is_and_what_to_do(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)

    (reason,) = told(tmp_path / name)

    assert said in reason


def test_a_packed_table_is_known_too(tmp_path: Path) -> None:
    (tmp_path / "logs.json.gz").write_bytes(gzip.compress((HEADING + ROWS).encode()))

    (reason,) = told(tmp_path / "logs.json.gz")

    assert "a table (CSV)" in reason


@pytest.mark.parametrize("reason", FileReason)
def test_every_reason_has_words_for_people(tmp_path: Path, reason: FileReason) -> None:
    assert explained(tmp_path / "absent.json", None, reason).startswith(f"{reason}: ")


def test_a_record_with_many_commas_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(
        '"durationMs": 5, "tail": "of a line", "that": 1, "was": 2, "cut": 3}\n' + GOOD + "[1, 2, 3, 4, 5]\n"
    )

    assert [one.line for one in read([tmp_path / "one.json"])] == [1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"v": 1,\n"signers": []}', "a registry of signers, which --sources takes"),
        (GOOD.replace("time", "resourceId"), "a vault's log, which --vault-logs takes"),
        (HEADING + ROWS, "a table (CSV)"),
        ("nothing\nof it\n", "give batches.ndjson"),
    ],
)
def test_a_file_without_any_batch_is_refused_once_and_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "batches.ndjson").write_text(content)

    (refused,) = read_batches(tmp_path / "batches.ndjson")

    assert isinstance(refused, Unreadable)
    assert refused.line is None
    assert said in refused.reason
