"""From the vault's record to the person: join, triage and delivery in one shell over the embedded index."""

from pathlib import Path

from alerts.model import Notification
from alerts.thresholds import HOUR_MS, MINUTE_MS, Limits
from streams.alerting.triage import TriageStep
from streams.index.embedded import EmbeddedIndex
from streams.index.mappings import unmapped
from streams.index.port import DocKind
from streams.joining import correlate
from streams.joining.join import JoinStep
from streams.messages import CORRELATE, FINDINGS
from streams.running.memory import MemoryShell
from tests.streams.joining.join_bench import STRANGER, T0, intent, outcome, progress, registry, request_id, use


class Pager:
    """Keeps what people were sent."""

    def __init__(self) -> None:
        self.sent: list[Notification] = []

    async def send(self, notification: Notification) -> None:
        self.sent.append(notification)


def _shell(index: EmbeddedIndex, pager: Pager) -> MemoryShell:
    return MemoryShell(
        steps={
            CORRELATE: lambda _: JoinStep(registry=registry(), limits=Limits()),
            FINDINGS: lambda _: TriageStep(limits=Limits()),
        },
        partitions={CORRELATE: 2},
        index=index,
        notifiers=[pager],
    )


async def test_a_stolen_identity_is_told_once_and_a_late_event_takes_its_alert_back(tmp_path: Path) -> None:
    index, pager = EmbeddedIndex(tmp_path / "index.sqlite"), Pager()
    await index.ensure()
    shell = _shell(index, pager)
    records = [
        *(use(f"theft-{number}", T0 + number * 1000, principal_id=STRANGER) for number in range(14)),
        intent("ours"),
        outcome("ours"),
        use("ours", correlation=request_id("ours")),
        use("late", T0 + 50, correlation=request_id("late")),
        progress(T0 - MINUTE_MS),
    ]
    for record in records:
        shell.append(CORRELATE, key=b"kv-prod/tenant-kek", value=correlate.encode(record), append_ms=T0 + MINUTE_MS)
    await shell.run()
    for minute in range(2, 6):
        await shell.tick(T0 + minute * MINUTE_MS)

    shell.append(CORRELATE, key=b"kv-prod/tenant-kek", value=correlate.encode(outcome("late")), append_ms=T0 + HOUR_MS)
    await shell.run()
    await shell.tick(T0 + HOUR_MS + MINUTE_MS)
    await shell.close()

    uses = await index.find(DocKind.KEK_USE)
    alerts = await index.find(DocKind.ALERT)
    await index.close()
    statuses = sorted(f"{one['status']} {one['strength']}" for one in uses)
    assert statuses == ["matched exact"] * 2 + ["unaccounted None"] * 14
    assert [unmapped(DocKind.KEK_USE, one) for one in uses] == [[]] * 16
    assert {(one["severity"], one["status"], one["count"]) for one in alerts} == {
        ("critical", "open", 14),
        ("medium", "resolved", 0),
    }
    assert [(one.kind, one.severity) for one in pager.sent] == [
        ("opened", "critical"),
        ("opened", "medium"),
        ("resolved", "medium"),
        ("worse", "critical"),
    ]
    assert "1 \u2192 14 hits" in pager.sent[-1].subject, "the first hit is told at once, the rest is growth"
    assert all(one["delivered"] for one in alerts)
