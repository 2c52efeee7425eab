"""The worker's figures for Prometheus: read from the shell when they are asked for, under a closed list of names.

Nothing is counted twice: the shell, its owners and the writer keep these numbers anyway. Labels are topics and channel
names only, never a tenant, a key or a principal, so their number is bounded and nothing secret is exported.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.index.writer import IndexWriter, OwnerKey
from streams.running.shell import KafkaShell
from streams.state import Kind

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

NAMES: Final = {
    "keytrail_build": "Version of keytrail, as a label.",
    "keytrail_partitions": "Input partitions that this worker owns.",
    "keytrail_takeovers": "Assignments that this worker has taken over.",
    "keytrail_messages": "Messages applied.",
    "keytrail_lag_messages": "Messages in the log that are not applied yet; looked at every ten seconds.",
    "keytrail_unindexed_messages": "Messages applied whose documents are not all in the index.",
    "keytrail_log_gaps": "Holes in the log that were asked for and are not there.",
    "keytrail_rejections": "Messages that owned partitions could not take since they were taken over.",
    "keytrail_holds": "How often a partition was stopped because too much of it could not be taken.",
    "keytrail_revocations": "Revocations of keys that owned partitions have taken since they were taken over.",
    "keytrail_strays": "Messages of partitions that were not owned any more.",
    "keytrail_cuts": "Transactions committed.",
    "keytrail_uncommitted_seconds": "Age of the oldest change that is not committed.",
    "keytrail_state_records": "Records of state in memory.",
    "keytrail_index_documents": "Documents that the index has taken.",
    "keytrail_index_bulks": "Bulk requests that the index has answered.",
    "keytrail_index_retries": "Bulk requests that found no index.",
    "keytrail_index_refused": "Documents that the index will never take.",
    "keytrail_index_held_bytes": "Bytes of documents that wait for the index.",
    "keytrail_index_unavailable_seconds": "Time since the index stopped answering; 0 while it answers.",
    "keytrail_deliveries": "Notifications by channel and by whether the channel took them.",
}
"""Every name that is exported, with what it says (a counter's has `_total` behind it)."""


class WorkerFigures(Collector):
    """Reads the figures of one worker at the moment they are asked for."""

    def __init__(
        self,
        shell: KafkaShell,
        writer: IndexWriter,
        *,
        lags: Callable[[], Mapping[OwnerKey, int]],
        deliveries: Mapping[tuple[str, str], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._shell = shell
        self._writer = writer
        self._lags = lags
        self._deliveries = deliveries
        self._monotonic = monotonic

    def collect(self) -> Iterator[Metric]:
        """Yield every figure of `NAMES`."""
        build = _gauge("keytrail_build", ("version",))
        build.add_metric([version("keytrail")], 1)
        yield build
        yield from self._of_partitions()
        yield from self._of_the_index()
        deliveries = _counter("keytrail_deliveries", ("channel", "outcome"))
        for labels, count in sorted(self._deliveries.items()):
            deliveries.add_metric(labels, count)
        yield deliveries

    def _of_partitions(self) -> Iterator[Metric]:
        sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        sums["keytrail_messages"] |= self._shell.messages
        lags = self._lags()
        for (topic, partition), owner in self._shell.owners.items():
            sums["keytrail_partitions"][topic] += 1
            sums["keytrail_lag_messages"][topic] += lags.get((topic, partition), 0)
            sums["keytrail_unindexed_messages"][topic] += owner.applied - owner.indexed
            sums["keytrail_rejections"][topic] += owner.rejections
            sums["keytrail_log_gaps"][topic] += owner.gaps
            sums["keytrail_cuts"][topic] += owner.cuts
            sums["keytrail_state_records"][topic] += sum(owner.state.count(kind) for kind in Kind)
            waiting = sums["keytrail_uncommitted_seconds"]
            waiting[topic] = max(waiting[topic], owner.waiting_s)
        for name in sorted(_BY_TOPIC):
            family = _counter(name, ("topic",)) if name in _COUNTERS else _gauge(name, ("topic",))
            for topic, value in sorted(sums[name].items()):
                family.add_metric([topic], value)
            yield family
        yield _counter("keytrail_takeovers", value=self._shell.takeovers)
        yield _counter("keytrail_holds", value=self._shell.gate.holds)
        revocations = sum(owner.revocations for owner in self._shell.owners.values())
        yield _counter("keytrail_revocations", value=revocations)
        yield _counter("keytrail_strays", value=self._shell.strays)

    def _of_the_index(self) -> Iterator[Metric]:
        writer = self._writer
        yield _counter("keytrail_index_documents", value=writer.documents)
        yield _counter("keytrail_index_bulks", value=writer.bulks)
        yield _counter("keytrail_index_retries", value=writer.retries)
        yield _counter("keytrail_index_refused", value=writer.refusals)
        yield _gauge("keytrail_index_held_bytes", value=writer.held)
        since_s = writer.unavailable_since
        yield _gauge("keytrail_index_unavailable_seconds", value=0 if since_s is None else self._monotonic() - since_s)


_BY_TOPIC: Final = frozenset(
    {
        "keytrail_partitions",
        "keytrail_messages",
        "keytrail_rejections",
        "keytrail_lag_messages",
        "keytrail_unindexed_messages",
        "keytrail_log_gaps",
        "keytrail_cuts",
        "keytrail_state_records",
        "keytrail_uncommitted_seconds",
    }
)
_COUNTERS: Final = frozenset({"keytrail_messages", "keytrail_rejections", "keytrail_log_gaps", "keytrail_cuts"})


def exposition(figures: Collector) -> bytes:
    """Write the figures in Prometheus's text form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    return generate_latest(registry)


def _gauge(name: str, labels: tuple[str, ...] = (), value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, NAMES[name], labels=None if value is not None else labels, value=value)


def _counter(name: str, labels: tuple[str, ...] = (), value: float | None = None) -> CounterMetricFamily:
    return CounterMetricFamily(name, NAMES[name], labels=None if value is not None else labels, value=value)
