"""Files and folders of vault logs: containers, what is cut, damaged or too long, and how much of it is held."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from streams.vaultlogs import files
from streams.vaultlogs.files import FileReason, FileRecord, FileRejected, read
from streams.vaultlogs.messages import decode, wrap
from streams.vaultlogs.normalise import normalise
from tests.streams.vaultlogs.records import as_azkv, record

A, B = record("KeyUnwrap"), record("KeyWrap")


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def originals(*paths: Path) -> list[dict[str, Any]]:
    found = list(read(paths))
    assert not [item for item in found if isinstance(item, FileRejected)]
    return [item.original for item in found if isinstance(item, FileRecord)]


def rejections(*paths: Path) -> list[tuple[int | None, FileReason]]:
    return [(item.line, item.reason) for item in read(paths) if isinstance(item, FileRejected)]


CONTAINERS = {
    "records": json.dumps({"records": [A, B]}),
    "records, indented": json.dumps({"records": [A, B]}, indent=1),
    "array": json.dumps([A, B]),
    "array, indented": json.dumps([A, B], indent=2),
    "array, one record a line": f"[\n{json.dumps(A)},\n{json.dumps(B)}\n]\n",
    "activity log of the API": json.dumps({"value": [A, B]}),
    "ndjson": f"{json.dumps(A)}\n{json.dumps(B)}\n",
    "ndjson without a last newline": f"{json.dumps(A)}\n{json.dumps(B)}",
    "ndjson with blank lines and CRLF": f"\r\n{json.dumps(A)}\r\n\r\n{json.dumps(B)}\r\n",
    "ndjson of containers": f"{json.dumps({'records': [A]})}\n{json.dumps([B])}\n",
}


@pytest.mark.parametrize("content", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "gzip"])
def test_every_container_gives_its_records(tmp_path: Path, content: str, start: bytes, *, packed: bool) -> None:
    raw = start + content.encode()

    path = written(tmp_path / "PT1H.json", gzip.compress(raw) if packed else raw)

    assert originals(path) == [A, B]


def test_one_object_is_one_record(tmp_path: Path) -> None:
    assert originals(written(tmp_path / "a.json", json.dumps(A))) == [A]
    assert originals(written(tmp_path / "b.json", json.dumps(A, indent=1))) == [A]


def test_log_analytics_tables_become_rows(tmp_path: Path) -> None:
    row = as_azkv(A)
    table = {"name": "PrimaryResult", "columns": [{"name": name, "type": "string"} for name in row]}
    path = written(tmp_path / "q.json", json.dumps({"tables": [table | {"rows": [list(row.values()), [1]]}]}))

    found = list(read([path]))

    assert found[0] == FileRecord(path, 1, row, 1)
    assert found[1] == FileRejected(path, 1, FileReason.ROW_OF_OTHER_LENGTH, 2)
    assert normalise(row).access_id == normalise(A).access_id


def test_places_are_lines_of_ndjson_and_items_of_documents(tmp_path: Path) -> None:
    lines = written(tmp_path / "a.ndjson", f"\n{json.dumps(A)}\n\n{json.dumps(B)}\n")
    document = written(tmp_path / "b.json", json.dumps([A, B], indent=1))

    places = [(item.path.name, item.line, item.item) for item in read([lines, document])]

    assert places == [("a.ndjson", 2, 1), ("a.ndjson", 4, 1), ("b.json", None, 1), ("b.json", None, 2)]


def test_a_last_line_that_is_cut_short_is_said_to_be_that(tmp_path: Path) -> None:
    path = written(tmp_path / "PT1H.json", f"{json.dumps(A)}\n{json.dumps(B)[:40]}")

    found = list(read([path]))

    assert found == [FileRecord(path, 1, A), FileRejected(path, 2, FileReason.CUT_SHORT)]


def test_one_bad_line_loses_one_line(tmp_path: Path) -> None:
    first = written(tmp_path / "a.ndjson", f"garbage\n{json.dumps(A)}\n")
    middle = written(tmp_path / "b.ndjson", f"{json.dumps(A)}\n{{]\n7\n{json.dumps(B)}\n")

    assert rejections(first) == [(1, FileReason.NOT_JSON)]
    assert rejections(middle) == [(2, FileReason.NOT_JSON), (3, FileReason.NOT_JSON)]
    assert sum(isinstance(item, FileRecord) for item in read([first, middle])) == 3


def test_items_that_are_no_objects_are_rejected_one_by_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps([A, 7, [B], None, B]))

    found = [(type(item), item.item) for item in read([path])]

    assert [item for kind, item in found if kind is FileRejected] == [2, 3, 4]
    assert [item for kind, item in found if kind is FileRecord] == [1, 5]


def test_deep_nesting_and_bad_utf8_are_rejected(tmp_path: Path) -> None:
    deep = written(tmp_path / "deep.json", "[" * 100_000 + "]" * 100_000)
    inside = written(tmp_path / "inside.json", '{"records":[' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "]}\n")
    latin = written(tmp_path / "latin.ndjson", b'{"a": "\xe9"}\n')

    assert rejections(deep, inside, latin) == [
        (1, FileReason.CUT_SHORT),
        (1, FileReason.NOT_JSON),
        (1, FileReason.NOT_JSON),
    ]


def test_a_document_that_does_not_parse_is_one_rejection(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps([A, B], indent=1)[:-20])

    assert rejections(path) == [(None, FileReason.NOT_JSON)]


def test_utf16_damaged_archives_and_missing_files_have_their_reasons(tmp_path: Path) -> None:
    wide = written(tmp_path / "wide.json", json.dumps(A).encode("utf-16"))
    cut = written(tmp_path / "cut.json.gz", gzip.compress(json.dumps([A] * 50).encode())[:-30])
    changed = written(tmp_path / "changed.json.gz", gzip.compress(json.dumps(A).encode())[:-6] + b"\0" * 6)

    found = rejections(wide, cut, changed, tmp_path / "nowhere")

    assert (None, FileReason.NOT_UTF8) in found
    assert found.count((None, FileReason.DAMAGED_ARCHIVE)) == 2
    assert found[-1] == (None, FileReason.MISSING)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_below_that_may_not_be_read_is_said_and_not_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "a.json", json.dumps(A))
    locked = written(tmp_path / "b" / "PT1H.json", json.dumps(B)).parent

    try:
        for mode in (0o000, 0o400):
            locked.chmod(mode)
            place = locked if mode == 0 else locked / "PT1H.json"
            assert list(read([tmp_path]))[1:] == [FileRejected(place, None, FileReason.UNREADABLE)]
    finally:
        locked.chmod(0o700)


def test_a_folder_is_read_to_the_bottom_in_order_and_only_for_logs(tmp_path: Path) -> None:
    written(tmp_path / "b" / "m=00" / "PT1H.json", json.dumps(B))
    written(tmp_path / "a" / "x.ndjson.gz", gzip.compress(json.dumps(A).encode()))
    written(tmp_path / ".hidden" / "x.json", json.dumps(A))
    written(tmp_path / "README.md", "no log")

    assert originals(tmp_path) == [A, B]


def test_a_table_export_in_a_folder_is_said_to_be_unread(tmp_path: Path) -> None:
    written(tmp_path / "export.csv", "TimeGenerated,OperationName\n")

    assert rejections(tmp_path) == [(None, FileReason.UNSUPPORTED_FILE)]


def test_a_line_and_a_record_and_a_document_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 5_000)
    long_line = written(tmp_path / "a.ndjson", f"{json.dumps(A)}\n{'x' * 200_000}\n{json.dumps(B)}\n")
    fat_record = written(tmp_path / "b.json", json.dumps([A, record(note="x" * 1_100_000)]))
    fat_alone = written(tmp_path / "c.json", json.dumps(record(note="x" * 1_100_000)))

    assert rejections(long_line) == [(2, FileReason.LINE_TOO_LONG)]
    assert rejections(fat_record, fat_alone) == [(1, FileReason.RECORD_TOO_LONG)] * 2
    monkeypatch.setattr(files, "MAX_DOCUMENT", 1_000_000)
    assert rejections(fat_record) == [(None, FileReason.DOCUMENT_TOO_LONG)]
    assert rejections(written(tmp_path / "d.json", json.dumps([A] * 1500, indent=1))) == [
        (None, FileReason.DOCUMENT_TOO_LONG),
    ]


def test_ndjson_is_never_held_whole(tmp_path: Path) -> None:
    line = json.dumps(A).encode() + b"\n"
    path = tmp_path / "PT1H.json"
    path.write_bytes(line * 20_000)

    tracemalloc.start()
    count = sum(1 for _ in read([path]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 2_000_000 < path.stat().st_size


def test_a_record_travels_whole_to_the_topic() -> None:
    message = decode(wrap(A, feed="files", resource_id="", fetched_us=1_794_796_867_000_000))

    assert (message.feed, message.resource_id, message.fetched_at) == ("files", None, "2026-11-16T02:41:07.000000Z")
    assert json.loads(bytes(message.original)) == A
