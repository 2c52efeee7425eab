"""How sure the join is of a record that no event explains: by how far the processes of its source were heard."""

from alerts.model import KekUse
from alerts.thresholds import Limits
from alerts.words import duration


def sureness(use: KekUse, limits: Limits) -> str:
    """Say how sure it is that no event will still come for a record by one of our own identities."""
    if use.reason == "id_reused":
        return "high: each call id of ours stands for one vault record, and this is another one"
    source = use.source or "its source"
    if use.behind_ms is None:
        return f"{_grade(use)}: no live instance of {source} is known{_again(use, limits)}"
    if use.behind_ms > 0:
        return f"{_grade(use)}: {source} is {duration(use.behind_ms)} behind{_again(use, limits)}"
    return f"high: all {use.instances} live instances of {source} had reported past this moment"


def _grade(use: KekUse) -> str:
    return "medium" if use.final else "provisional"


def _again(use: KekUse, limits: Limits) -> str:
    if use.final:
        return f"; nothing came within {duration(limits.final_ms)}"
    return f"; judged again when it has reported, at the latest after {duration(limits.final_ms)}"
