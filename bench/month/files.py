"""The month as files, as a storage account and a backup of the log would hold them: what `keytrail replay` reads."""

from pathlib import Path

from bench.month.feed import Feed, arrivals
from bench.month.world import Month
from streams.demo.vaultfolder import write_vault_logs
from streams.replaying.batchfile import write_batches
from streams.replaying.outfolder import OutFolder


def write(month: Month, seed: int, path: Path, *, feed: Feed | None = None) -> None:
    """Write vault-logs/, batches.ndjson and sources.json below `path`: the records that arrived, copies among them.

    Raises:
        FolderInUse: the folder holds what keytrail did not write.
    """
    out = OutFolder(path)
    out.clear()
    write_vault_logs(out, [arrival.record for arrival in arrivals(month.acts, seed, feed or Feed())])
    batches = ((sent.partition, sent.append_ms, sent.batch) for sent in month.batches)
    write_batches(out.file("batches.ndjson"), batches)
    out.file("sources.json").write_bytes(month.registry.encode())
