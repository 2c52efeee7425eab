"""A folder for results loses what an earlier run left there, and nothing else."""

from pathlib import Path

import pytest

from streams.replaying.outfolder import LISTING, FolderInUse, OutFolder
from streams.vaultlogs.files import walk


def begun(path: Path) -> OutFolder:
    folder = OutFolder(path)
    folder.clear()
    return folder


def below(path: Path) -> set[str]:
    return {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()} - {LISTING}


def test_results_of_an_earlier_run_are_gone_also_when_it_was_stopped(tmp_path: Path) -> None:
    first = begun(tmp_path / "out")
    first.file("rejected.ndjson").write_text("old")
    (first.file(".work") / "spools").mkdir(parents=True)
    (tmp_path / "out" / ".work" / "spools" / "one.sqlite").write_text("old")

    second = begun(tmp_path / "out")
    second.file("summary.json").write_text("new")

    assert below(tmp_path / "out") == {"summary.json"}


def test_what_somebody_put_beside_the_results_stays(tmp_path: Path) -> None:
    begun(tmp_path / "out").file("summary.json").write_text("old")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "notes").mkdir()

    begun(tmp_path / "out")

    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "out" / "notes").is_dir()


@pytest.mark.parametrize("name", ["sources.json", "vault-logs/prod/PT1H.json", ".work/mine", "index.sqlite"])
def test_a_file_that_keytrail_did_not_write_is_never_deleted(tmp_path: Path, name: str) -> None:
    begun(tmp_path / "out").file("summary.json").write_text("old")
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")

    with pytest.raises(FolderInUse, match="no demo or replay wrote it"):
        OutFolder(tmp_path / "out")

    assert mine.read_text() == "mine"
    assert (tmp_path / "out" / "summary.json").read_text() == "old"


def test_a_file_that_came_while_the_logs_were_read_is_not_deleted_either(tmp_path: Path) -> None:
    folder = OutFolder(tmp_path / "out")
    (tmp_path / "out" / "sources.json").write_text("mine")

    with pytest.raises(FolderInUse):
        folder.clear()

    assert (tmp_path / "out" / "sources.json").read_text() == "mine"


def test_a_link_in_the_place_of_a_result_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "PT1H.json").write_text("mine")
    begun(tmp_path / "out")
    (tmp_path / "out" / "vault-logs").symlink_to(tmp_path / "logs", target_is_directory=True)

    with pytest.raises(FolderInUse):
        OutFolder(tmp_path / "out")

    assert (tmp_path / "logs" / "PT1H.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "read"),
    [
        ("logs", "logs"),
        ("logs/deep/results", "logs"),
        ("logs/../logs/x", "logs"),
        ("here", "here/vault-logs"),
        ("here", "here/vault-logs/a.json"),
        ("here", "here/batches.ndjson"),
        ("here", "linked.json"),
    ],
)
def test_results_never_go_where_something_is_read(tmp_path: Path, out: str, read: str) -> None:
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "vault-logs").mkdir(parents=True)
    (tmp_path / "here" / "vault-logs" / "a.json").write_text("{}")
    (tmp_path / "here" / "sources.json").write_text("{}")
    (tmp_path / "linked.json").hardlink_to(tmp_path / "here" / "sources.json")

    with pytest.raises(FolderInUse, match="another folder for the results"):
        OutFolder(tmp_path / out, reads=[tmp_path / read])

    assert not (tmp_path / "logs" / "deep" / "results").exists()


def test_a_file_beside_the_results_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "logs.json").write_text("{}")

    OutFolder(tmp_path, reads=[tmp_path / "logs.json"]).clear()

    assert (tmp_path / "logs.json").read_text() == "{}"


def test_one_folder_of_logs_is_copied_as_it_is_without_what_is_no_log(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for name in ("y=2026/PT1H.json", "old.csv", ".hidden.json", "readme.md"):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_text(name)
    folder = begun(tmp_path / "out")

    folder.copy_vault_logs([logs])
    begun(tmp_path / "out")

    assert below(logs) == {"y=2026/PT1H.json", "old.csv", ".hidden.json", "readme.md"}
    assert below(tmp_path / "out") == set(), "the copies are ours to delete"


def test_copies_of_several_keep_their_order_and_are_read_again(tmp_path: Path) -> None:
    names = ["z.json", "export", ".mine", "a.json.gz", *(f"{number}.ndjson" for number in range(8))]
    for name in names:
        (tmp_path / name).write_text(name)
    folder = begun(tmp_path / "out")

    folder.copy_vault_logs([tmp_path / name for name in names])

    assert [path.read_text() for path in walk([tmp_path / "out" / "vault-logs"])] == names


def test_files_of_lines_are_joined_without_gluing_two_lines(tmp_path: Path) -> None:
    for name, text in (("one", "a\nb"), ("none", ""), ("two", "c\n")):
        (tmp_path / name).write_text(text)
    folder = begun(tmp_path / "out")

    folder.concatenate([tmp_path / name for name in ("one", "none", "two")], "batches.ndjson")

    assert (tmp_path / "out" / "batches.ndjson").read_text() == "a\nb\nc\n"
