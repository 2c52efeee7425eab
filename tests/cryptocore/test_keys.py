import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import sampled_from

from cryptocore.errors import InvalidTransition
from cryptocore.keys import KeyAct, KeyReason, KeyState, permits, transition

USES = (KeyAct.ENCRYPT, KeyAct.DECRYPT, KeyAct.REENCRYPT, KeyAct.REWRAP)

# The table of docs/formats.md: encrypt, decrypt, readable by reencrypt, rewrap.
TABLE = {
    (KeyState.PRE_ACTIVATION, True): "---+",
    (KeyState.ACTIVE, True): "++++",
    (KeyState.ACTIVE, False): "-+++",
    (KeyState.SUSPENDED, True): "---+",
    (KeyState.REVOKED, True): "---+",
    (KeyState.ARCHIVED, True): "---+",
    (KeyState.DESTROYED, True): "----",
    (KeyState.DESTROYED, False): "----",
}


@pytest.mark.parametrize(("row", "allowed"), TABLE.items())
def test_each_state_permits_what_the_table_says(row: tuple[KeyState, bool], allowed: str) -> None:
    assert "".join("+" if permits(*row, act) else "-" for act in USES) == allowed


def test_a_superseded_version_decrypts_until_its_retirement_and_reencrypts_after() -> None:
    assert not permits(KeyState.ACTIVE, newest=False, act=KeyAct.DECRYPT, retired=True)
    assert permits(KeyState.ACTIVE, newest=False, act=KeyAct.REENCRYPT, retired=True)


def test_a_recovery_grant_opens_a_revoked_version_to_reencrypt_only() -> None:
    opened = [act for act in USES if permits(KeyState.REVOKED, newest=False, act=act, recovery_grant=True)]

    assert opened == [KeyAct.REENCRYPT, KeyAct.REWRAP]
    assert not permits(KeyState.DESTROYED, newest=False, act=KeyAct.REENCRYPT, recovery_grant=True)


@pytest.mark.parametrize("state", KeyState)
def test_permits_and_transition_agree_on_every_act_of_the_life_cycle(state: KeyState) -> None:
    for act in set(KeyAct) - set(USES):
        if permits(state, newest=True, act=act):
            assert transition(state, act) is not state
        else:
            with pytest.raises(InvalidTransition, match=f"{state} cannot {act}"):
                transition(state, act)


def test_codes_are_those_of_the_record_format() -> None:
    assert [state.code for state in KeyState] == [1, 2, 3, 4, 5, 6]
    assert [reason.code for reason in KeyReason] == [0, 1, 2, 3, 4, 5, 6]
    assert [KeyState.from_code(state.code) for state in KeyState] == list(KeyState)
    assert [KeyReason.from_code(reason.code) for reason in KeyReason] == list(KeyReason)


@pytest.mark.parametrize("code", [0, 7, 255])
def test_a_byte_without_meaning_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        KeyState.from_code(code)
    if code:
        with pytest.raises(ValueError, match=str(code)):
            KeyReason.from_code(code)


class Life(RuleBasedStateMachine):
    """Walk the arrows in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = KeyState.PRE_ACTIVATION
        self.was_revoked = False

    @rule(act=sampled_from(sorted(set(KeyAct) - set(USES))))
    def live(self, act: KeyAct) -> None:
        if permits(self.state, newest=True, act=act):
            self.state = transition(self.state, act)
        self.was_revoked |= self.state is KeyState.REVOKED

    @invariant()
    def what_was_revoked_is_never_used_again(self) -> None:
        if self.was_revoked:
            assert self.state in (KeyState.REVOKED, KeyState.DESTROYED)
            assert not permits(self.state, newest=True, act=KeyAct.DECRYPT)


Life.TestCase.settings = settings(max_examples=50, deadline=None)
TestLife = Life.TestCase
