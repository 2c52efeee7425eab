"""A service's table of ciphertexts, as `reencrypt` sees it."""

from collections.abc import AsyncIterator

from cryptocore.envelope import Owner
from cryptocore.life.callers_rows import Row


class CallersRows:
    """Rows in memory; `moves` maps an owner to the one that the rows shall belong to."""

    def __init__(self, owner: Owner, ciphertexts: dict[str, bytes], moves: dict[Owner, Owner] | None = None) -> None:
        self.held = dict(ciphertexts)
        self.owners = dict.fromkeys(ciphertexts, owner)
        self.moves = moves or {}
        self.listed: list[str] = []
        self.replaced: list[str] = []
        self.stop_at: str | None = None

    async def after(self, row_id: str) -> AsyncIterator[Row]:
        for ident in sorted(self.held):
            if ident > row_id:
                if ident == self.stop_at:
                    raise ConnectionError("the caller's database is gone")
                self.listed.append(ident)
                owner = self.owners[ident]
                yield Row(ident, self.held[ident], owner, f"tokens/{ident}", to_owner=self.moves.get(owner))

    async def replace(self, row: Row, ciphertext: bytes) -> bool:
        if self.held[row.id] != row.ciphertext:
            return False
        self.held[row.id] = ciphertext
        self.owners[row.id] = row.to_owner or row.owner
        self.replaced.append(row.id)
        return True
