"""Fills docs/capacity.md from the last results: no figure on that page is typed by hand.

A block of the page stands between `<!-- measured: name -->` and `<!-- end -->`; what is not measured says so.
"""

import math
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

DAY_S: Final = 86_400
EVENTS_A_DAY: Final = 10_000_000_000
PEAK: Final = 3.0
"""The busiest minute of a day beside its mean: an assumption, as are the next."""
INSTANCES: Final = 500
PARTITIONS: Final = 32
LINGERS_S: Final = (0.25, 1.0, 5.0)
COPIES_LOG: Final = 3
DAYS_LOG: Final = 14
COPIES_INDEX: Final = 2

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
_BLOCK: Final = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str], rows: Sequence[Row]) -> int:
    """Print the blocks, or with `--write PAGE` put them into that page."""
    by_name = {row["name"]: row for row in rows}
    if not arguments:
        sys.stdout.write("".join(f"{name}\n\n{make(by_name)}\n" for name, make in BLOCKS.items()))
        return 0
    if len(arguments) != 2 or arguments[0] != "--write":
        sys.stderr.write("usage: python -m bench capacity [--write PAGE]\n")
        return 2
    page = Path(arguments[1])
    page.write_text(filled(page.read_text(encoding="utf-8"), by_name), encoding="utf-8")
    return 0


def filled(text: str, rows: Rows) -> str:
    """The page with every block made anew.

    Raises:
        KeyError: a block that nobody makes.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]](rows)}{found[3]}", text)


def _table(*names: tuple[str, str]) -> Callable[[Rows], str]:
    """Make a table of rows: what each means, its figure, what it stands beside, and its command."""

    def make(rows: Rows) -> str:
        lines = ["| what | figure | beside | row, command |", "|---|---|---|---|"]
        for name, meaning in names:
            row = rows.get(name)
            figure = "not measured" if row is None else f"{_number(row['value'])} {row['unit']}"
            lines.append(f"| {meaning} | {figure} | {_beside(row)} | `{name}`{_command(row)} |")
        return "\n".join(lines) + "\n"

    return make


def _beside(row: Row | None) -> str:
    if row is None or row["baseline"] is None:
        return ""
    return f"{row['ratio']:.2f} of {row['baseline_name']} ({_number(row['baseline'])})"


def _command(row: Row | None) -> str:
    return "" if row is None else f", `make bench ARGS={row['bench']}`"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _machine(_: Rows) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}; broker, index, sender and workers share it.\n"
    )


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", told.read_text(encoding="utf-8")) if told.exists() else []
    return str(models[0]) if models else platform.machine()


def costs(rows: Rows) -> tuple[float, float] | None:
    """Seconds that a message costs and seconds that an event costs, from the rates at 500 and 1 events a message."""
    if not rows.keys() >= {"worker_stub", "worker_stub_1"}:
        return None
    each_of_500, alone = 1 / rows["worker_stub"]["value"], 1 / rows["worker_stub_1"]["value"]
    message_s = (alone - each_of_500) * 500 / 499
    return message_s, alone - message_s


def _messages(rows: Rows) -> str:
    cost = costs(rows)
    if cost is None:
        return "not measured: `make bench ARGS=worker`\n"
    message_s, event_s = cost
    events_s = EVENTS_A_DAY * PEAK / DAY_S
    costs_told = f"{message_s * 1e6:,.0f} µs, and each event in it {event_s * 1e6:,.1f} µs"
    lines = [
        f"A message costs a worker {costs_told} (from `worker_stub` and `worker_stub_1`).",
        f"With {INSTANCES} instances, {PARTITIONS} partitions and {events_s:,.0f} events/s:",
        "",
        "| linger | messages/s | events a message | workers kept busy, index left out |",
        "|---|---|---|---|",
    ]
    for linger_s in LINGERS_S:
        between_s = INSTANCES * PARTITIONS / events_s
        messages_s = INSTANCES * PARTITIONS / (linger_s + between_s)
        busy = messages_s * message_s + events_s * event_s
        lines.append(
            f"| {linger_s * 1000:,.0f} ms | {messages_s:,.0f} | {events_s / messages_s:,.1f} | {math.ceil(busy)} |"
        )
    return "\n".join(lines) + "\n"


def _day(rows: Rows) -> str:
    needed = ("worker_elasticsearch", "kafka_bytes_per_event_50", "elasticsearch_bytes_per_event", "memory_per_key")
    missing = [name for name in needed if name not in rows]
    if missing:
        return f"not measured: {', '.join(missing)}\n"
    rate, kafka, index, key = (rows[name]["value"] for name in needed)
    mean = EVENTS_A_DAY / DAY_S
    kafka_day, index_day = EVENTS_A_DAY * kafka / 1e12, EVENTS_A_DAY * index / 1e12
    told: list[tuple[str, str, str]] = [
        ("events a second, mean", f"{mean:,.0f}", f"{EVENTS_A_DAY:,} / {DAY_S:,} s"),
        ("events a second, peak", f"{mean * PEAK:,.0f}", f"{PEAK:g} times the mean, assumed"),
        ("workers at the peak, each document written", f"{math.ceil(mean * PEAK / rate)}", "`worker_elasticsearch`"),
        ("log a day, one copy", f"{kafka_day:,.2f} TB", "`kafka_bytes_per_event_50`"),
        ("log on disk", f"{kafka_day * COPIES_LOG * DAYS_LOG:,.1f} TB", f"{COPIES_LOG} copies, {DAYS_LOG} days"),
        ("log written at the peak", f"{mean * PEAK * kafka * COPIES_LOG / 1e6:,.0f} MB/s", f"{COPIES_LOG} copies"),
        ("index a day, one copy", f"{index_day:,.2f} TB", "`elasticsearch_bytes_per_event`"),
        ("index a day", f"{index_day * COPIES_INDEX:,.2f} TB", f"{COPIES_INDEX} copies"),
        ("state of 100 million keys, all workers", f"{1e8 * key / 2**30:,.0f} GiB", "`memory_per_key`"),
    ]
    lines = [
        "| what | figure | from |",
        "|---|---|---|",
        *(f"| {what} | {figure} | {by} |" for what, figure, by in told),
    ]
    return "\n".join(lines) + "\n"


BLOCKS: Final[Mapping[str, Callable[[Rows], str]]] = {
    "machine": _machine,
    "events": _table(
        ("worker_stub", "one worker, index left out, 500 events a message"),
        ("worker_stub_50", "the same, 50 events a message"),
        ("worker_stub_5", "the same, 5"),
        ("worker_stub_1", "the same, 1"),
        ("worker_stub_1m_uniform", "500 a message, a million keys used all alike"),
        ("worker_stub_1m_zipf", "500 a message, a million keys used by rank"),
        ("worker_elasticsearch", "500 a message, every document written"),
        ("worker_events_per_cpu_s", "a worker process, for each CPU second it took"),
    ),
    "latency": _table(
        ("worker_latency_p50_ms", "event appended to alert delivered, median"),
        ("worker_latency_p99_ms", "the same, 99 of 100"),
        ("worker_cpu_at_2000", "cores that the worker took meanwhile"),
    ),
    "two": _table(
        ("worker_stub_one", "one worker process"),
        ("worker_stub_one_cores", "cores it took"),
        ("worker_stub_two", "two"),
        ("worker_stub_two_cores", "cores they took"),
        ("worker_stub_four", "four"),
        ("worker_stub_four_cores", "cores they took"),
    ),
    "recovery": _table(
        ("state_bytes_per_key", "state on the broker's disk, a key"),
        ("worker_recovery_100k", "start of a worker to its last partition, 100,000 keys"),
        ("worker_recovery_1m", "a million keys, compacted"),
        ("worker_recovery_1m_dirty", "a million keys, an hour's load not compacted yet"),
    ),
    "memory": _table(
        ("memory_per_key", "a key of a worker's partitions, four uses behind it"),
        ("memory_per_key_full", "the same with as many uses as a key remembers (32)"),
        ("memory_per_key_live", "a key used since the last cut, on top"),
        ("memory_per_principal", "a principal with its baseline"),
        ("worker_restored_rss", "a worker with a million keys, before its first message"),
        ("worker_outage_rss", "its most, while the index answers nobody"),
        ("worker_outage_growth", "what the second half of that load added"),
        ("worker_outage_held", "documents held for the index"),
    ),
    "sizes": _table(
        ("event_line_bytes", "an event as a line"),
        ("kafka_bytes_per_event_500", "an event in the log, 500 a message"),
        ("kafka_bytes_per_event_50", "50 a message"),
        ("kafka_bytes_per_event_5", "5 a message"),
        ("kafka_bytes_per_event_1", "1 a message"),
        ("elasticsearch_bytes_per_event", "an event in the index, merged, without a replica"),
    ),
    "messages": _messages,
    "day": _day,
}
