"""Who used a key lately, read from real documents in an index."""

from pathlib import Path

from alerts.thresholds import DAY_MS, HOUR_MS
from cryptocore.care.impact import ServiceUse
from cryptocore.clock import rfc3339_ms
from cryptocore.events import KekRef, Operation, Phase, VaultAttempt
from cryptocore.testing import ManualClock
from streams.index.embedded import EmbeddedIndex
from streams.index.usehistory import IndexHistory
from tests.streams.builders import KEY_ID, NOW_MS, Monitor, Sender, event, fresh_id, registered

KEK = KekRef(vault="kv-prod", name="tenant-kek", version="a" * 32)


async def test_each_service_and_operation_is_told_with_the_shortest_time_that_shows_it(tmp_path: Path) -> None:
    billing, crm = Sender("billing"), Sender("crm", instance=b"\xbb" * 16)
    monitor = Monitor(registered("billing", billing.signer), registered("crm", crm.signer), partitions=1)
    at = rfc3339_ms(NOW_MS)
    attempt = VaultAttempt(call_id=fresh_id(), request_id="r-1", http_status=200, started_at=at, ended_at=at)
    calls = [
        event(Operation.UNWRAP, at_ms=NOW_MS, phase=Phase.INTENT, outcome=None, kek=KEK, call_ids=(attempt.call_id,)),
        event(
            Operation.UNWRAP,
            at_ms=NOW_MS,
            phase=Phase.OUTCOME,
            kek=KEK,
            intent_id=fresh_id(),
            vault_attempts=(attempt,),
        ),
    ]
    uses = [event(Operation.DECRYPT, at_ms=NOW_MS - n) for n in range(3)]
    others = [
        event(Operation.DECRYPT, at_ms=NOW_MS, key_id="ab" * 16),
        event(Operation.SUSPEND, at_ms=NOW_MS, revision=3),
    ]
    monitor.take(billing.open(), billing.seal(*uses, *calls, *others))
    monitor.take(crm.open(), crm.seal(event(Operation.ENCRYPT, at_ms=NOW_MS, service="crm")))
    index = EmbeddedIndex(tmp_path / "index.sqlite")
    await index.ensure()
    await index.write(monitor.documents)
    soon = IndexHistory(index, ManualClock(rfc3339_ms(NOW_MS + 1_000)))
    later = IndexHistory(index, ManualClock(rfc3339_ms(NOW_MS + 2 * DAY_MS)))

    assert await soon.of_key(KEY_ID) == (
        ServiceUse("billing", "decrypt", 3, HOUR_MS),
        ServiceUse("billing", "unwrap", 1, HOUR_MS),
        ServiceUse("crm", "encrypt", 1, HOUR_MS),
    )
    assert {use.within_ms for use in await later.of_key(KEY_ID)} == {7 * DAY_MS}
    assert await soon.of_kek("KV-prod", "tenant-kek") == (ServiceUse("billing", "unwrap", 1, HOUR_MS),)
    assert await soon.of_key("cd" * 16) == ()
    await index.close()
