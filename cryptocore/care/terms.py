"""Cryptoperiods and due dates as data: one reviewed TOML file that names the source of each number.

Decides how long a key of a classification may encrypt at a threat level, and when what follows an incident is due. The
packaged file (terms.toml) holds the defaults; a deployment's own file replaces it as a whole.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from cryptocore import tomlfile
from cryptocore.errors import TermsInvalid

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
MAX_DAYS: Final = 3_660
MAX_FACTOR: Final = 1_000
MAX_HOURS: Final = 31 * 24


class Classification(StrEnum):
    """How much harm the disclosure of what a key protects would do."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class ThreatLevel(StrEnum):
    """What is to be expected of attackers for a while."""

    NORMAL = "normal"
    ELEVATED = "elevated"
    SEVERE = "severe"


class IncidentKind(StrEnum):
    """What happened; what is due when depends on it."""

    KEY = "key"
    DEVICE_LOSS = "device_loss"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Terms:
    """The numbers of one file.

    Attributes:
        dek_days: a DEK's cryptoperiod, at threat level normal.
        unlabelled: the classification of a key that has no label.
        regenerated_hours: a DEK that is younger stays when a token is regenerated, at threat level normal; 0: none.
        factors: what cryptoperiods are divided by.
        sources: where the numbers of each table come from.
    """

    dek_days: dict[Classification, int]
    unlabelled: Classification
    regenerated_hours: dict[Classification, int]
    kek_days: int
    factors: dict[ThreatLevel, int]
    purged_within_hours: int
    device_loss_report_hours: int
    notification_hours: int
    audit_days: int
    sources: dict[str, str]

    def dek_ms(self, classification: Classification | None, level: ThreatLevel) -> int:
        """Give the cryptoperiod of a DEK, in milliseconds."""
        return self.dek_days[classification or self.unlabelled] * DAY_MS // self.factors[level]

    def regenerated_ms(self, classification: Classification | None, level: ThreatLevel) -> int:
        """Give the age below which a DEK stays when a token is regenerated, in milliseconds."""
        return self.regenerated_hours[classification or self.unlabelled] * HOUR_MS // self.factors[level]

    def kek_ms(self, level: ThreatLevel) -> int:
        """Give the cryptoperiod of a KEK, in milliseconds."""
        return self.kek_days * DAY_MS // self.factors[level]

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a file, or the packaged one.

        Raises:
            TermsInvalid: it cannot be read, or breaks a rule.
        """
        return cls.parse(tomlfile.read(path or Path(__file__).with_name("terms.toml"), TermsInvalid))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a file; every number must be there, and none that is not known.

        Raises:
            TermsInvalid: names the field.
        """
        document = tomlfile.parse(text, TermsInvalid)
        _exactly("file", document, _TABLES)
        for name, fields in _TABLES.items():
            if not isinstance(document[name], dict):
                raise TermsInvalid(name, "not a table")
            _exactly(name, document[name], {"source", *fields})
        unlabelled = document["dek"]["unlabelled"]
        if unlabelled not in list(Classification):
            raise TermsInvalid("dek.unlabelled", "not a classification")
        factors = {level: _number(document, "threat", level, MAX_FACTOR) for level in list(ThreatLevel)[1:]}
        return cls(
            dek_days={one: _number(document, "dek", one, MAX_DAYS) for one in Classification},
            unlabelled=Classification(unlabelled),
            regenerated_hours={
                one: _number(document, "regenerated", f"{one}_hours", MAX_HOURS, least=0) for one in Classification
            },
            kek_days=_number(document, "kek", "days", MAX_DAYS),
            factors={ThreatLevel.NORMAL: 1, **factors},
            purged_within_hours=_number(document, "token", "purged_within_hours", MAX_DAYS),
            device_loss_report_hours=_number(document, "incident", "device_loss_report_hours", MAX_DAYS),
            notification_hours=_number(document, "incident", "notification_hours", MAX_DAYS),
            audit_days=_number(document, "incident", "audit_days", MAX_DAYS),
            sources={name: _source(document, name) for name in _TABLES},
        )


_TABLES: Final[dict[str, frozenset[str]]] = {
    "dek": frozenset({"unlabelled", *Classification}),
    "regenerated": frozenset({f"{one}_hours" for one in Classification}),
    "kek": frozenset({"days"}),
    "threat": frozenset({ThreatLevel.ELEVATED, ThreatLevel.SEVERE}),
    "token": frozenset({"purged_within_hours"}),
    "incident": frozenset({"device_loss_report_hours", "notification_hours", "audit_days"}),
}


def _exactly(place: str, table: dict[str, Any], names: Any) -> None:
    for name in sorted(set(names) - table.keys()):
        raise TermsInvalid(f"{place}.{name}", "missing")
    for name in sorted(table.keys() - set(names)):
        raise TermsInvalid(f"{place}.{name[:64]}", "unknown field")


def _number(document: dict[str, Any], table: str, name: str, most: int, *, least: int = 1) -> int:
    value = document[table][name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise TermsInvalid(f"{table}.{name}", f"not a number from {least} to {most}")
    return value


def _source(document: dict[str, Any], table: str) -> str:
    value = document[table]["source"]
    if not isinstance(value, str) or not value.strip():
        raise TermsInvalid(f"{table}.source", "names where its numbers come from")
    return value
