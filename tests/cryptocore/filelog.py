"""A log in a file, for tests that kill its writer: one sealed batch a line, only whole lines count."""

import base64
import json
import os
from pathlib import Path

from cryptocore.batch import SealedBatch


class FileTransport:
    """Appends each batch with a single write."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def send(self, partition: int, batch: SealedBatch) -> None:
        parts = [base64.b64encode(part).decode() for part in (batch.value, batch.seal, batch.signature)]
        os.write(self._descriptor, json.dumps([partition, *parts]).encode() + b"\n")

    async def close(self) -> None:
        os.close(self._descriptor)


def read_log(path: Path) -> list[tuple[int, SealedBatch]]:
    """Read what arrived; what a killed writer left of a line is no batch."""
    batches = []
    for line in path.read_bytes().split(b"\n"):
        try:
            partition, *parts = json.loads(line)
        except ValueError:
            continue
        batches.append((partition, SealedBatch(*(base64.b64decode(part) for part in parts))))
    return batches
