"""People, the nightly backup of secrets, and the pipeline that deploys, rotates and makes new secrets."""

import random
from collections.abc import Iterator

from bench.month.acts import Act, us
from bench.month.plan import DAY_S, HOUR_S, KEKS, OWN_ROTATION, VAULTS, WEEKDAYS, Calendar
from bench.month.traffic import read, secret

CURIOUS = 0
"""The person who opens another's secret for the first time."""
CURIOUS_SECRET = 48
NEW_SECRET, NEW_SECRET_OWNER = "app-new", "svc-04"
_FROM_THE_OFFICE = 0.8
_PIPELINE = "20.50.90.2"
BACKUP = "20.50.80.3"


def staff(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """All of them, one after the other."""
    for number in range(calendar.people):
        yield from _person(calendar, draw, number)
    yield from _backup(calendar, draw)
    yield from _deployments(calendar, draw)
    yield from _new_secret(calendar)


def _person(calendar: Calendar, draw: random.Random, number: int) -> Iterator[Act]:
    """Office hours on weekdays: five secrets of one's own, a list now and then; on some days from home."""
    who, vault = f"person-{number}", "kv-ops" if number % 2 else "kv-prod"
    mine = [secret((number * 4 + one) % VAULTS[vault]) for one in range(5)]
    for day in range(calendar.days):
        if day % 7 >= WEEKDAYS:
            continue
        office = draw.random() < _FROM_THE_OFFICE
        address = f"203.0.{number}.{draw.randint(2, 250)}" if office else f"93.{200 + number}.4.20"
        at_s = day * DAY_S + 8 * HOUR_S + draw.uniform(0, 5_400)
        yield _lists(us(at_s), who, vault, "SecretList", address)
        if day % 7 == 0:
            yield _lists(us(at_s + 5), who, vault, "KeyList", address)
        for _ in range(draw.randint(8, 18)):
            at_s += draw.uniform(60, 2_400)
            yield read(us(at_s), who, vault, draw.choice(mine), address)
        if number == CURIOUS and day == calendar.colleague:
            for later_s in (60, 90):
                yield read(us(at_s + later_s), who, vault, secret(CURIOUS_SECRET), address)


def _lists(at_us: int, who: str, vault: str, operation: str, address: str) -> Act:
    return Act(at_us=at_us, principal=who, vault=vault, operation=operation, address=address)


def _backup(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """Every night at two: list, then read every secret of every vault."""
    for day in range(calendar.days):
        at_s = day * DAY_S + 2 * HOUR_S + draw.uniform(0, 60)
        for vault, count in VAULTS.items():
            yield _lists(us(at_s), "backup", vault, "SecretList", BACKUP)
            for number in range(count):
                at_s += draw.uniform(0.2, 3)
                yield read(us(at_s), "backup", vault, secret(number), BACKUP)


def _deployments(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """Some secrets get new values with each deployment; KEKs get new versions as planned."""
    for day in calendar.deployments:
        for number in range(0, 60, 3):
            at_s = day * DAY_S + 10 * HOUR_S + number * 20 + draw.uniform(0, 10)
            yield _pipeline(us(at_s), "kv-prod", "SecretSet", secret(number))
    for day in calendar.kek_rotations:
        for order, (alias, (vault, name)) in enumerate(KEKS.items()):
            if alias == OWN_ROTATION:
                continue
            yield _pipeline(us(day * DAY_S + 11 * HOUR_S + order * 60), vault, "KeyRotate", name, spared=True)


def _new_secret(calendar: Calendar) -> Iterator[Act]:
    """The pipeline makes a secret, and a service reads it from then on."""
    at_s = calendar.new_secret * DAY_S + 9 * HOUR_S
    yield _pipeline(us(at_s), "kv-prod", "SecretSet", NEW_SECRET, spared=True)
    while (at_s := at_s + 4 * HOUR_S) < calendar.days * DAY_S:
        yield read(us(at_s + 600), NEW_SECRET_OWNER, "kv-prod", NEW_SECRET, "20.50.4.10")


def _pipeline(at_us: int, vault: str, operation: str, name: str, *, spared: bool = False) -> Act:
    return Act(
        at_us=at_us,
        principal="ci-deploy",
        vault=vault,
        operation=operation,
        name=name,
        address=_PIPELINE,
        spared=spared,
    )
