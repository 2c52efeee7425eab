"""Tokens of an owner moved to its newest DEK version, so that the rotation which made it can come to its end."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cryptocore.envelope import Header, Owner
from cryptocore.life.callers_rows import Reencrypted, Row
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.life import token_record
from cryptocore.tokens.rows import Reach, TokenRow

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.parts import Parts

MAX_TOKENS: Final = 100_000


async def reencrypt_tokens(
    core: "CryptoCore", owner: Owner, *, actor: str | None = None, purpose: str | None = None
) -> Reencrypted:
    """Move the tokens of an owner; their names, generations and expiries stay as they are.

    Whoever keeps no other data under the owner's key can report the rotation as done afterwards
    (`report_reencrypted`). Errors and events as `CryptoCore.reencrypt`.
    """
    name = f"tokens {owner.digest().hex()}"
    return await core.reencrypt(name, _Tokens(core.parts, owner), actor=actor, purpose=purpose)


class _Tokens:
    """The rows that `reencrypt` moves: an owner's tokens, by name."""

    def __init__(self, parts: "Parts", owner: Owner) -> None:
        self._parts = parts
        self._owner = owner
        self._found: dict[str, TokenRow] = {}

    async def after(self, row_id: str) -> AsyncIterator[Row]:
        reach = Reach(owner=self._owner)
        rows = await self._parts.ask(lambda connection: token_rows.live(connection, reach, limit=MAX_TOKENS))
        self._found = {row.info.token_id: row for row in rows}
        for token_id in sorted(self._found):  # the database may sort texts by other rules
            if token_id > row_id:
                row = self._found[token_id]
                yield Row(token_id, row.ciphertext, self._owner, token_record(row.info))

    async def replace(self, row: Row, ciphertext: bytes) -> bool:
        before, header = self._found[row.id], Header.parse(ciphertext)
        info = replace(before.info, key_id=header.key_id.hex(), key_version=header.key_version)
        moved = TokenRow(info, ciphertext)
        return await self._parts.ask(lambda connection: token_rows.replace_ciphertext(connection, before, moved))
