"""When what happens: the calendar of the whole month and of a short one for tests. Day 0 is a Monday."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

START_S: Final = 1_790_553_600
"""Monday, 2026-09-28, 00:00 UTC."""
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
WEEKDAYS: Final = 5

VAULTS: Final = {"kv-prod": 60, "kv-ops": 40, "kv-eu": 12}
"""Each vault and how many secrets it holds."""
KEKS: Final = {
    "tenant-kek": ("kv-prod", "tenant-kek"),
    "tokens-kek": ("kv-prod", "tokens-kek"),
    "eu-kek": ("kv-eu", "tenant-kek"),
    "secrets-kek": ("kv-ops", "secrets-kek"),
    "archive-kek": ("kv-ops", "archive-kek"),
}
"""Alias of the KEK: its vault and name there."""
OWN_ROTATION: Final = "secrets-kek"
"""The KEK that the key service rotates itself; all others are the pipeline's to rotate."""
OUTAGE_S: Final = 45 * MINUTE_S
CUT_VAULT: Final = "kv-eu"
"""The vault whose log is cut."""
CLIENTS: Final = frozenset({"kv-prod"})
"""Vaults whose log shows the client's id; the others show the service's (reports on the real one differ)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """Days are counted from 0; what says `at` is in days and fractions. Nothing unusual is before day 7.

    `ledger_hours` are when the ledger opens, changes to another process, and shuts; at `outage_at` it does not reach
    Kafka for a while. On `kek_through_keytrail` one KEK is rotated by the key service, with an event.
    """

    days: int
    services: int
    people: int
    pods: int
    jobs_a_day: int
    ledger_hours: tuple[int, int, int]
    restarts: tuple[int, ...]
    restarts_accepted_at: float
    plugin: int
    plugin_hours: int
    plugin_accepted_at: float
    new_service: int
    colleague: int
    new_secret: int
    kek_rotations: tuple[int, ...]
    kek_through_keytrail: int
    dek_rotations: tuple[int, ...]
    deployments: tuple[int, ...]
    crash: int
    outage_at: float
    attacks: Mapping[str, float]

    def attack_at(self, name: str) -> float:
        """Seconds from the start at which a planted attack begins."""
        return self.attacks[name] * DAY_S


def hour(day: int, hours: float) -> float:
    """Write a time of day as days and a fraction."""
    return day + hours / 24


FULL: Final = Calendar(
    days=31,
    services=16,
    people=10,
    pods=40,
    jobs_a_day=10,
    ledger_hours=(8, 13, 18),
    restarts=(9, 12, 16, 19, 23, 26, 30),
    restarts_accepted_at=10,
    plugin=12,
    plugin_hours=24,
    plugin_accepted_at=hour(12, 18),
    new_service=15,
    colleague=15,
    new_secret=20,
    kek_rotations=(3, 17),
    kek_through_keytrail=17,
    dek_rotations=(5, 12, 19, 26),
    deployments=(2, 9, 16, 23, 30),
    crash=18,
    outage_at=hour(13, 9),
    attacks={
        "stolen": hour(21, 2.5),
        "copied": hour(21, 11.2),
        "intruder": hour(22, 2.5),
        "revoked": hour(22, 14.1),
        "collector": hour(23, 3),
        "doors": hour(24, 13),
        "disabled": hour(24, 16.3),
        "words": hour(25, 4),
        "wrap": hour(25, 10.4),
        "scanner": hour(26, 1),
        "identity": hour(27, 3.1),
        "backup": hour(28, 15.2),
        "purge": hour(28, 21),
        "cut": hour(29, 1),
    },
)
SHORT: Final = Calendar(
    days=11,
    services=6,
    people=4,
    pods=24,
    jobs_a_day=3,
    ledger_hours=(10, 12, 13),
    restarts=(7, 9),
    restarts_accepted_at=8,
    plugin=8,
    plugin_hours=5,
    plugin_accepted_at=hour(8, 4),
    new_service=8,
    colleague=8,
    new_secret=8,
    kek_rotations=(0, 8),
    kek_through_keytrail=8,
    dek_rotations=(3, 8),
    deployments=(1, 8),
    crash=8,
    outage_at=hour(8, 10.2),
    attacks={
        "stolen": hour(9, 2.5),
        "copied": hour(9, 11.2),
        "intruder": hour(9, 4.2),
        "revoked": hour(9, 14.1),
        "collector": hour(9, 23),
        "doors": hour(9, 13),
        "disabled": hour(9, 16.3),
        "words": hour(9, 20),
        "wrap": hour(10, 2.4),
        "scanner": hour(9, 1),
        "identity": hour(10, 3.1),
        "backup": hour(10, 9.2),
        "purge": hour(10, 13),
        "cut": hour(9, 0.5),
    },
)
