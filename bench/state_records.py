"""A key's record in the state topic, as MessagePack and as JSON: its size, and what writing and reading it takes.

python -m bench.state_records
"""

import os
import time
from collections.abc import Callable

import msgspec

from alerts.thresholds import Limits
from cryptocore.clock import SystemClock
from streams.state import decode, encode
from streams.trail.key_history import KeyHistory, VersionHistory

TIMES = 20_000
_WHO = b"user:1234 tokens:refresh billing"


def full_history() -> KeyHistory:
    """A key in use for long: two life-cycle events, and as many uses as are kept."""
    now_ms = SystemClock().now_us() // 1000
    digests = {1: os.urandom(32), 2: os.urandom(32)}
    version = VersionHistory(1, "active", revision=2, first=1, changed_ms=now_ms, digests=digests, used=2)
    uses = [now_ms.to_bytes(8, "big") + os.urandom(31) + _WHO for _ in range(Limits().recent_uses)]
    counts = {"decrypt/succeeded": 31_412, "encrypt/succeeded": 12_077}
    return KeyHistory("t-88", "crm", now_ms, counts, [version], uses)


def _us(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        call()
    return (time.perf_counter() - began) / TIMES * 1e6


def main() -> None:
    history = full_history()
    for name, written, write in (
        ("MessagePack", encode(history), lambda: encode(history)),
        ("JSON", b"\x01" + msgspec.json.encode(history), lambda: b"\x01" + msgspec.json.encode(history)),
    ):
        assert decode(written, KeyHistory) == history
        read_us = _us(lambda written=written: decode(written, KeyHistory))  # type: ignore[misc]
        print(f"{name:11} {len(written):5} bytes, written in {_us(write):.1f} µs, read in {read_us:.1f} µs")


if __name__ == "__main__":
    main()
