"""Whether a version of a KEK was disabled at a moment, by all that the vault's records say of it."""

from collections.abc import Sequence

from alerts.model import KekChange


def governing(changes: Sequence[KekChange], version: str | None, before_us: int) -> KekChange | None:
    """Return the last change before a moment that enabled or disabled this version; None where nobody can tell.

    Args:
        changes: oldest first.
        version: None where it is not known.
        before_us: changes at this moment or later count for nothing.

    A change that names no version speaks of the one that was current then: once the KEK got a new one, it is not known
    to speak of this version any more.
    """
    renewed = False
    for change in reversed(changes):
        if change.time_us >= before_us:
            continue
        named = change.version is not None and version is not None
        if change.enabled is None:
            if named and change.version == version:
                return None
            renewed = True
        elif named:
            if change.version == version:
                return change
        else:
            return None if renewed else change
    return None
