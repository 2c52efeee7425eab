"""`keytrail incidents`: what happened, whom it concerns, what is owed; opened, changed and closed by people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.care.terms import IncidentKind, Terms
from streams.commands.core import ADMINISTRATION, Actor, Json, Note, Purpose, a_person, ask, core_answers, look
from streams.commands.terminal import complaint, console, fail, now_ms, print_json, print_table, said_ms

if TYPE_CHECKING:
    from cryptocore.care.incident_facts import Incident
    from cryptocore.reading import StoreReader

if TYPE_CHECKING:
    from cryptocore.care.incident_facts import Incident

incidents = typer.Typer(help="Incidents and what they owe (docs/incidents.md).", no_args_is_help=True)

Ident = Annotated[str, typer.Argument(help="The incident: inc- and 16 hex digits.")]
When = Annotated[str | None, typer.Option(help="A date, an RFC 3339 time, or how long ago (36h).")]
Affected = Annotated[list[str], typer.Option(help="What it touches: owner:t-88/crm, device:L-17 … Repeatable.")]
Notify = Annotated[list[str], typer.Option(help="Whom to tell: team:payments, tenant:t-88 … Repeatable.")]


@incidents.command("list")
def list_(
    *,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed, too.")] = False,
    as_json: Json = False,
) -> None:
    """List incidents, the newest first, with what they owe and what of it is late."""

    async def read(store: "StoreReader") -> tuple[list["Incident"], int, tuple[str, ...]]:
        incidents = store.incidents
        return await incidents.all(closed=closed), await incidents.database_ms(), await incidents.unbelieved()

    with core_answers():
        found, now, unbelieved = look(read)
    shown = [_shown(one, now) for one in found]
    for one in unbelieved:
        said = f"keytrail: {one} is not shown: somebody else wrote, changed or took away a revision of it"
        complaint.print(said, style="red", markup=False, soft_wrap=True)
    if as_json:
        print_json(shown)
        return
    print_table(
        ("incident", "kind", "detected", "summary", "owes", "late"),
        (
            (one["id"], one["kind"], one["detected_at"], one["summary"], _words(one["owes"]), _words(one["late"]))
            for one in shown
        ),
    )


@incidents.command()
def show(
    *,
    ident: Ident,
    as_json: Json = False,
) -> None:
    """Show an incident and how it came to be so, revision by revision."""

    async def read(store: "StoreReader") -> tuple[list["Incident"], int]:
        return await store.incidents.history(ident), await store.incidents.database_ms()

    with core_answers():
        found, now = look(read)
    shown = _shown(found[-1], now)
    shown["history"] = [_revision(one) for one in found]
    if as_json:
        print_json(shown)
    else:
        _print(shown)


@incidents.command("open")
def open_(
    *,
    kind: Annotated[IncidentKind, typer.Argument(help="What happened.")],
    summary: Annotated[str, typer.Argument(help="One line.")],
    actor: Actor,
    occurred: When = None,
    detected: When = None,
    reported: When = None,
    affected: Affected = [],  # noqa: B006 - typer's way to say "none"
    notify: Notify = [],  # noqa: B006 - typer's way to say "none"
    terms: Annotated[Path | None, typer.Option(help="The deployment's own terms.toml: what is due when.")] = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Open an incident; times that are not given are now, but for when it occurred."""
    a_person(actor)
    times: dict[str, Any] = {
        "occurred_ms": _ms(occurred),
        "detected_ms": _ms(detected),
        "reported_ms": _ms(reported),
    }
    with core_answers():
        due = Terms.load(terms)
        found = ask(
            lambda core: core.incidents(due).open(
                kind, summary, **times, affected=affected, notify=notify, actor=actor, purpose=purpose
            )
        )
    _print_one(found, as_json=as_json)


@incidents.command()
def update(
    *,
    ident: Ident,
    actor: Actor,
    summary: Annotated[str | None, typer.Option(help="Another line.")] = None,
    occurred: When = None,
    reported: When = None,
    affected: Affected = [],  # noqa: B006 - typer's way to say "none"
    notify: Notify = [],  # noqa: B006 - typer's way to say "none"
    required: Annotated[
        bool | None,
        typer.Option("--notification-required/--no-notification", help="The decision; who decides is --actor."),
    ] = None,
    notification_sent: When = None,
    audited: When = None,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Add a revision that says something anew; lists grow."""
    from cryptocore.care.incident_facts import Change

    a_person(actor)
    change = Change(
        summary=summary,
        occurred_ms=_ms(occurred),
        reported_ms=_ms(reported),
        affected=tuple(affected),
        notify=tuple(notify),
        notification_required=required,
        notification_sent_ms=_ms(notification_sent),
        audited_ms=_ms(audited),
        note=note,
    )
    if change == Change():
        raise fail("nothing is changed: say what is new")
    with core_answers():
        found = ask(lambda core: core.incidents().update(ident, change, actor=actor, purpose=purpose))
    _print_one(found, as_json=as_json)


@incidents.command()
def close(
    *,
    ident: Ident,
    actor: Actor,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Close an incident of which nothing is owed any more."""
    a_person(actor)
    with core_answers():
        found = ask(lambda core: core.incidents().close(ident, note=note, actor=actor, purpose=purpose))
    _print_one(found, as_json=as_json)


def _ms(text: str | None) -> int | None:
    if text is None:
        return None
    wrong = f"{text}: not a date, a time or a span such as 36h"
    return now_ms() if text == "now" else said_ms(text, otherwise=wrong)


def _at(moment_ms: int | None) -> str | None:
    from cryptocore.clock import rfc3339_ms

    return None if moment_ms is None else rfc3339_ms(moment_ms)


def _shown(incident: "Incident", now: int) -> dict[str, Any]:
    facts, notification = incident.facts, incident.facts.notification
    shown: dict[str, Any] = {
        "id": incident.id,
        "revision": incident.revision,
        "kind": facts.kind,
        "summary": facts.summary,
        "occurred_at": _at(facts.occurred_ms),
        "detected_at": _at(facts.detected_ms),
        "reported_at": _at(facts.reported_ms),
        "report_due": _at(facts.report_due_ms),
        "reported_late": incident.reported_late or None,
        "key_id": facts.key_id,
        "affected": list(facts.affected),
        "notify": list(facts.notify),
        "notification": {
            "required": notification.required,
            "decided_by": notification.decided_by,
            "due_at": _at(notification.due_ms),
            "sent_at": _at(notification.sent_ms),
        },
        "audit_due": _at(facts.audit_due_ms),
        "audited_at": _at(facts.audited_ms),
        "closed_at": _at(facts.closed_ms),
        "owes": list(incident.owed()),
        "late": list(incident.late(now)),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _revision(incident: "Incident") -> dict[str, Any]:
    said = {"revision": incident.revision, "at": _at(incident.stated_ms), "by": incident.facts.by}
    return said if incident.facts.note is None else {**said, "note": incident.facts.note}


def _print_one(incident: "Incident", *, as_json: bool) -> None:
    shown = _shown(incident, incident.stated_ms)
    if as_json:
        print_json(shown)
    else:
        _print(shown)


def _print(shown: dict[str, Any]) -> None:
    for name, value in shown.items():
        if name == "history":
            for one in value:
                said = f"{one['revision']:>4}  {one['at']}  {one['by']}  {one.get('note', '')}"
                console.print(said, markup=False, soft_wrap=True)
        else:
            told = _notification(value) if name == "notification" else _words(value)
            console.print(f"{name.replace('_', ' '):14} {told}", markup=False, soft_wrap=True)


def _notification(value: dict[str, Any]) -> str:
    decided = {None: "not decided", True: "required", False: "not required"}[value["required"]]
    by = f" by {value['decided_by']}" if value["decided_by"] else ""
    return f"{decided}{by}, due {value['due_at']}, " + (f"sent {value['sent_at']}" if value["sent_at"] else "not sent")


def _words(value: Any) -> str:
    return (", ".join(map(str, value)) or "nothing") if isinstance(value, list) else str(value)
