import copy
import pickle
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.envelope import Owner, Suite
from cryptocore.events import Reason
from cryptocore.wrapping import (
    BLOB_SIZE,
    BlobInvalid,
    KeyWrapper,
    LocalKeyWrapper,
    Secret,
    VaultCallFailed,
    WrapAlgorithm,
    algorithm_of,
    build_blob,
    check_commitment,
    commitment,
    open_blob,
)

KEY_ID = bytes(range(16))
DEK = b"\xa5" * 32
OWNER = Owner.tenant("t-88", "crm")
SUITE = Suite.XAES_256_GCM


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.integers(1, 2**32 - 1))
def test_a_blob_gives_back_its_dek(dek: bytes, key_id: bytes, version: int) -> None:
    blob = build_blob(dek, SUITE, key_id, version, OWNER)

    assert len(blob) == BLOB_SIZE
    assert open_blob(blob, SUITE, key_id, version, OWNER) == dek
    check_commitment(commitment(dek, SUITE, key_id, version), dek, SUITE, key_id, version)


@pytest.mark.parametrize(
    ("key_id", "version", "owner"),
    [(KEY_ID[::-1], 3, OWNER), (KEY_ID, 4, OWNER), (KEY_ID, 3, Owner.tenant("t-89", "crm"))],
)
def test_a_blob_moved_to_another_row_gives_nothing(key_id: bytes, version: int, owner: Owner) -> None:
    blob = build_blob(DEK, SUITE, KEY_ID, 3, OWNER)

    with pytest.raises(BlobInvalid, match=r"^binding: "):
        open_blob(blob, SUITE, key_id, version, owner)


@pytest.mark.parametrize("blob", [DEK, b"", build_blob(DEK, SUITE, KEY_ID, 3, OWNER) + b"\0"])
def test_a_bare_dek_or_another_size_is_no_blob(blob: bytes) -> None:
    with pytest.raises(BlobInvalid, match=r"^blob: "):
        open_blob(blob, SUITE, KEY_ID, 3, OWNER)


def test_a_commitment_fits_one_dek_of_one_version() -> None:
    expected = commitment(DEK, SUITE, KEY_ID, 3)

    for dek, version in ((DEK[::-1][:-1] + b"\0", 3), (DEK, 4)):
        with pytest.raises(BlobInvalid, match=r"^commitment: "):
            check_commitment(expected, dek, SUITE, KEY_ID, version)


def test_a_dek_of_another_size_is_refused() -> None:
    makes: tuple[Callable[[], object], ...] = (
        lambda: build_blob(DEK[1:], SUITE, KEY_ID, 1, OWNER),
        lambda: commitment(DEK[1:], SUITE, KEY_ID, 1),
        lambda: build_blob(DEK, SUITE, KEY_ID[1:], 1, OWNER),
        lambda: commitment(DEK, SUITE, KEY_ID, 0),
    )
    for make in makes:
        with pytest.raises(BlobInvalid):
            make()


def test_a_secret_shows_itself_to_nobody_who_does_not_ask() -> None:
    secret = Secret(DEK)

    assert secret.reveal() == DEK
    assert secret.same_as(Secret(DEK))
    assert not secret.same_as(Secret(bytes(32)))
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
        assert "\\xa5" not in text
        assert "165" not in text
    compare: Callable[[Secret], object] = Secret(DEK).__eq__
    uses: tuple[Callable[[Secret], object], ...] = (pickle.dumps, copy.copy, copy.deepcopy, hash, vars, compare)
    for use in uses:
        with pytest.raises(TypeError):
            use(secret)


async def test_the_local_wrapper_wraps_rotates_and_unwraps_with_the_version_asked_for() -> None:
    wrapper: KeyWrapper = (local := LocalKeyWrapper("tokens"))
    blob = build_blob(DEK, SUITE, KEY_ID, 3, OWNER)
    call_ids = wrapper.draw_call_ids()

    first = await wrapper.wrap(blob, version=await wrapper.current_version(), call_ids=call_ids)
    second_version = local.rotate()
    second = await wrapper.wrap(blob, version=await wrapper.current_version(), call_ids=call_ids)
    unwrapped = [
        await wrapper.unwrap(made.wrapped_dek, version=made.kek_version, call_ids=call_ids) for made in (first, second)
    ]

    assert (first.kek_version, second.kek_version) == ("1", second_version)
    assert [made.blob for made in unwrapped] == [blob, blob]
    assert [attempt.call_id for attempt in second.attempts] == list(call_ids)
    assert str(UUID(call_ids[0])) == call_ids[0]
    assert algorithm_of(wrapper) is WrapAlgorithm.LOCAL
    assert "\\xa5" not in repr(unwrapped)
    assert "\\x" not in repr(first)


async def test_the_local_wrapper_says_why_it_refuses() -> None:
    wrapper = LocalKeyWrapper("tokens")
    call_ids = wrapper.draw_call_ids()
    made = await wrapper.wrap(b"blob", version="1", call_ids=call_ids)

    async def reason(wrapped_dek: bytes, version: str) -> Reason:
        with pytest.raises(VaultCallFailed) as caught:
            await wrapper.unwrap(wrapped_dek, version=version, call_ids=call_ids)
        assert not caught.value.retryable
        assert [attempt.call_id for attempt in caught.value.attempts] == list(call_ids)
        assert caught.value.__cause__ is None
        return caught.value.reason

    assert await reason(made.wrapped_dek, "2") is Reason.VAULT_NOT_FOUND
    assert await reason(made.wrapped_dek[:-1], "1") is Reason.VAULT_ERROR
    wrapper.disable("1")
    assert await reason(made.wrapped_dek, "1") is Reason.VAULT_DENIED
