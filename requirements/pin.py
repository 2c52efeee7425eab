"""Writes requirements/*.txt: the ranges of pyproject.toml and the tools below, resolved by pip to exact versions.

`make pins` keeps the versions that are pinned already and adds what is new; `make pins ARGS=--upgrade` takes the newest
that the ranges allow. Run it on the oldest Python that is supported, so that what only that one needs is pinned too.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
TEST_TOOLS = (
    "aiohttp",
    "alembic",
    "azure-identity",
    "azure-monitor-query",
    "build",
    "celery",
    "fastapi",
    "flask",
    "gevent",
    "hatchling",
    "hypothesis",
    "import-linter",
    "jsonschema",
    "mypy",
    "packaging",
    "pytest",
    "pytest-asyncio",
    "pytest-cov",
    "pytest-timeout",
    "ruff",
    "selenium",
    "types-jsonschema",
)
BENCH_TOOLS = ("aws-encryption-sdk", "uvloop")
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "demo": (("demo",), ("hatchling", "editables")),  # with these two the project itself is installed, editable
    "monitor": (("monitor", "azure", "feeds"), ()),
    "test": (("all",), (*TEST_TOOLS, "editables")),
    "bench": (("all",), (*TEST_TOOLS, *BENCH_TOOLS, "editables")),
}


def requirements(extras: tuple[str, ...]) -> list[str]:
    """The base dependencies and those of the extras, `keytrail[…]` inside an extra expanded."""
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        for requirement in PROJECT["optional-dependencies"][extra]:
            own = re.fullmatch(r"keytrail\[(.+)\]", requirement)
            wanted += requirements(tuple(own[1].split(","))) if own else [requirement]
    return sorted(set(wanted))


def resolve(wanted: list[str], constraints: Path) -> list[str]:
    """Ask pip what it would install into an empty environment."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
        options = ["--ignore-installed", "--report", str(report), "--constraint", str(constraints)]
        subprocess.run([*pip, *options, *wanted], check=True)
        items = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return sorted(f"{re.sub(r'[-_.]+', '-', item['name']).lower()}=={item['version']}" for item in items)


def main() -> None:
    """Resolve every set under the same constraints, so that one package has one version everywhere."""
    pinned = {line for name in SETS for line in _lines(HERE / f"{name}.txt")}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        if "--upgrade" not in sys.argv:
            constraints.write("\n".join(sorted(pinned)))
            constraints.flush()
        for name, (extras, tools) in SETS.items():
            lines = resolve([*requirements(extras), *tools], Path(constraints.name))
            header = f"# Written by `make pins` from pyproject.toml [{', '.join(extras)}] and pin.py; do not edit.\n"
            (HERE / f"{name}.txt").write_text(header + "\n".join(lines) + "\n")
            sys.stdout.write(f"pins: {name}.txt: {len(lines)} packages\n")


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "==" in line] if path.exists() else []


if __name__ == "__main__":
    main()
