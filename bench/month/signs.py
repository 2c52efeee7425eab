"""Attacks that only the past of a principal shows, or nothing but their number: acts, and what each has to give."""

import random
from dataclasses import replace
from typing import Final

from bench.month.acts import Act, us
from bench.month.calls import FORBIDDEN
from bench.month.plan import Calendar
from bench.month.told import BASELINE_S, Planted, Told
from bench.month.traffic import read, secret

CHALLENGES: Final = 1_200
SCANNER: Final = "198.51.100.9"
_ELSEWHERE: Final = "185.220.7.9"


class Signs:
    """These attacks of a month; `acts` are theirs and `planted` what they have to give."""

    def __init__(self, calendar: Calendar, draw: random.Random) -> None:
        self._draw = draw
        self.acts: list[Act] = []
        self.planted: list[Planted] = []
        at = calendar.attack_at
        self._intruder(at("intruder"))
        self._collector(at("collector"))
        self._doors(at("doors"))
        self._word_list(at("words"))
        self._scanner(at("scanner"))

    def _intruder(self, at_s: float) -> None:
        for order in range(3):
            self.acts.append(read(us(at_s + order * 40), "intruder", "kv-prod", secret(order * 7), "185.220.4.4"))
        self._sign("a new principal at night", at_s, "first_seen_access", "intruder", "kv-prod", "low")

    def _collector(self, at_s: float) -> None:
        self.acts.append(
            Act(
                at_us=us(at_s),
                principal="svc-05",
                vault="kv-prod",
                operation="SecretList",
                address=_ELSEWHERE,
                spared=True,
            )
        )
        for order in range(40):
            later_s = 10 + order * self._draw.uniform(2, 4)
            self.acts.append(read(us(at_s + later_s), "svc-05", "kv-prod", secret(order), _ELSEWHERE))
        self._sign("list, then get", at_s, "first_seen_access", "svc-05", "kv-prod", "high")

    def _doors(self, at_s: float) -> None:
        names = [secret(30 + order % 6) for order in range(12)]
        self._refused(at_s, "person-2", "203.0.2.30", names, FORBIDDEN)
        self._sign("doors tried", at_s, "denied_burst", "person-2", "kv-ops", "medium")

    def _word_list(self, at_s: float) -> None:
        self._refused(at_s, "svc-02", "20.50.2.10", [f"guess-{order}" for order in range(15)], 404)
        self._sign("a word list of names", at_s, "names_guessed", "svc-02", "kv-ops", "medium")

    def _refused(self, at_s: float, who: str, address: str, names: list[str], status: int) -> None:
        for order, name in enumerate(names):
            act = read(us(at_s + order * 8), who, "kv-ops", name, address)
            self.acts.append(replace(act, status=status))

    def _scanner(self, at_s: float) -> None:
        for number in range(CHALLENGES):
            self.acts.append(
                Act(
                    at_us=us(at_s + number * 6),
                    principal="",
                    vault="kv-prod",
                    operation="Authentication",
                    status=401,
                    address=SCANNER,
                )
            )
        told = Told("lone_challenges", f"address:{SCANNER}", "kv-prod")
        bound_s = CHALLENGES * 6 + BASELINE_S
        self.planted.append(
            Planted(title="sign-ins without a token", at_s=at_s, told=told, severity="low", bound_s=bound_s)
        )

    def _sign(  # noqa: PLR0917 - the fields of one entry, in their order
        self, title: str, at_s: float, rule: str, who: str, vault: str, severity: str
    ) -> None:
        told = Told(rule, who, vault)
        self.planted.append(Planted(title=title, at_s=at_s, told=told, severity=severity, bound_s=BASELINE_S))
