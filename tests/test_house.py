"""The house rules that a machine can check: who imports whom, what no file may name, how long a module may grow."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 300
LONGER_WITH_REASON = {
    "alerts/model.py": "all that rules see, in one place, as design.md asks: mostly fields and their meaning",
    "cryptocore/core.py": "the public face: half of it is the docstrings that callers read",
    "cryptocore/emitter.py": "one process's audit trail from open to close; its parts are files of their own already",
    "cryptocore/spool/file.py": "one SQLite file and every statement that touches it",
    "streams/index/elastic.py": "the only file that may import the client",
    "streams/index/writer.py": "one queue with its bounds; half of it is the meaning of its counters",
    "streams/trail/keys.py": "the numbered protocol of a batch",
    "streams/presence/sources.py": "one numbered protocol: heads, gaps, silence, closing",
    "streams/alerting/triage.py": "the life of an alert, from finding to delivery",
}

# Put together here, so that this file names none of them itself.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("repo", "maven", "apache", "org"),
        ("repo1", "maven", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
    )
)
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(?:work|root|home|tmp)/\w")


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git work tree: nothing to list")
    files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for file in tracked_files():
        data = file.read_bytes()
        if b"\0" not in data[:8192]:
            found.append((file.relative_to(ROOT).as_posix(), data.decode(errors="replace")))
    return found


def test_imports_keep_to_the_contracts() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


def test_no_file_names_the_host_of_a_package_registry() -> None:
    named = [f"{path}: {host}" for path, text in texts() for host in REGISTRY_HOSTS if host in text]

    assert named == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    named = [f"{path}: {match[0]}" for path, text in texts() for match in MACHINE_PATHS.finditer(text)]

    assert named == []


def test_the_path_rule_sees_such_a_path_and_no_other() -> None:
    seen = [
        bool(MACHINE_PATHS.search(text))
        for text in ("cd /" + "work/main", 'open("/' + "tmp/x", "a/root/b", "/usr/lib/jvm")
    ]

    assert seen == [True, True, False, False]


def test_modules_stay_short_enough_to_read_at_once() -> None:
    lengths = {
        path: text.count("\n")
        for path, text in texts()
        if path.endswith(".py") and not path.startswith("tests/")  # a test file is a list of sentences
    }

    assert {
        path: length for path, length in lengths.items() if length > LONGEST and path not in LONGER_WITH_REASON
    } == {}
    assert [path for path in LONGER_WITH_REASON if lengths.get(path, 0) <= LONGEST] == []
