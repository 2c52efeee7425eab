"""A month of a company's Key Vaults, drawn from a seed: services, people, a backup, deployments; and what goes wrong.

Everything is a list of acts in event time; `record` makes an act the audit record that the vault would write, and
`arrivals` what a feed does to them: late, out of order, doubled, lost. EXPECTED and PLANTED say what has to be told,
POSSIBLE what may be told where records are lost. Day 0 is a Monday.
"""

import math
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from cryptocore.clock import rfc3339

DAYS: Final = 31
START_S: Final = 1_790_553_600  # Monday, 2026-09-28
_DAY_S: Final = 86_400
_HOUR_S: Final = 3_600
SECRETS: Final = {"kv-prod": 60, "kv-ops": 40}
KEKS: Final = ("tenant-kek", "tokens-kek")
PEOPLE: Final = 10
SERVICES: Final = 18
SMALL: Final = range(16)
LARGE: Final = 16
PLUGIN: Final = 17


@dataclass(frozen=True, slots=True)
class Act:
    """One call; `principal` "" is a challenge."""

    at_us: int
    principal: str
    vault: str
    operation: str
    name: str = ""
    status: int = 200
    address: str = "20.50.1.7"


class Told(NamedTuple):
    """An alert: what it is called, who, where."""

    rule: str
    principal: str
    vault: str


EXPECTED: Final = (
    Told("volume_anomaly", "svc-large", "kv-prod"),  # 40 pods restart at once, until the level is accepted
    Told("volume_anomaly", "svc-plugin", "kv-ops"),  # the upgrade reads a hundred times as often, until accepted
    Told("first_seen_access", "svc-new", "kv-prod"),  # a service that did not exist before
    Told("first_seen_access", "ci-deploy", "kv-prod"),  # a secret is made ...
    Told("first_seen_access", "svc-04", "kv-prod"),  # ... and read for the first time
    Told("first_seen_access", "person-4", "kv-prod"),  # a colleague looks at a secret that was another's
)
PLANTED: Final = (
    Told("first_seen_access", "intruder", "kv-prod"),  # a new principal at night
    Told("first_seen_access", "svc-05", "kv-prod"),  # a stolen one lists, then gets forty secrets
    Told("denied_burst", "person-7", "kv-ops"),  # doors tried
    Told("names_guessed", "svc-08", "kv-ops"),  # a word list
    Told("lone_challenges", "address:198.51.100.9", "kv-prod"),  # a scanner without credentials
)
POSSIBLE: Final = (
    # A weekly act whose only record of the learning week was lost is new a week later; such acts of administration are
    # told even of a principal that is still being learned.
    Told("first_seen_access", "ci-deploy", "kv-prod"),
)
ACCEPTED: Final = ((10 * _DAY_S, "svc-large"), (12 * _DAY_S + 18 * _HOUR_S, "svc-plugin"))
"""Seconds after the start at which a person accepts the new level."""


def oid(principal: str) -> str:
    """The object id that stands for a name of the simulation."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{principal}.keytrail.test"))


def secret(number: int) -> str:
    return f"app-{number:02}"


def acts(seed: int = 1) -> list[Act]:
    """All of the month, in event time."""
    draw = random.Random(seed)
    found: list[Act] = []
    for number in SMALL:
        found += _service(draw, number)
    found += _large(draw)
    found += _plugin(draw)
    for number in range(PEOPLE):
        found += _person(draw, number)
    found += _backup(draw)
    found += _deployments(draw)
    found += _new_service(draw)
    found += _attacks(draw)
    return sorted((replace(act, at_us=act.at_us + START_S * 1_000_000) for act in found), key=lambda act: act.at_us)


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _started(
    draw: random.Random, at_s: float, *, who: str, vault: str, names: Sequence[str], address: str
) -> list[Act]:
    """A process start: a challenge, then each secret once."""
    found = [Act(_us(at_s), "", vault, "Authentication", status=401, address=address)]
    for order, name in enumerate(names, 1):
        found.append(Act(_us(at_s + order * draw.uniform(0.1, 0.9)), who, vault, "SecretGet", name, address=address))
    return found


def _service(draw: random.Random, number: int) -> Iterator[Act]:
    """Two to six pods that read their secrets at start and every four hours; a quarter of them unwrap all day."""
    who, vault = f"svc-{number:02}", "kv-prod" if number % 3 else "kv-ops"
    names = [secret((number * 3 + one) % SECRETS[vault]) for one in range(draw.randint(1, 4))]
    pods, address = draw.randint(2, 6), f"20.50.{number}.10"
    for _ in range(pods):
        at_s = draw.uniform(0, _HOUR_S)
        restart_s = at_s + draw.uniform(1, 5) * _DAY_S
        while at_s < DAYS * _DAY_S:
            if at_s >= restart_s:
                restart_s += draw.uniform(2, 6) * _DAY_S
                address = f"20.50.{number}.{draw.randint(2, 250)}"
            yield from _started(draw, at_s, who=who, vault=vault, names=names, address=address)
            at_s += 4 * _HOUR_S + draw.uniform(-300, 300)
    deploy_s = draw.uniform(1, 4) * _DAY_S
    while deploy_s < DAYS * _DAY_S:
        for pod in range(pods):
            yield from _started(
                draw, deploy_s + pod * draw.uniform(5, 40), who=who, vault=vault, names=names, address=address
            )
        deploy_s += draw.uniform(2, 5) * _DAY_S
    if number % 4 == 1:
        yield from _unwraps(draw, who, address, KEKS[number % 8 == 1])


def _unwraps(draw: random.Random, who: str, address: str, kek: str) -> Iterator[Act]:
    """DEKs leave the caches: a handful in five minutes by day, hardly any at night."""
    for step in range(DAYS * 288):
        hour = step * 300 / _HOUR_S % 24
        busy = max(0.05, math.sin((hour - 6) / 14 * math.pi)) if 6 <= hour <= 20 else 0.05
        for _ in range(sum(draw.random() < 0.15 for _ in range(int(8 * busy)))):
            yield Act(_us(step * 300 + draw.uniform(0, 300)), who, "kv-prod", "KeyUnwrap", kek, address=address)


def _large(draw: random.Random) -> Iterator[Act]:
    """Forty pods, spread over the hours, that are all restarted within two minutes twice a week from day 9 on."""
    for pod in range(40):
        for round_ in range(DAYS * 6):
            at_s = (pod / 40 + round_) * 4 * _HOUR_S + draw.uniform(0, 200)
            yield from _started(
                draw, at_s, who="svc-large", vault="kv-prod", names=[secret(50)], address=f"20.60.1.{pod}"
            )
    for day in (9, 12, 16, 19, 23, 26, 30):
        for pod in range(40):
            at_s = day * _DAY_S + 14 * _HOUR_S + draw.uniform(0, 120)
            yield from _started(
                draw, at_s, who="svc-large", vault="kv-prod", names=[secret(50)], address=f"20.60.1.{pod}"
            )


def _plugin(draw: random.Random) -> Iterator[Act]:
    """Two reads every half an hour; on day 12 two hundred."""
    for step in range(DAYS * 48):
        reads = 200 if 12 <= step / 48 < 13 else 2
        for _ in range(reads):
            at_s = step * 1800 + draw.uniform(0, 240)
            yield Act(_us(at_s), "svc-plugin", "kv-ops", "SecretGet", secret(11), address="20.50.70.4")


def _person(draw: random.Random, number: int) -> Iterator[Act]:
    """Office hours on weekdays: five secrets of one's own, a list now and then; on some days from home."""
    who, vault = f"person-{number}", "kv-prod" if number % 2 else "kv-ops"
    if number == 4:
        vault = "kv-prod"
    mine = [secret((number * 4 + one) % SECRETS[vault]) for one in range(5)]
    for day in range(DAYS):
        if day % 7 >= 5:
            continue
        address = f"203.0.{number}.{draw.randint(2, 250)}" if draw.random() < 0.8 else f"93.{200 + number}.4.20"
        at_s = day * _DAY_S + 8 * _HOUR_S + draw.uniform(0, 5_400)
        yield Act(_us(at_s), who, vault, "SecretList", address=address)
        if day % 7 == 0:
            yield Act(_us(at_s + 5), who, vault, "KeyList", address=address)
        for _ in range(draw.randint(8, 18)):
            at_s += draw.uniform(60, 2_400)
            yield Act(_us(at_s), who, vault, "SecretGet", draw.choice(mine), address=address)
        if number == 4 and day == 15:
            yield Act(_us(at_s + 60), who, vault, "SecretGet", secret(48), address=address)
            yield Act(_us(at_s + 90), who, vault, "SecretGet", secret(48), address=address)


def _backup(draw: random.Random) -> Iterator[Act]:
    """Every night at two: list, then read everything in both vaults."""
    for day in range(DAYS):
        at_s = day * _DAY_S + 2 * _HOUR_S + draw.uniform(0, 60)
        for vault, count in SECRETS.items():
            yield Act(_us(at_s), "backup", vault, "SecretList", address="20.50.80.3")
            for number in range(count):
                at_s += draw.uniform(0.2, 3)
                yield Act(_us(at_s), "backup", vault, "SecretGet", secret(number), address="20.50.80.3")


def _deployments(draw: random.Random) -> Iterator[Act]:
    """Secrets get new values weekly, KEKs new versions every two weeks; on day 20 there is one secret more."""
    for day in range(2, DAYS, 7):
        for number in range(0, 60, 3):
            at_s = day * _DAY_S + 10 * _HOUR_S + number * 20 + draw.uniform(0, 10)
            yield Act(_us(at_s), "ci-deploy", "kv-prod", "SecretSet", secret(number), address="20.50.90.2")
    for day in (3, 17):
        for kek in KEKS:
            at_s = day * _DAY_S + 11 * _HOUR_S + draw.uniform(0, 600)
            yield Act(_us(at_s), "ci-deploy", "kv-prod", "KeyRotate", kek, address="20.50.90.2")
    at_s = 20 * _DAY_S + 9 * _HOUR_S
    yield Act(_us(at_s), "ci-deploy", "kv-prod", "SecretSet", "app-new", address="20.50.90.2")
    owner = "svc-04"
    for step in range(6 * 10):
        yield Act(_us(at_s + 600 + step * 4 * _HOUR_S), owner, "kv-prod", "SecretGet", "app-new", address="20.50.4.10")


def _new_service(draw: random.Random) -> Iterator[Act]:
    for step in range(6 * 16):
        at_s = 15 * _DAY_S + 10 * _HOUR_S + step * 4 * _HOUR_S + draw.uniform(0, 60)
        yield from _started(
            draw, at_s, who="svc-new", vault="kv-prod", names=[secret(41), secret(42)], address="20.50.60.6"
        )


def _attacks(draw: random.Random) -> Iterator[Act]:
    night_s = 22 * _DAY_S + 2.5 * _HOUR_S
    for order in range(3):
        name = secret(order * 7)
        yield Act(_us(night_s + order * 40), "intruder", "kv-prod", "SecretGet", name, address="185.220.4.4")
    stolen_s = 23 * _DAY_S + 3 * _HOUR_S
    yield Act(_us(stolen_s), "svc-05", "kv-prod", "SecretList", address="185.220.7.9")
    for order in range(40):
        at_s = stolen_s + 10 + order * draw.uniform(2, 4)
        yield Act(_us(at_s), "svc-05", "kv-prod", "SecretGet", secret(order), address="185.220.7.9")
    doors_s = 24 * _DAY_S + 13 * _HOUR_S + 40
    for order in range(12):
        name = secret(30 + order % 6)
        yield Act(_us(doors_s + order * 9), "person-7", "kv-ops", "SecretGet", name, 403, "203.0.7.30")
    words_s = 25 * _DAY_S + 4 * _HOUR_S + 70
    for order in range(15):
        yield Act(_us(words_s + order * 6), "svc-08", "kv-ops", "SecretGet", f"guess-{order}", 404, "20.50.8.10")
    for _ in range(1_200):
        at_s = 26 * _DAY_S + draw.uniform(0, 2 * _HOUR_S)
        yield Act(_us(at_s), "", "kv-prod", "Authentication", status=401, address="198.51.100.9")


def record(act: Act, number: int) -> dict[str, Any]:
    """The audit record of an act, in the shape of the vault's own blobs; `number` makes it distinct."""
    host = f"https://{act.vault}.vault.azure.net"
    kind = "keys" if act.operation.startswith("Key") else "secrets"
    place = f"{host}/{kind}/{act.name}" if act.name else f"{host}/{kind}"
    properties: dict[str, Any] = {"httpStatusCode": act.status, "requestUri": f"{place}?api-version=7.6"}
    if act.name:
        properties["id"] = place
    if act.status == 403:
        properties["isRbacAuthorized"] = False
    claim = {"oid": oid(act.principal), "appid": oid(f"app of {act.principal}")}
    if act.principal.startswith("person"):
        claim = {"oid": oid(act.principal), "upn": f"{act.principal}@example.test", "scp": "user_impersonation"}
    return {
        "time": rfc3339(act.at_us)[:-1] + "0Z",
        "category": "AuditEvent",
        "operationName": act.operation,
        "resultType": "Success",
        "correlationId": str(uuid.UUID(int=number)),
        "callerIpAddress": act.address,
        "identity": {"claim": claim} if act.principal else {},
        "properties": properties,
        "resourceId": f"/SUBSCRIPTIONS/S/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/{act.vault.upper()}",
        "resultSignature": "OK",
        "durationMs": "12",
    }


def arrivals(
    month: Sequence[Act], seed: int, *, lost: float = 0.01, doubled: float = 0.02, shuffle_s: float = 600
) -> list[tuple[int, int]]:
    """When which act arrives: (milliseconds, index), in order of arrival; up to `shuffle_s` late, each on its own."""
    draw = random.Random(seed)
    found = []
    for index, act in enumerate(month):
        if draw.random() < lost:
            continue
        times = 2 if draw.random() < doubled else 1
        found += [(act.at_us // 1000 + int(draw.uniform(0, shuffle_s) * 1000), index) for _ in range(times)]
    return sorted(found)
