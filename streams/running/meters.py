"""What steps have counted, read out of the owners of one process: for the summary of a demo or a replay."""

from collections.abc import Iterable

from streams.messages import KEY_EVENTS, VAULT_ACCESS
from streams.running.partition_owner import PartitionOwner
from streams.state import Kind
from streams.trail import keys, refusals
from streams.vaultlogs import vault


def duplicates(owners: Iterable[PartitionOwner]) -> dict[str, int]:
    """Return how many batches and vault records came again and were dropped, by the names `Totals` has for them."""
    batches = records = 0
    for owner in owners:
        topic, _ = owner.key
        if topic == KEY_EVENTS:
            batches += (owner.state.get(Kind.METER, keys.METER, refusals.Meter) or refusals.Meter()).duplicates
        elif topic == VAULT_ACCESS:
            records += (owner.state.get(Kind.METER, vault.METER, vault.VaultMeter) or vault.VaultMeter()).duplicates
    return {"duplicate_batches": batches, "duplicate_vault": records}
