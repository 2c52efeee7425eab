"""`keytrail tokens`: what is kept, what has expired, and the emergency in which all of them end. Database only."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.keys import KeyReason
from streams.commands.core import (
    ADMINISTRATION,
    Actor,
    Json,
    Note,
    Purpose,
    Yes,
    a_person,
    act,
    ask,
    confirm,
    core_answers,
    look,
)
from streams.commands.terminal import console, fail, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptocore.core import CryptoCore
    from cryptocore.tokens.rows import Reach, TokenInfo

tokens = typer.Typer(help="Tokens kept for tenants (docs/tokens.md).", no_args_is_help=True)

Tenant = Annotated[str | None, typer.Option(help="Of this tenant.")]
Integration = Annotated[str | None, typer.Option(help="Of this integration; of all tenants, without --tenant.")]
Secret = Annotated[str | None, typer.Option(help="Of this secret of our own.")]
Key = Annotated[str | None, typer.Option(help="Under this DEK (32 hex digits).")]
Token = Annotated[str | None, typer.Option(help="The one of this name.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="List at most so many.")]


@tokens.command("list")
def list_(
    *,
    tenant: Tenant = None,
    integration: Integration = None,
    secret: Secret = None,
    key: Key = None,
    token: Token = None,
    ended: Annotated[bool, typer.Option("--ended", help="Those that ended, the latest first.")] = False,
    limit: Limit = 1_000,
    as_json: Json = False,
) -> None:
    """List tokens, never their values."""
    with core_answers():
        reach = _reach(tenant, integration, secret, key, token)
        found = look(lambda store: store.tokens(reach, ended=ended, limit=limit))
    _print(found, as_json=as_json)


@tokens.command()
def invalidate(
    *,
    actor: Actor,
    tenant: Tenant = None,
    integration: Integration = None,
    secret: Secret = None,
    key: Key = None,
    token: Token = None,
    reason: Annotated[KeyReason, typer.Option(help="As the events say it.")] = KeyReason.COMPROMISE_SUSPECTED,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End every token that is named, for good: its ciphertext is erased. Needs the database only."""
    a_person(actor)
    with core_answers():
        reach = _reach(tenant, integration, secret, key, token)
        if not reach.names_somebody:
            raise fail("say which tokens: --tenant, --integration, --secret or --key, and perhaps --token")
        if not yes:
            found = ask(lambda core: core.tokens.tokens(reach, limit=100_000))
            if found:
                confirm(f"Erase {len(found):,} tokens? Their values cannot be had again.", yes=yes)
        ended = act(
            lambda core: core.tokens.invalidate_all(reach, reason=reason, actor=actor, purpose=purpose, note=note)
        )
    if as_json:
        print_json({"invalidated": ended})
    else:
        console.print(f"{ended:,} tokens invalidated; each has its event.", soft_wrap=True)


@tokens.command("purge-expired")
def purge_expired(
    *,
    actor: Actor,
    apply: Annotated[bool, typer.Option("--apply", help="Erase them; without it, they are only listed.")] = False,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """List tokens whose time is over by the database's clock; with --apply, erase them."""
    a_person(actor)
    told: dict[str, Any] = {"actor": actor, "purpose": purpose}
    with core_answers():
        found = ask(lambda core: core.tokens.purge_expired(**told))
        if apply and found.tokens:
            confirm(f"Erase {len(found.tokens):,} expired tokens?", yes=yes)
            found = act(partial(_purge, told=told))
    _print(found.tokens, as_json=as_json)
    if not as_json:
        done = "erased" if not found.dry_run else "would be erased; --apply does it"
        console.print(f"{len(found.tokens):,} expired tokens {done}.", soft_wrap=True)


async def _purge(core: "CryptoCore", told: dict[str, Any]) -> Any:
    return await core.tokens.purge_expired(dry_run=False, **told)


def _reach(
    tenant: str | None, integration: str | None, secret: str | None, key: str | None, token: str | None
) -> "Reach":
    from cryptocore.core_keys import raw_key_id
    from cryptocore.envelope import Owner
    from cryptocore.tokens.rows import Reach

    if secret is not None and (tenant is not None or integration is not None):
        raise fail("either --secret, or --tenant and --integration")
    return Reach(
        owner=None if secret is None else Owner.secret(secret),
        token_id=token,
        tenant_id=tenant,
        integration_id=integration,
        key_id=None if key is None else raw_key_id(key),
    )


def _print(found: "Sequence[TokenInfo]", *, as_json: bool) -> None:
    shown = [_shown(info) for info in found]
    if as_json:
        print_json(shown)
        return
    heads = ("owner", "token", "generation", "key", "stored", "expires", "ended", "by", "reason")
    print_table(heads, ([str(one.get(name, "")) for name in _COLUMNS] for one in shown))


_COLUMNS = (
    "owner", "token_id", "generation", "key", "stored_at", "expires_at", "ended", "ended_by", "ended_reason",
)  # fmt: skip


def _shown(info: "TokenInfo") -> dict[str, Any]:
    from cryptocore.care.compromise import owner_name
    from cryptocore.clock import rfc3339_ms

    shown: dict[str, Any] = {
        "owner": owner_name(info.owner),
        "token_id": info.token_id,
        "generation": info.generation,
        "key": f"{info.key_id}/{info.key_version}",
        "stored_at": rfc3339_ms(info.stored_ms),
        "expires_at": rfc3339_ms(info.expires_ms),
    }
    if info.ended_ms is not None:
        shown["ended"] = f"{info.ended_as} {rfc3339_ms(info.ended_ms)}"
        shown |= {"ended_by": info.ended_by, "ended_reason": info.ended_reason}
    return shown
