"""What this week's data says about clauses of the policy: observed, with exceptions, or not evaluated. Pure.

"Observed" is said of the data that was received and of nothing else; a clause of which nothing was seen is not
evaluated, and so is every clause that the report has no data for.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reports.facts import Facts
from reports.rows import TOKEN_ACTS


class Standing(StrEnum):
    """What is said of a clause."""

    OBSERVED = "observed"
    EXCEPTIONS = "observed, with exceptions"
    NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True, slots=True)
class Control:
    """One clause, what it asks for, and what was seen."""

    clause: str
    asks: str
    standing: Standing
    seen: str


SILENT: Final = (
    ("3.1\u20133.4, 5, 6.1, 6.2", "Algorithms, envelope, one key for each owner, key generation"),
    ("3.5, 6.3", "Rotation when it is due"),
    ("6.4, 9.2", "Destruction of obsolete keys"),
    ("9.3", "Backup and availability of KEKs"),
    ("9.6b, 11", "Reviews by people"),
    ("10", "Response to a suspected compromise"),
)
"""Clauses for which this version of the report has no data."""


def controls(facts: Facts, missing: int | None) -> tuple[Control, ...]:
    """Judge the clauses that this report has data for; `missing` is None where no service said what it sent."""
    week = facts.this
    acts = _acts_of_week(facts)
    told = sum(acts.values())
    stored = sum(sum(day.values()) for day in week.events)
    decrypts = _ended(facts, ("decrypt",))
    records, vaults = sum(week.vault_records.values()), len({vault for vault, _ in week.vault_records})
    admin = sum(count for (_, kind), count in week.vault_records.items() if kind == "admin")
    status: Counter[str] = Counter()
    for day in week.kek_uses:
        for judged, count in day.items():
            status[judged.status] += count
    compared = status["matched"] + status["unaccounted"]
    raised = Counter(alert["rule_id"] for alert in week.alerts)
    named = ", ".join(f"{count:,} {act}" for act, count in sorted(acts.items()))
    return (
        _control(
            "8.1",
            "All access to Key Vault is logged",
            records,
            f"{_n(records, 'record')} of {_n(vaults, 'vault')} received; whether every vault sends its log is not "
            "evaluated",
            _some(status["unlogged"], "KEK use", "reported by services and not in the logs"),
        ),
        _control(
            "8.2, 8.3",
            "Uses and life-cycle events of keys are in the application's audit trail",
            stored,
            f"{_n(stored, 'sealed event')} stored",
            "no service said how many it sent" if missing is None else _some(missing, "event", "sent and not stored"),
        ),
        _control(
            "9.1b, 9.4b",
            "Logs hold creation, activation, rotation, revocation, deletion; key configuration changes are logged",
            told + admin,
            f"{named or 'no act of the life cycle'}; {_n(admin, 'administrative act')} at the vaults",
        ),
        _control("9.1d, 9.4a", "Failed decryptions are flagged each week", decrypts, "in the table above"),
        _control(
            "9.4a (tokens)",
            "Anomalies in the use of tokens are flagged each week",
            _ended(facts, TOKEN_ACTS),
            f"{_n(_ended(facts, TOKEN_ACTS), 'act')} on tokens, "
            f"{_ended(facts, TOKEN_ACTS, ('failed', 'denied')):,} failed or denied, in the table above",
        ),
        _control(
            "9.5b",
            "Unusual access to a KEK raises an alert",
            compared,
            f"{_n(compared, 'KEK use')} compared with the events of services, {status['unaccounted']:,} unaccounted; "
            f"{_n(raised['unaccounted_kek_access'], 'alert')}",
            _some(0 if raised["unaccounted_kek_access"] else status["unaccounted"], "use", "without an alert"),
            _some(status["not_evaluated"], "KEK use", "not compared"),
        ),
        _control(
            "9.5c",
            "Decrypts with expired or disabled DEKs raise an alert",
            decrypts,
            f"{_n(len(week.revoked_decrypts), 'decrypt')} with a revoked key; "
            f"{_n(raised['revoked_key_decrypt'], 'alert')}",
            _some(0 if raised["revoked_key_decrypt"] else len(week.revoked_decrypts), "decrypt", "without an alert"),
        ),
        _control(
            "9.5d",
            "Failed encryption or decryption raises an alert",
            _ended(facts, ("encrypt", "decrypt", "reencrypt")),
            f"{_ended(facts, ('encrypt', 'decrypt', 'reencrypt'), ('failed', 'denied')):,} failed or denied; "
            f"{_n(raised['crypto_failures'], 'alert')} for frequent ones",
        ),
        _control(
            "9.6a",
            "Transitions are logged with time, actor and purpose",
            told,
            f"{_n(told, 'act')} of the life cycle, each with all three: an event without them is not accepted",
        ),
        *(Control(clause, asks, Standing.NOT_EVALUATED, "no data in this report") for clause, asks in SILENT),
    )


def _control(clause: str, asks: str, amount: int, seen: str, *exceptions: str) -> Control:
    if not amount:
        return Control(clause, asks, Standing.NOT_EVALUATED, "nothing of the kind was received this week")
    found = [words for words in exceptions if words]
    return Control(clause, asks, Standing.EXCEPTIONS if found else Standing.OBSERVED, "; ".join([seen, *found]))


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(count: int, noun: str, what: str) -> str:
    return f"{_n(count, noun)} {what}" if count else ""


def _acts_of_week(facts: Facts) -> Counter[str]:
    names = {document["event"]["action"] for document in facts.life_cycle}
    acts: Counter[str] = Counter()
    for day in facts.this.events:
        for kind, count in day.items():
            if kind.operation in names and kind.outcome == "succeeded":
                acts[kind.operation] += count
    return acts


def _ended(facts: Facts, operations: tuple[str, ...], outcomes: tuple[str, ...] = ()) -> int:
    return sum(
        count
        for day in facts.this.events
        for kind, count in day.items()
        if kind.operation in operations and (not outcomes or kind.outcome in outcomes)
    )
