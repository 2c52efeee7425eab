"""What has to be told, what may be, and what is known to be told of ordinary work: the month's own expectations."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from bench.month.plan import CUT_VAULT, DAY_S, KEKS, MINUTE_S, OWN_ROTATION, Calendar

SHUFFLE_S: Final = 10 * MINUTE_S
"""No record arrives later than this."""
TICK_S: Final = MINUTE_S
"""The month lets the monitor's clock move on this often: times are known no better."""
AT_ONCE_S: Final = SHUFFLE_S + TICK_S
PROVISIONAL_S: Final = AT_ONCE_S + 2 * MINUTE_S
BASELINE_S: Final = 21 * MINUTE_S + TICK_S
EVENT_S: Final = 2 * TICK_S


class Told(NamedTuple):
    """An alert: its rule, whom it names (by the month's name), and what about."""

    rule: str
    principal: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """An attack: when its first act is, the one alert that it has to give, and how soon after that act at the latest.

    `severity` is what the alert has in the end.
    """

    title: str
    at_s: float
    told: Told
    severity: str
    bound_s: float


@dataclass(frozen=True, slots=True)
class Expected:
    """An alert that ordinary work gives, and why that is right. `least` and `most` say how many."""

    told: Told
    why: str
    least: int = 1
    most: int = 1


def expected(calendar: Calendar) -> list[Expected]:
    """Alerts that ordinary work gives."""
    found = [
        Expected(Told("volume_anomaly", "svc-large", "kv-prod"), "a fleet restarts within two minutes, until accepted"),
        Expected(Told("volume_anomaly", "svc-plugin", "kv-ops"), "an upgrade reads 100 times as often, until accepted"),
        Expected(Told("first_seen_access", "svc-new", "kv-prod"), "a service that did not exist before"),
        Expected(
            Told("first_seen_access", "ci-deploy", "kv-prod"),
            "a new secret is made; where the only record of a weekly act was lost, that act a week later",
            most=2,
        ),
        Expected(Told("first_seen_access", "svc-04", "kv-prod"), "... and read for the first time"),
        Expected(Told("first_seen_access", "person-0", "kv-prod"), "a colleague looks at another's secret"),
        Expected(Told("kek_administration", "person-1", "kv-ops/archive-kek"), "the disabled KEK is enabled again"),
    ]
    found += [
        Expected(Told("silent_source", "ledger", ""), "a service does not reach Kafka for 45 minutes"),
        Expected(Told("pending_source", "ledger", ""), "... so that its KEK uses wait for their events"),
    ]
    weeks = 1 + calendar.days // 7  # one at a time: an alert is open for a week after its last hit
    apart = _apart(calendar.kek_rotations)
    for alias, (vault, name) in KEKS.items():
        where = f"{vault}/{name}"
        if alias != OWN_ROTATION:
            found.append(Expected(Told("kek_administration", "ci-deploy", where), "a rotation, as info", apart, apart))
    for vault in sorted({vault for vault, _ in KEKS.values()}):
        most = weeks + (vault == CUT_VAULT)  # the alert about the cut ends the one that is open then
        found.append(Expected(Told("audit_coverage", "", vault), "1 % of the vault's records is lost", 0, most))
    return found


def _apart(days: tuple[int, ...]) -> int:
    """How many alerts acts on these days give: one is open for a week after its last hit."""
    return 1 + sum(later - earlier > 7 for earlier, later in pairwise(days))


QUIET_HOURS: Final = 24
"""After which a declared vault is called silent; the cut one is silent for longer."""
CUT_S: Final = 1.5 * DAY_S
