"""The whole month: who acts, what was planted, what is declared, and what people decide."""

import random
from dataclasses import dataclass
from functools import cached_property

from bench.month import told
from bench.month.acts import Act, oid
from bench.month.attacks import Attacks
from bench.month.chain import Sent
from bench.month.fleet import ADMIN, Fleet
from bench.month.plan import DAY_S, HOUR_S, KEKS, START_S, VAULTS, Calendar
from bench.month.records import resource_id
from bench.month.signs import Signs
from bench.month.staff import staff
from bench.month.told import Expected, Planted
from bench.month.traffic import traffic
from cryptocore.registry import RegisteredSigner, Registry, Role
from streams.feeds.vaults import DeclaredVault, VaultDeclarations
from streams.simulated import DEPLOYMENT

_YEAR_MS = 366 * DAY_S * 1000


@dataclass(frozen=True)
class Month:
    """Acts in the order of time, batches in the order of the log; times in seconds count from the start."""

    calendar: Calendar
    acts: list[Act]
    batches: list[Sent]
    registry: Registry
    planted: list[Planted]
    expected: list[Expected]
    repaired_s: float

    @property
    def declared(self) -> VaultDeclarations:
        """What vaults.toml would say."""
        keks = {vault: tuple(name for where, name in KEKS.values() if where == vault) for vault in VAULTS}
        quiet_ms = told.QUIET_HOURS * HOUR_S * 1000
        return VaultDeclarations(
            {
                vault: DeclaredVault(
                    name=vault,
                    resource_id=resource_id(vault).lower(),
                    owner="platform",
                    keks=keks[vault],
                    quiet_ms=quiet_ms,
                )
                for vault in VAULTS
            }
        )

    @property
    def accepted(self) -> list[tuple[float, str]]:
        """When a person accepts the new level of whom."""
        times = self.calendar
        return sorted(
            [(times.restarts_accepted_at * DAY_S, "svc-large"), (times.plugin_accepted_at * DAY_S, "svc-plugin")]
        )

    @cached_property
    def names(self) -> dict[str, str]:
        """The month's names of principals, by object id."""
        return {oid(act.principal): act.principal for act in self.acts if act.principal}


def month(calendar: Calendar, seed: int) -> Month:
    """Draw a month."""
    draw = random.Random(f"month {seed}")
    fleet = Fleet(calendar, seed)
    planted = Attacks(calendar, fleet)
    signs = Signs(calendar, draw)
    fleet.administer()
    planted.before_work()
    fleet.work()
    planted.after_work()
    everything = [*traffic(calendar, draw), *staff(calendar, draw), *fleet.acts, *planted.acts, *signs.acts]
    logged = [act for act in everything if not planted.silenced(act)]
    return Month(
        calendar=calendar,
        acts=sorted(logged, key=lambda act: act.at_us),
        batches=sorted(fleet.log.sent),
        registry=_registry(fleet),
        planted=sorted([*planted.planted, *signs.planted], key=lambda one: one.at_s),
        expected=told.expected(calendar),
        repaired_s=planted.repaired_s,
    )


def _registry(fleet: Fleet) -> Registry:
    entries = [
        RegisteredSigner(
            signer_id=signer.signer_id,
            public_key=signer.public_key,
            source=name,
            roles=frozenset({Role.EVENTS, Role.KEYS} if name == ADMIN else {Role.EVENTS}),
            vault_principals=(oid(name),),
            person=None,
            valid_from_ms=START_S * 1000 - _YEAR_MS,
            valid_until_ms=START_S * 1000 + _YEAR_MS,
        )
        for name, signer in fleet.signers.items()
    ]
    return Registry(deployment=DEPLOYMENT, signers=tuple(entries))
