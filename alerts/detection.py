"""A detection: metadata, a pure function, and the examples that show when it fires and when it stays silent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from alerts.conduct import Challenges, Conduct
from alerts.examples import Example
from alerts.model import Finding, KekAccess, KekAct, KekUse, KeyUse, Rule, VaultAccess
from alerts.thresholds import Limits

S = TypeVar("S", KeyUse, VaultAccess, KekAct, KekAccess, KekUse, Conduct, Challenges)


@dataclass(frozen=True, slots=True)
class Detection(Generic[S]):
    """One rule, ready to run over what it sees."""

    rule: Rule
    sees: type[S]
    evaluate: Callable[[S, Limits], Finding | None]
    examples: tuple[Example[S], ...]
