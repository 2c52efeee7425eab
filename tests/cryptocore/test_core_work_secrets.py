"""Nothing that is secret is in errors, logs or events of long work that fails."""

import logging
import os
import traceback
from typing import Any

import pytest

from cryptocore import testing
from cryptocore.clock import parse_rfc3339
from cryptocore.core import CryptoCore
from cryptocore.envelope import Owner
from cryptocore.errors import CoreError
from cryptocore.events import Reason, encode_line
from cryptocore.keys import KeyReason
from cryptocore.life.bare import BareWrap
from cryptocore.life.importing import BareDek
from cryptocore.wrapping import LocalKeyWrapper, Unwrapped, Wrapped
from tests.cryptocore.callers_rows import CallersRows
from tests.cryptocore.test_core_reencrypt import bare

OWNER = Owner.tenant("t-88", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
PLAINTEXT = b"planted-plaintext-8f3c"


class Loud(LocalKeyWrapper):
    """An adapter that raises what it was given, as an SDK's exception holds the request's body."""

    def __init__(self, of: LocalKeyWrapper, *, wraps: bool) -> None:
        super().__init__(testing.ALIAS, keys=of._keys)
        self._wraps = wraps
        self.seen: list[bytes] = []

    async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
        self.seen += [blob, blob[33:]]
        if self._wraps:
            return await super().wrap(blob, version=version, call_ids=call_ids)
        raise RuntimeError(f"request body: {blob!r} {blob.hex()}")

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        if self._wraps:
            raise RuntimeError(f"request body: {wrapped_dek!r}")
        answer = await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)
        self.seen += [answer.blob, answer.blob[33:]]
        return answer

    async def unwrap_bare(
        self, wrapped_dek: bytes, *, algorithm: BareWrap, version: str, call_ids: tuple[str, ...]
    ) -> Unwrapped:
        answer = await super().unwrap_bare(wrapped_dek, algorithm=algorithm, version=version, call_ids=call_ids)
        self.seen.append(answer.blob)
        return answer


def links_of(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and link not in links:
            links.append(link)
            waiting += [link.__cause__, link.__context__]
    return links


def shown(error: BaseException) -> list[str]:
    """What a tool may print of an error: its links, their frames, and the variables there."""
    seen = []
    for link in links_of(error):
        seen.append(repr(link))
        told = traceback.TracebackException.from_exception(link, capture_locals=True)
        seen += [
            f"{frame.name} {frame.locals}"
            for frame in told.stack
            if frame.filename.find("/cryptocore/") > 0
            if "/tests/" not in frame.filename
        ]
    return seen


async def failed(work: Any) -> list[str]:
    with pytest.raises(CoreError) as caught:
        await work
    return shown(caught.value)


async def test_no_secret_is_in_what_failing_work_leaves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with testing.core() as core:
        rows = CallersRows(
            OWNER,
            {"1": await core.encrypt(PLAINTEXT, owner=OWNER, record="tokens/1", create_missing=True, **ADMIN)},
        )
        await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
        foreign = bare(core, os.urandom(32))
        core.wrapper.rotate()
        seen: list[str] = []
        planted: list[bytes] = [PLAINTEXT, foreign.wrapped_dek]
        for wraps in (False, True):
            loud = Loud(core.wrapper, wraps=wraps)
            core._keyring._wrappers = {testing.ALIAS: loud}
            core.clock.advance(4_000)
            seen += await tried(core, rows, foreign)
            planted += loud.seen
            planted += [version.wrapped_dek for version in core.store.versions(rows.held["1"][3:19])]
        seen += [caplog.text, repr(foreign), repr(rows.held), *(encode_line(event).decode() for event in core.events)]

    assert any(event.reason is Reason.VAULT_ERROR for event in core.events)
    assert len(planted) > 10
    text = "\n".join(seen)
    for secret in planted:
        for form in (secret, secret.hex().encode(), repr(secret)[2:-1].encode()):
            assert form.decode("latin-1") not in text


async def tried(core: CryptoCore, rows: CallersRows, foreign: BareDek) -> list[str]:
    """Everything that asks the vault; what comes back is what can be printed of its errors."""
    seen = await failed(core.import_key(foreign, Owner.secret("before"), **ADMIN))
    seen += await failed(core.change_owner(OWNER, Owner.secret("other"), **ADMIN))
    seen += await failed(core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN))
    assert (await core.rewrap(**ADMIN)).done == 0
    try:
        await core.reencrypt("rows", rows, **ADMIN)
    except CoreError as error:
        seen += shown(error)
    return seen


async def test_the_value_of_a_token_is_in_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kept: dict[str, Any] = {"expires_at_ms": parse_rfc3339(testing.START) // 1000 + 60_000, **ADMIN}
    value = PLAINTEXT
    async with testing.core() as core:
        tokens, loud = core.tokens, Loud(core.wrapper, wraps=False)
        seen = await failed(tokens.store(OWNER, "no key", value, **kept))
        core._keyring._wrappers = {testing.ALIAS: loud}
        seen += await failed(tokens.store(OWNER, "no vault", value, create_missing=True, **kept))
        core._keyring._wrappers = {testing.ALIAS: core.wrapper}
        core.clock.advance(2)  # the failure is remembered for a second
        await tokens.store(OWNER, "access", value, create_missing=True, **kept)
        seen += await failed(tokens.store(OWNER, "access", value, **kept))
        seen += await failed(tokens.store(OWNER, "late", value, **kept | {"expires_at_ms": 1}))
        seen += await failed(tokens.store(OWNER, "late", value, **kept | {"expires_at_ms": -1}))
        seen += await failed(tokens.store(OWNER, "large", value + bytes(65_536), **kept))
        core.transport.down = True
        seen += await failed(tokens.use(OWNER, "access", **ADMIN))
        seen += await failed(tokens.store(OWNER, "other", value, **kept))
        core.transport.down = False
        core.wrapper = Slow(core)
        core._keyring._wrappers = {testing.ALIAS: core.wrapper}
        core.parts.cache.clear()
        seen += await failed(tokens.use(OWNER, "access", **ADMIN))
        await tokens.invalidate(OWNER, "access", **ADMIN)
        again = kept | {"expires_at_ms": kept["expires_at_ms"] + 3_600_000}
        seen += await failed(tokens.regenerate(OWNER, "access", value, **again))
        seen += [caplog.text, *(encode_line(event).decode() for event in core.events)]

    assert len(seen) > 30
    assert [one for one in seen if value.decode() in one] == []


async def test_what_is_encrypted_is_in_no_error_of_the_vault_or_of_the_spool() -> None:
    async with testing.core() as core:
        core._keyring._wrappers = {testing.ALIAS: Loud(core.wrapper, wraps=False)}
        encrypted = core.encrypt(PLAINTEXT, owner=OWNER, record="r", create_missing=True, **ADMIN)
        seen = await failed(encrypted)
        core.transport.down = True
        seen += await failed(core.encrypt(PLAINTEXT, owner=Owner.secret("s"), record="r", create_missing=True, **ADMIN))

    assert [one for one in seen if PLAINTEXT.decode() in one] == []


class Slow(LocalKeyWrapper):
    """A vault that answers when the time of the token is over."""

    def __init__(self, core: testing.CoreUnderTest) -> None:
        super().__init__(testing.ALIAS, keys=core.wrapper._keys, clock=core.clock)
        self._core = core

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        answer = await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)
        self._core.clock.advance(100)
        return answer
