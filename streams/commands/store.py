"""`keytrail store`: make the key store's tables in PostgreSQL, and look whether a database is as it must be."""

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from streams.commands.terminal import NOT_ALL_WELL, UNREACHABLE, console, fail, needs, print_json, print_table

if TYPE_CHECKING:
    from cryptocore.store.engine import StoreOptions

store = typer.Typer(help="The database of the key store (docs/operations.md).", no_args_is_help=True)

URL: Final = "KEYTRAIL_CORE_STORE_URL"
_PLAINTEXT: Final = "KEYTRAIL_CORE_STORE_ALLOW_PLAINTEXT"
_MARKS: Final = {True: "ok", False: "WRONG", None: "note"}

Address = Annotated[
    str,
    typer.Option(help=f"postgresql://user@host/database?sslmode=verify-full; without it, {URL}.", show_default=False),
]


@store.command()
def migrate(url: Address = "") -> None:
    """Make or renew the tables in the schema `keytrail`, as a user who owns the database. Services never do this."""
    from cryptocore.errors import ConfigurationError, KeyUnavailable
    from cryptocore.store.migration import migrate as apply

    address = _address(url)
    try:
        done = apply(address, options=_options())
    except ConfigurationError as problem:
        raise fail(str(problem)) from None
    except KeyUnavailable as problem:
        raise fail(str(problem), UNREACHABLE) from None
    for revision in done:
        console.print(f"applied {revision}")
    if not done:
        console.print("nothing to do: the schema is up to date")


@store.command()
def check(
    url: Address = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Look at schema, triggers, grants and clock with the rights of a service's user. Ends with 1 if any is wrong."""
    from cryptocore.errors import ConfigurationError
    from cryptocore.store.check import check as look

    address = _address(url)
    try:
        found = look(address, options=_options())
    except ConfigurationError as problem:
        raise fail(str(problem)) from None
    if as_json:
        print_json([{"subject": one.subject, "well": one.well, "says": one.says, "do": one.do} for one in found])
    else:
        print_table(("", "what", "says", "do"), [[_MARKS[one.well], one.subject, one.says, one.do] for one in found])
    raise typer.Exit(NOT_ALL_WELL if any(one.well is False for one in found) else 0)


def _address(given: str) -> str:
    needs("psycopg", extra="postgres")
    address = given or os.environ.get(URL, "")
    if not address:
        raise fail(f"which database? Give --url, or set {URL} (a password is better there than on a command line)")
    return address


def _options() -> "StoreOptions":
    from cryptocore.store.engine import StoreOptions

    return StoreOptions(allow_plaintext=os.environ.get(_PLAINTEXT, "").lower() in ("1", "true", "yes", "on"))
