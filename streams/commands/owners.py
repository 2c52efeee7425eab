"""How commands name owners and keys."""

from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.terminal import fail, print_table

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.envelope import Owner

Key = Annotated[str, typer.Argument(help="The key: 32 hex digits.", metavar="KEY")]
Tenant = Annotated[str | None, typer.Option(help="The owner's tenant; with --integration.")]
Integration = Annotated[str | None, typer.Option(help="The owner's integration.")]
Secret = Annotated[str | None, typer.Option(help="The owner, a secret of our own.")]
Version = Annotated[int | None, typer.Option(min=1, help="One version of the key; else all that it can be done with.")]


def owner_of(tenant: str | None, integration: str | None, secret: str | None) -> "Owner":
    """Name an owner, or end with how to."""
    from cryptocore.envelope import Owner

    if secret is not None and tenant is None and integration is None:
        return Owner.secret(secret)
    if secret is None and tenant is not None and integration is not None:
        return Owner.tenant(tenant, integration)
    raise fail("whose key? --tenant and --integration, or --secret")


async def whose(core: "CryptoCore", key_id: str) -> "Owner":
    """Find the owner of a key."""
    from cryptocore.errors import AccessDenied

    versions = await core.versions(key_id)
    if not versions:
        raise AccessDenied(f"there is no key {key_id}")
    return versions[-1].owner


def print_rows(heads: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what commands give as JSON as a table, without the columns in which nothing stands."""
    cells = {head: [cell(row.get(head.replace(" ", "_"))) for row in rows] for head in heads}
    shown = [head for head in heads if any(cells[head]) or not rows]
    print_table(shown, zip(*(cells[head] for head in shown), strict=True))


def counted(things: Sized, name: str) -> str:
    """Say how many things there are: `1 token`, `2 tokens`."""
    return f"{len(things):,} {name}" if len(things) == 1 else f"{len(things):,} {name}s"


def cell(value: Any) -> str:
    """Write a value for people."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
