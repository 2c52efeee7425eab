"""What compressing sealed batches saves: bytes an event takes in the log, without and with each compression.

The broker stores record batches as producers build them, so this builds them with the producer's own code and needs no
broker. `python -m bench.compression` prints a line for each; lz4 and zstd only where the package cramjam is installed.
"""

from typing import Final

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from bench.sealed_load import Load
from cryptocore.batch import SealedBatch
from cryptocore.kafka import COMPRESSIONS

EVENTS: Final = 10_000
SIZES: Final = (500, 50, 5, 1)
KEYS: Final = 200
_CODECS: Final = {
    "none": 0,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}


def stored(batch: SealedBatch, compression: str) -> int:
    """Bytes of a message in the log."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=_CODECS[compression],
        is_transactional=0,
        producer_id=1,
        producer_epoch=0,
        base_sequence=0,
        batch_size=2**20,
    )
    builder.append(0, timestamp=1, key=None, value=batch.value, headers=batch.headers())
    return len(builder.build())


def main() -> None:
    able = [name for name, possible in COMPRESSIONS.items() if possible()]
    for size in SIZES:
        load = Load(batches=max(1, EVENTS // size // 10), keys=KEYS, events_a_batch=size)
        batches = [batch for _, batch in load.batches[load.uses_from :]]
        events = len(batches) * size
        for name in able:
            taken = sum(stored(batch, name) for batch in batches) / events
            print(f"{size:>4} events a message, {name:4}: {taken:6.1f} B an event")


if __name__ == "__main__":
    main()
