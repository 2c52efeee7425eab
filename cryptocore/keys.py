"""The life of a key version: its states, why it changed, what each state permits, and which arrows exist.

State belongs to a version, not to a key. Pure: whoever stores and signs the result is in records.py and store/.
"""

from enum import StrEnum

from cryptocore.errors import InvalidTransition


class KeyState(StrEnum):
    """Where a key version is in its life."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    ARCHIVED = "archived"
    DESTROYED = "destroyed"

    @property
    def code(self) -> int:
        """The `state` byte of a record."""
        return list(KeyState).index(self) + 1

    @classmethod
    def from_code(cls, code: int) -> "KeyState":
        """Read the `state` byte of a record.

        Raises:
            ValueError: no state has it.
        """
        if not 1 <= code <= len(cls):
            raise ValueError(f"no key state has the number {code}")
        return list(cls)[code - 1]


class KeyReason(StrEnum):
    """Why a key version changed."""

    NONE = "none"
    SCHEDULED = "scheduled"
    TOKEN_REGENERATED = "token_regenerated"  # noqa: S105 - a word, not a secret
    COMPROMISE_SUSPECTED = "compromise_suspected"
    OWNERSHIP_CHANGED = "ownership_changed"
    OFFBOARDED = "offboarded"
    OPERATOR = "operator"

    @property
    def code(self) -> int:
        """The `reason` byte of a record."""
        return list(KeyReason).index(self)

    @classmethod
    def from_code(cls, code: int) -> "KeyReason":
        """Read the `reason` byte of a record.

        Raises:
            ValueError: no reason has it.
        """
        if not 0 <= code < len(cls):
            raise ValueError(f"no reason has the number {code}")
        return list(cls)[code]


class KeyAct(StrEnum):
    """What somebody wants to do with a key version."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    REENCRYPT = "reencrypt"
    REWRAP = "rewrap"
    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    ARCHIVE = "archive"
    DESTROY = "destroy"


_USES: dict[tuple[KeyState, bool], frozenset[KeyAct]] = {
    (KeyState.ACTIVE, True): frozenset({KeyAct.ENCRYPT, KeyAct.DECRYPT, KeyAct.REENCRYPT, KeyAct.REWRAP}),
    (KeyState.ACTIVE, False): frozenset({KeyAct.DECRYPT, KeyAct.REENCRYPT, KeyAct.REWRAP}),
    (KeyState.DESTROYED, True): frozenset(),
    (KeyState.DESTROYED, False): frozenset(),
}
_REWRAP_ONLY = frozenset({KeyAct.REWRAP})

_ARROWS: dict[tuple[KeyState, KeyAct], KeyState] = {
    (KeyState.PRE_ACTIVATION, KeyAct.ACTIVATE): KeyState.ACTIVE,
    (KeyState.PRE_ACTIVATION, KeyAct.REVOKE): KeyState.REVOKED,
    (KeyState.PRE_ACTIVATION, KeyAct.DESTROY): KeyState.DESTROYED,
    (KeyState.ACTIVE, KeyAct.SUSPEND): KeyState.SUSPENDED,
    (KeyState.ACTIVE, KeyAct.REVOKE): KeyState.REVOKED,
    (KeyState.ACTIVE, KeyAct.ARCHIVE): KeyState.ARCHIVED,
    (KeyState.SUSPENDED, KeyAct.RESUME): KeyState.ACTIVE,
    (KeyState.SUSPENDED, KeyAct.REVOKE): KeyState.REVOKED,
    (KeyState.SUSPENDED, KeyAct.ARCHIVE): KeyState.ARCHIVED,
    (KeyState.REVOKED, KeyAct.DESTROY): KeyState.DESTROYED,
    (KeyState.ARCHIVED, KeyAct.REVOKE): KeyState.REVOKED,
    (KeyState.ARCHIVED, KeyAct.DESTROY): KeyState.DESTROYED,
}


def permits(
    state: KeyState,
    newest: bool,  # noqa: FBT001 - the table of the format has exactly these columns
    act: KeyAct,
    *,
    retired: bool = False,
    recovery_grant: bool = False,
) -> bool:
    """Say whether a version in this state may be used for `act`.

    Args:
        state: the version's state.
        newest: it is the newest active version of its owner; a superseded one no longer encrypts.
        act: the use; an act of the life cycle asks whether its arrow exists.
        retired: its retirement date has passed, so a superseded version no longer decrypts.
        recovery_grant: a verified recovery grant covers it: `reencrypt` may read a revoked version.
    """
    if act not in _ALL_USES:
        return (state, act) in _ARROWS
    if act is KeyAct.REENCRYPT and state is KeyState.REVOKED:
        return recovery_grant
    if act is KeyAct.DECRYPT and not newest and retired:
        return False
    return act in _USES.get((state, newest), _REWRAP_ONLY)


_ALL_USES = frozenset({KeyAct.ENCRYPT, KeyAct.DECRYPT, KeyAct.REENCRYPT, KeyAct.REWRAP})


def transition(state: KeyState, act: KeyAct) -> KeyState:
    """Follow the arrow `act` from `state`.

    Raises:
        InvalidTransition: there is none; in particular none leads from revoked back to active.
    """
    after = _ARROWS.get((state, act))
    if after is None:
        raise InvalidTransition(f"a key version that is {state} cannot {act}")
    return after


def leads_to(state: KeyState, after: KeyState) -> bool:
    """Say whether some arrow leads from `state` to `after`."""
    return any(before is state and reached is after for (before, _), reached in _ARROWS.items())
