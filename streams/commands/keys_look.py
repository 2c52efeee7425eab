"""`keytrail keys`, to look: which keys there are, what became of one, what hangs on it, what is late."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.keys import KeyState
from streams.commands.core import Json, ask, core_answers
from streams.commands.indexed import index_answers
from streams.commands.monitored import IndexCopy, Monitor, monitored
from streams.commands.owners import Integration, Key, Secret, Tenant, owner_of, print_rows, whose
from streams.commands.terminal import NOT_ALL_WELL, complaint, console, print_json

if TYPE_CHECKING:
    from cryptocore.care.inventory import Held, Moment
    from cryptocore.core import CryptoCore

MOST_USES = 1_000


def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant.")] = None,
    integration: Annotated[str | None, typer.Option(help="Of this integration.")] = None,
    secret: Annotated[str | None, typer.Option(help="Of this secret of our own.")] = None,
    state: Annotated[KeyState | None, typer.Option(help="In this state.")] = None,
    kek: Annotated[str | None, typer.Option(help="Under the KEK of this alias.")] = None,
    team: Annotated[str | None, typer.Option(help="Of this team, by label.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="List at most so many.")] = 1_000,
    as_json: Json = False,
) -> None:
    """List key versions. Ends with 1 if the record of one is not to be believed."""
    wanted = {"tenant_id": tenant, "integration_id": integration, "secret_name": secret}

    async def read(core: "CryptoCore") -> list[dict[str, Any]]:
        labels, found = await core.labels(), []
        async for held in core.inventory.each():
            row = _row(held)
            label = labels.get(held.key_id)
            if label is not None:
                row |= {"class": label.classification, "team": label.team}
            if _wanted(held, wanted, state, kek) and team in (None, row.get("team")):
                found.append(row)
                if len(found) > limit:
                    break
        return found

    with core_answers():
        found = ask(read)
    if len(found) > limit:
        complaint.print(f"keytrail: there are more than {limit:,}; --limit", style="yellow", markup=False)
    found = found[:limit]
    if as_json:
        print_json(found)
    else:
        print_rows(_HEADS, found)
    raise typer.Exit(NOT_ALL_WELL if any("problem" in row for row in found) else 0)


_HEADS = ("owner", "key", "version", "state", "superseded by", "kek", "class", "team", "changed", "problem")


def show(
    *,
    key: Annotated[str | None, typer.Argument(help="The key; or its owner, by options.", metavar="KEY")] = None,
    tenant: Tenant = None,
    integration: Integration = None,
    secret: Secret = None,
    as_json: Json = False,
) -> None:
    """Show the versions of a key, its label, and the rotations that are open."""
    from cryptocore.care.inventory import Held

    async def read(core: "CryptoCore") -> dict[str, Any]:
        if key is None:
            ident = (await core.describe(owner_of(tenant, integration, secret))).key_id
        else:
            await whose(core, key)
            ident = key.lower()
        held = await core.parts.read(core.parts.store.versions, bytes.fromhex(ident))
        versions = [_row(Held(ident, one.number, one)) for one in held]
        label = (await core.labels()).get(ident)
        rotations = [one for one in await core.rotations(owner=held[0].owner) if one.key_id == ident]
        return {
            "key": ident,
            "owner": versions[0]["owner"],
            "versions": versions,
            "class": None if label is None else label.classification,
            "team": None if label is None else label.team,
            "rotations": [
                {"id": one.id, "of_version": one.version, "waits_for": one.step, "due_at": _at(one.due_ms)}
                for one in rotations
            ],
        }

    with core_answers():
        found = ask(read)
    if as_json:
        print_json(found)
        return
    for name in ("key", "owner", "class", "team"):
        if found[name] is not None:
            console.print(f"{name:6} {found[name]}", markup=False, soft_wrap=True)
    print_rows(_VERSION, found["versions"])
    for one in found["rotations"]:
        said = f"rotation {one['id']} of version {one['of_version']} waits for: {one['waits_for']}, due {one['due_at']}"
        console.print(said, markup=False, soft_wrap=True)


_VERSION = ("version", "state", "superseded by", "revision", "kek", "changed")


def timeline(
    *,
    key: Key,
    index: IndexCopy = None,
    monitor: Monitor = False,
    as_json: Json = False,
) -> None:
    """Tell the life of a key from its signed records; with the monitor's index, who used it, too."""

    async def read(core: "CryptoCore") -> list[dict[str, Any]]:
        moments = [_moment(one) for one in await core.inventory.timeline(key)]
        async with monitored(index, monitor=monitor) as documents:
            if documents is not None:
                moments += await _uses(documents, key.lower())
        return sorted(moments, key=lambda one: str(one["at"]))

    with index_answers(index), core_answers():
        found = ask(read)
    if as_json:
        print_json(found)
    else:
        print_rows(_MOMENT, found)


_MOMENT = ("at", "version", "revision", "act", "state", "reason", "actor", "purpose", "service", "note")


def _row(held: "Held") -> dict[str, Any]:
    from cryptocore.care.compromise import owner_name

    if held.version is None:
        return {"key": held.key_id, "version": held.number, "problem": f"not to be believed: {held.problem}"}
    record = held.version.record
    return {
        "owner": owner_name(held.version.owner),
        "key": held.key_id,
        "version": held.number,
        "revision": record.revision,
        "state": record.state,
        "superseded_by": record.superseded_by or None,
        "kek": f"{record.kek_alias}/{record.kek_version}",
        "changed": _at(record.changed_at_ms),
    }


def _wanted(held: "Held", owner: dict[str, str | None], state: KeyState | None, kek: str | None) -> bool:
    """A row that is not to be believed is of any owner, until somebody looked."""
    if held.version is None:
        return True
    ref, record = held.version.owner.ref(), held.version.record
    of_owner = all(value is None or getattr(ref, name) == value for name, value in owner.items())
    return of_owner and state in (None, record.state) and kek in (None, record.kek_alias)


def _moment(moment: "Moment") -> dict[str, Any]:
    record, event = moment.record, moment.event
    told: dict[str, Any] = {
        "at": _at(record.changed_at_ms),
        "version": record.key_version,
        "revision": record.revision,
        "act": "changed" if event is None else event.operation,
        "state": record.state,
        "reason": None if record.reason == "none" else record.reason,
        "kek": f"{record.kek_alias}/{record.kek_version}",
        "signer": record.signer_id.hex(),
        "event_sha256": record.event_sha256.hex(),
    }
    if event is not None:
        told |= {"actor": event.actor, "purpose": event.purpose, "service": event.service, "note": event.note}
    return told


async def _uses(documents: Any, key_id: str) -> list[dict[str, Any]]:
    """Tell what the index has of a key beside its revisions, the latest MOST_USES of it."""
    from streams.index.port import DocKind

    found = []
    for document in await documents.find(DocKind.EVENT, where={"keytrail.key.id": key_id}):
        said, act = document["keytrail"], document["event"]["action"]
        if said["phase"] == "intent" or (said["key"].get("revision") and act in _OF_RECORDS):
            continue
        found.append(
            {
                "at": document["@timestamp"],
                "version": said["key"].get("version"),
                "act": act,
                "outcome": said.get("outcome"),
                "reason": said.get("reason"),
                "actor": document["user"]["id"],
                "purpose": said["purpose"],
                "service": document["service"]["name"],
            }
        )
    if len(found) > MOST_USES:
        complaint.print(f"keytrail: only the last {MOST_USES:,} of {len(found):,} uses", style="yellow", markup=False)
    return found[-MOST_USES:]


_OF_RECORDS = frozenset(
    {"create", "activate", "rotate", "rewrap", "suspend", "resume", "revoke", "archive", "destroy"}
)  # fmt: skip


def _at(moment_ms: int) -> str:
    from cryptocore.clock import rfc3339_ms

    return rfc3339_ms(moment_ms)
