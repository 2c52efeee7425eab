"""The services that read secrets and use no KEK: restarts, deployments, a fleet that restarts at once, a plugin."""

import random
from collections.abc import Iterator, Sequence

from bench.month.acts import Act, us
from bench.month.plan import DAY_S, HOUR_S, VAULTS, Calendar

LARGE_SECRET, PLUGIN_SECRET = 50, 11
_FIVE_OF_SIX = 3


def secret(number: int) -> str:
    """Name a secret of a vault by its number."""
    return f"app-{number:02}"


def traffic(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """All of them, service by service."""
    for number in range(calendar.services):
        yield from _service(calendar, draw, number)
    yield from _large(calendar, draw)
    yield from _plugin(calendar, draw)
    yield from _new_service(calendar, draw)


def started(
    draw: random.Random, at_s: float, *, who: str, vault: str, names: Sequence[str], address: str
) -> Iterator[Act]:
    """A process start: a challenge, then each secret once."""
    yield Act(at_us=us(at_s), principal="", vault=vault, operation="Authentication", status=401, address=address)
    for order, name in enumerate(names, 1):
        yield read(us(at_s + order * draw.uniform(0.1, 0.9)), who, vault, name, address)


def read(at_us: int, who: str, vault: str, name: str, address: str) -> Act:
    """One read of a secret."""
    return Act(at_us=at_us, principal=who, vault=vault, operation="SecretGet", name=name, address=address)


def _service(calendar: Calendar, draw: random.Random, number: int) -> Iterator[Act]:
    """Two to six pods that read their secrets at start, every four hours, and when they are deployed."""
    who, vault = f"svc-{number:02}", "kv-prod" if number % _FIVE_OF_SIX else "kv-ops"
    names = [secret((number * 3 + one) % VAULTS[vault]) for one in range(draw.randint(1, 4))]
    pods, address, end_s = draw.randint(2, 6), f"20.50.{number}.10", calendar.days * DAY_S
    for _ in range(pods):
        at_s = draw.uniform(0, HOUR_S)
        restart_s = at_s + draw.uniform(1, 5) * DAY_S
        while at_s < end_s:
            if at_s >= restart_s:
                restart_s += draw.uniform(2, 6) * DAY_S
                address = f"20.50.{number}.{draw.randint(2, 250)}"
            yield from started(draw, at_s, who=who, vault=vault, names=names, address=address)
            at_s += 4 * HOUR_S + draw.uniform(-300, 300)
    deploy_s = draw.uniform(1, 4) * DAY_S
    while deploy_s < end_s:
        for pod in range(pods):
            at_s = deploy_s + pod * draw.uniform(5, 40)
            yield from started(draw, at_s, who=who, vault=vault, names=names, address=address)
        deploy_s += draw.uniform(2, 5) * DAY_S


def _large(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """Many pods, spread over the hours, that on some days are all restarted within two minutes."""
    names = [secret(LARGE_SECRET)]
    for pod in range(calendar.pods):
        address = f"20.60.1.{pod}"
        for turn in range(calendar.days * 6):
            at_s = (pod / calendar.pods + turn) * 4 * HOUR_S + draw.uniform(0, 200)
            yield from started(draw, at_s, who="svc-large", vault="kv-prod", names=names, address=address)
        for day in calendar.restarts:
            at_s = day * DAY_S + 14 * HOUR_S + draw.uniform(0, 120)
            yield from started(draw, at_s, who="svc-large", vault="kv-prod", names=names, address=address)


def _plugin(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """Two reads every half an hour; for some hours after an upgrade two hundred."""
    for step in range(calendar.days * 48):
        reads = 200 if calendar.plugin <= step / 48 < calendar.plugin + calendar.plugin_hours / 24 else 2
        for _ in range(reads):
            at_s = step * 1800 + draw.uniform(0, 240)
            yield read(us(at_s), "svc-plugin", "kv-ops", secret(PLUGIN_SECRET), "20.50.70.4")


def _new_service(calendar: Calendar, draw: random.Random) -> Iterator[Act]:
    """A service that did not exist before."""
    begin_s = calendar.new_service * DAY_S + 10 * HOUR_S
    for step in range(int((calendar.days * DAY_S - begin_s) / (4 * HOUR_S))):
        at_s = begin_s + step * 4 * HOUR_S + draw.uniform(0, 60)
        yield from started(
            draw, at_s, who="svc-new", vault="kv-prod", names=[secret(41), secret(42)], address="20.50.60.6"
        )
