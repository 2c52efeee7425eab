"""Which partition of `key-events` a line goes to."""

from typing import Final
from zlib import crc32

from cryptocore.events import AuditEvent, Line

MAX_PARTITIONS: Final = 64  # a heartbeat names the head of every chain of a process in one line of 16 KiB


def partition_of(key: bytes, count: int) -> int:
    """Choose the partition among `count` for the bytes of a key."""
    return crc32(key) % count


def partition_key(line: Line, instance: bytes) -> bytes:
    """Give the bytes by which a line finds its partition.

    An event goes by its key id, or by the id that the envelope claimed, so that one key's events meet on one
    partition; an event without either, and every control line, goes by the instance.
    """
    if isinstance(line, AuditEvent):
        key_id = line.claimed_key_id if line.key is None else line.key.id
        if key_id is not None:
            return bytes.fromhex(key_id)
    return instance
