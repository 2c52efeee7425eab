"""`make bench [ARGS='core demo']`: run the benchmarks, print a table, write bench/out/results.json."""

import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.result import Result

ALL = ("core", "keys", "rewrap", "vault", "worker", "demo")
OUT = Path(__file__).parent / "out" / "results.json"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in ALL]
    if unknown:
        sys.stderr.write(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(ALL)}\n")
        return 2
    console = Console()
    results: list[Result] = []
    for name in names or ALL:
        console.print(f"[dim]bench {name} …[/]")
        results += importlib.import_module(f"bench.bench_{name}").run()
    console.print(_table(results))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([_row(each) for each in results], indent=2) + "\n")
    return 0


def _row(result: Result) -> dict[str, str | float | int | None]:
    fields = ("name", "value", "unit", "baseline_name", "baseline", "ratio", "n")
    return {field: getattr(result, field) for field in fields}


def _table(results: list[Result]) -> Table:
    table = Table("name", "value", "unit", "beside", "its value", "ratio", "n")
    for each in results:
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
        beside, baseline = each.baseline_name or "", "" if each.baseline is None else f"{each.baseline:,.1f}"
        table.add_row(each.name, f"{each.value:,.1f}", each.unit, beside, baseline, ratio, str(each.n))
    return table


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
