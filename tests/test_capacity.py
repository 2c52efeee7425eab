"""docs/capacity.md is filled from measurements: each block is made, and a figure says where it comes from."""

import re
from pathlib import Path

import pytest

from bench import capacity

PAGE = Path(__file__).parent.parent / "docs" / "capacity.md"


def row(name: str, value: float, bench: str = "worker") -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "unit": "events/s",
        "baseline": None,
        "baseline_name": None,
        "ratio": None,
        "n": 1,
        "bench": bench,
    }


def test_the_page_has_each_block_once() -> None:
    assert sorted(re.findall(r"<!-- measured: (\w+) -->", PAGE.read_text())) == sorted(capacity.BLOCKS)


def test_filling_twice_changes_nothing_more() -> None:
    rows = {"worker_stub": row("worker_stub", 70_000)}
    once = capacity.filled(PAGE.read_text(), rows)

    assert capacity.filled(once, rows) == once


def test_a_figure_stands_beside_the_command_that_measured_it_and_what_is_missing_says_so() -> None:
    told = capacity.BLOCKS["events"]({"worker_stub": row("worker_stub", 70_123.4)})

    assert "| 70,123 events/s |  | `worker_stub`, `make bench ARGS=worker` |" in told
    assert "not measured |  | `worker_stub_1` |" in told


def test_messages_a_second_follow_from_linger_and_traffic() -> None:
    rows = {"worker_stub": row("worker_stub", 50_000), "worker_stub_1": row("worker_stub_1", 1_000)}
    told = capacity.BLOCKS["messages"](rows)
    peak_s = capacity.EVENTS_A_DAY * capacity.PEAK / capacity.DAY_S
    senders = capacity.INSTANCES * capacity.PARTITIONS

    assert f"| 250 ms | {senders / (0.25 + senders / peak_s):,.0f} |" in told
    message_s, event_s = capacity.costs(rows) or (0, 0)
    assert message_s + event_s == pytest.approx(1 / 1_000)
    assert message_s / 500 + event_s == pytest.approx(1 / 50_000)


def test_a_page_that_asks_for_an_unknown_block_is_an_error() -> None:
    with pytest.raises(KeyError):
        capacity.filled("<!-- measured: nonsense -->\n<!-- end -->", {})


def test_the_arithmetic_of_a_day_needs_all_it_is_made_of() -> None:
    names = (
        "worker_elasticsearch",
        "kafka_bytes_per_event_50",
        "elasticsearch_bytes_per_event",
        "memory_per_key",
    )
    rows = {name: row(name, 100.0) for name in names}

    assert "| log a day, one copy | 1.00 TB |" in capacity.BLOCKS["day"](rows)
    assert "not measured: memory_per_key" in capacity.BLOCKS["day"]({name: rows[name] for name in names[:-1]})
