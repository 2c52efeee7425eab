"""KEK uses that wait for the events of a service that is behind: one finding a service, not an alert for each use.

When a service does not reach Kafka, the vault's log goes on and every use of a KEK by its identity lacks its event for
a while. That says something about what can be seen, and nothing about the uses. So until the last word on a use, it is
a hit of the one finding `pending_source`, and is taken back when the service caught up, or with the last word.

Not so where no event can be on its way: a use that carries the id of another call was copied; a service of which no
process is known to run, silent or not, has nothing to send; and one that reports in time is not behind.
"""

from typing import Final

from alerts import grouping
from alerts.model import Evidence, Finding, KekUse, KekUseStatus
from alerts.system import system_finding
from alerts.thresholds import Limits
from alerts.words import duration

_NO_EVENT: Final = "no_event"


def waits(use: KekUse, judged_ms: int, limits: Limits) -> bool:
    """Say whether an unaccounted use may still be explained by its source, which is behind.

    A source that reports as it should is a heartbeat behind when a use is judged for the first time. Such a use is told
    at once as what it is: the last word is a matter of seconds.
    """
    provisional = use.status is KekUseStatus.UNACCOUNTED and not use.final
    if not provisional or use.reason != _NO_EVENT or not use.source or not use.behind_ms:
        return False
    passed_ms = use.time_us // 1000 + limits.join_slack_ms - use.behind_ms
    return judged_ms - passed_ms >= limits.heartbeat_ms * limits.silent_heartbeats


def finding(use: KekUse, limits: Limits) -> Finding:
    """Say that its source is behind; all uses of all KEKs by one source have one fingerprint."""
    source, behind = use.source or "", duration(use.behind_ms or 0)
    living = f"{use.instances} live processes" if use.instances else "no process of it is live"
    return system_finding(
        "pending_source",
        summary=f"{source} is {behind} behind: uses of KEKs by its identity wait for its events",
        effective_ms=use.time_us // 1000,
        principal=source,
        who=f"{source}, {living}",
        sure=f"nobody can say yet whether these uses were its own; judged for good within {duration(limits.final_ms)}",
        evidence=(Evidence("kek-use", use.id, use.time_us // 1000),),
        facts={"behind": behind, "key": f"{use.vault}/{use.name}"},
    )


def is_hit(fingerprint: str, use: KekUse, limits: Limits) -> bool:
    """Say whether a hit, by its fingerprint in hex, is one of its source's `pending_source`."""
    return fingerprint == grouping.fingerprint(finding(use, limits)).hex()


def explanation(use: KekUse, limits: Limits) -> str:
    """Why a use waits no longer."""
    if use.status is KekUseStatus.MATCHED:
        return f"{use.source} caught up: its events explain the uses"
    if use.behind_ms == 0:
        return f"{use.source} caught up: what its events do not explain is told as unaccounted"
    return f"{use.source} was waited for {duration(limits.final_ms)}: what nothing explains is told as unaccounted"
