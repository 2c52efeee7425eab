"""`make bench [ARGS='core demo']`: run the benchmarks, print a table, write bench/out/results.json.

`scale` stands for all that docs/capacity.md is made of, less `worker`. `capacity [--write PAGE]` measures nothing: it
fills that page from the last results. What a run measures replaces what earlier runs of the same benchmarks left.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import capacity
from bench.result import Result

SCALE = ("latency", "two", "recovery", "memory", "sizes")
ALL = ("core", "keys", "rewrap", "vault", "worker", *SCALE, "demo")
OUT = Path(__file__).parent / "out" / "results.json"


def main(names: list[str]) -> int:
    if names[:1] == ["capacity"]:
        return capacity.main(names[1:], _rows())
    wanted = [one for name in names or ALL for one in (SCALE if name == "scale" else (name,))]
    unknown = [name for name in wanted if name not in ALL]
    if unknown:
        there = ", ".join((*ALL, "scale", "capacity"))
        sys.stderr.write(f"no such benchmark: {', '.join(unknown)}; there are {there}\n")
        return 2
    console = Console()
    results: list[Result] = []
    for name in wanted:
        console.print(f"[dim]bench {name} …[/]")
        measured: list[Result] = importlib.import_module(f"bench.bench_{name}").run()
        results += measured
        _keep(name, measured)
    console.print(_table(results))
    return 0


def _keep(name: str, measured: list[Result]) -> None:
    """Put what was measured in place of what this benchmark left before."""
    rows = [row for row in _rows() if row.get("bench") != name and row["name"] not in {one.name for one in measured}]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([*rows, *(_row(each, name) for each in measured)], indent=2) + "\n")


def _rows() -> list[dict[str, Any]]:
    """What runs have left; rows that do not say of which benchmark are of an older version, and no longer count."""
    return [row for row in json.loads(OUT.read_text()) if "bench" in row] if OUT.exists() else []


def _row(result: Result, bench: str) -> dict[str, str | float | int | None]:
    fields = ("name", "value", "unit", "baseline_name", "baseline", "ratio", "n")
    return {field: getattr(result, field) for field in fields} | {"bench": bench}


def _table(results: list[Result]) -> Table:
    table = Table("name", "value", "unit", "beside", "its value", "ratio", "n")
    for each in results:
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
        beside, baseline = each.baseline_name or "", "" if each.baseline is None else f"{each.baseline:,.1f}"
        table.add_row(each.name, f"{each.value:,.1f}", each.unit, beside, baseline, ratio, str(each.n))
    return table


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
