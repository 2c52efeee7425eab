"""`keytrail threat`: the threat level, which shortens every cryptoperiod for a while."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.care.terms import ThreatLevel
from streams.commands.core import ADMINISTRATION, Actor, Json, Purpose, a_person, ask, core_answers, look
from streams.commands.moments import coming_ms
from streams.commands.terminal import console, fail, now_ms, print_json

if TYPE_CHECKING:
    from cryptocore.care.threat import Threat

threat = typer.Typer(help="The threat level: raised for a while, for a reason.", no_args_is_help=True)


@threat.command("set")
def set_(
    *,
    level: Annotated[ThreatLevel, typer.Argument(help="normal ends a raised level.")],
    actor: Actor,
    reason: Annotated[str, typer.Option(help="Why, for who reads it later.")],
    until: Annotated[str | None, typer.Option(help="Its end: a date, an RFC 3339 time, or from now (7d).")] = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Set the level; a raised one ends by itself."""
    a_person(actor)
    until_ms = None if until is None else _moment(until)
    with core_answers():
        found = ask(
            lambda core: core.threats.set(level, reason=reason, until_ms=until_ms, actor=actor, purpose=purpose)
        )
    _print(found, as_json=as_json)


@threat.command()
def show(
    *,
    as_json: Json = False,
) -> None:
    """Show the level that counts now, and who set it last."""
    with core_answers():
        found = look(lambda store: store.threats.now())
    _print(found, as_json=as_json)


def _moment(text: str) -> int:
    try:
        return coming_ms(text, now_ms=now_ms())
    except ValueError:
        raise fail(f"--until {text}: not a date, a time or a span such as 7d") from None


def _print(found: "Threat", *, as_json: bool) -> None:
    from cryptocore.clock import rfc3339_ms

    shown: dict[str, Any] = {"level": found.level}
    if found.until_ms is not None:
        shown["until"] = rfc3339_ms(found.until_ms)
    if found.set_ms is not None:
        shown |= {"set_by": found.set_by, "set_at": rfc3339_ms(found.set_ms), "reason": found.reason}
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        console.print(f"{name.replace('_', ' '):8} {value}", markup=False, soft_wrap=True)
