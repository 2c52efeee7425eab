"""`keytrail sources`: the reviewed registry of signers, listed and changed. A change is a file to be reviewed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from streams.commands.terminal import complaint, console, fail, now_ms, print_json, print_table, said_ms

if TYPE_CHECKING:
    from cryptocore.registry import RegisteredSigner, Registry

sources = typer.Typer(help="The registry of signers: who may say what.", no_args_is_help=True)

_DAY_MS: Final = 86_400_000
RegistryFile = Annotated[
    Path, typer.Option("--sources", envvar="KEYTRAIL_SOURCES_FILE", help="The registry file.", show_default=True)
]
SignerId = Annotated[str, typer.Argument(help="The entry, by its signer id (32 hex digits, or the first ones).")]
At = Annotated[str, typer.Option(help="When: a date, an RFC 3339 time, or how long ago (36h).")]


@sources.command("init")
def init(
    out: Annotated[Path, typer.Option(help="Folder for sources.json and one private key a service.")],
    service: Annotated[
        list[str], typer.Option(help="NAME or NAME=VAULT-PRINCIPAL-ID; the first also signs key records. Repeatable.")
    ],
    days: Annotated[int, typer.Option(min=1, help="How long the signers are valid.")] = 365,
) -> None:
    """Draw a development deployment: a registry file and a private key (0600) for each service."""
    from cryptocore.development import make_registry
    from cryptocore.errors import RegistryInvalid

    try:
        made = make_registry(out, service, now_ms=now_ms(), days=days)
    except RegistryInvalid as problem:
        said = ", ".join(service)
        raise fail(
            f"--service {said}: {problem}; a vault principal is an object id as the vault's log has it, without spaces"
        ) from None
    except (ValueError, FileExistsError) as problem:
        raise fail(str(problem)) from problem
    for path in made:
        console.print(str(path), markup=False)
    console.print("For development only: in production, keys are mounted from a secret store and the file is reviewed.")


@sources.command("list")
def list_(
    file: RegistryFile = Path("sources.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Show every entry and whether it is valid now."""
    from cryptocore.clock import rfc3339_ms

    registry, now = _loaded(file), now_ms()
    rows = [
        {
            "source": signer.source,
            "signer_id": signer.signer_id.hex(),
            "roles": sorted(signer.roles),
            "state": _state(signer, now),
            "valid_from": rfc3339_ms(signer.valid_from_ms),
            "valid_until": rfc3339_ms(signer.valid_until_ms),
            "vault_principals": list(signer.vault_principals),
            "person": signer.person,
        }
        for signer in registry.signers
    ]
    if as_json:
        print_json(rows)
        return
    heads = ("source", "signer", "roles", "state", "until", "vault principals", "person")
    print_table(
        heads,
        (
            [
                str(row["source"]),
                str(row["signer_id"]),
                ", ".join(sorted(signer.roles)),
                str(row["state"]),
                str(row["valid_until"])[:10],
                ", ".join(signer.vault_principals),
                signer.person or "",
            ]
            for row, signer in zip(rows, registry.signers, strict=True)
        ),
    )


@sources.command()
def add(  # noqa: PLR0917 - typer reads them by name
    source: Annotated[str, typer.Argument(help="The source that the signer speaks for.")],
    role: Annotated[list[str], typer.Option(help="events, keys or approve. Repeatable.")],
    public_key: Annotated[str | None, typer.Option(help="Ed25519 public key, 64 hex digits.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Draw a private key into this file (0600) instead; it is never shown.")
    ] = None,
    principal: Annotated[list[str], typer.Option(help="Vault principal id of the source. Repeatable.")] = [],  # noqa: B006 - typer's way to say "none"
    person: Annotated[str | None, typer.Option(help="Who it is; an approver is a person.")] = None,
    valid_from: At = "now",
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 365,
    file: RegistryFile = Path("sources.json"),
) -> None:
    """Add a signer: a new source, or the next key of one that has one, valid beside it until that is retired."""
    from cryptocore.errors import ConfigurationError, RegistryInvalid
    from cryptocore.registry import RegisteredSigner, Role
    from cryptocore.signing import Signer, signer_id_of

    registry, begin = _loaded(file), _moment(valid_from)
    if (public_key is None) == (new_key is None):
        raise fail("give either --public-key, or --new-key to draw one")
    if new_key is not None and new_key.exists():
        raise fail(f"{new_key} is there already; nothing was written")
    signer = None if new_key is None else Signer.generate()
    try:
        raw = signer.public_key if signer is not None else bytes.fromhex(public_key or "")
        entry = RegisteredSigner(
            signer_id=signer_id_of(raw),
            public_key=raw,
            source=source,
            roles=frozenset(map(Role, role)),
            vault_principals=tuple(name.lower() for name in principal),
            person=person,
            valid_from_ms=begin,
            valid_until_ms=begin + days * _DAY_MS,
        )
        changed = registry.with_signer(entry)
        if signer is not None and new_key is not None:
            signer.write_file(new_key)
    except (RegistryInvalid, ConfigurationError) as problem:
        raise fail(str(problem)) from None
    except ValueError as problem:
        raise fail(f"--public-key or --role: {problem}") from None
    _write(file, changed, f"{source}: signer {entry.signer_id.hex()} added")


@sources.command()
def retire(signer: SignerId, at: At = "now", file: RegistryFile = Path("sources.json")) -> None:
    """Let a signer end; what it signed before stays good. To rotate: add the new one first, then retire the old."""
    from cryptocore.errors import RegistryInvalid
    from cryptocore.registry import Role
    from cryptocore.registry_changes import ending

    registry, end = _loaded(file), _moment(at)
    entry = _found(registry, signer)
    try:
        changed = ending(registry, entry.signer_id, valid_until_ms=end)
    except RegistryInvalid as problem:
        raise fail(str(problem)) from None
    left = [role for role in entry.roles if not _anybody(changed, entry.source, Role(role), end)]
    for role in left:
        complaint.print(f"keytrail: {entry.source} has no signer for {role} after that", style="yellow", markup=False)
    _write(file, changed, f"{entry.source}: signer {entry.signer_id.hex()} ends")


@sources.command()
def compromised(signer: SignerId, at: At, file: RegistryFile = Path("sources.json")) -> None:
    """Mark a signer whose private key is in other hands since a time: what it signs from then on proves nothing."""
    from cryptocore.registry_changes import compromised as mark

    registry = _loaded(file)
    entry = _found(registry, signer)
    _write(
        file,
        mark(registry, entry.signer_id, from_ms=_moment(at)),
        f"{entry.source}: signer {entry.signer_id.hex()} is compromised; add another key, and look at what it signed",
    )


def _anybody(registry: "Registry", source: str, role: str, at_ms: int) -> bool:
    return any(one.source == source and role in one.roles and one.valid_until_ms > at_ms for one in registry.signers)


def _state(signer: "RegisteredSigner", now: int) -> str:
    if signer.suspect(now):
        return "compromised"
    if now < signer.valid_from_ms:
        return "not yet"
    return "valid" if now < signer.valid_until_ms else "ended"


def _found(registry: "Registry", prefix: str) -> "RegisteredSigner":
    found = [signer for signer in registry.signers if signer.signer_id.hex().startswith(prefix.lower())]
    if len(found) != 1:
        raise fail(f"{len(found) or 'no'} entries have a signer id that begins with {prefix}")
    return found[0]


def _loaded(file: Path) -> "Registry":
    from cryptocore.errors import RegistryInvalid
    from cryptocore.registry import Registry

    try:
        return Registry.load(file)
    except RegistryInvalid as problem:
        raise fail(f"{file} is no registry of signers that can be used (sources.json): {problem}") from None


def _moment(text: str) -> int:
    if text == "now":
        return now_ms()
    return said_ms(text, otherwise=f"--at {text}: not a date, an RFC 3339 time or how long ago (36h)")


def _write(file: Path, registry: "Registry", says: str) -> None:
    """Put the whole file in place of the old one, durably."""
    from streams.feeds.durable import replace_file

    try:
        replace_file(file, registry.encode())
    except OSError as problem:
        raise fail(f"{file}: {problem.strerror}; nothing was changed") from None
    console.print(
        f"{file}: {says}. Review the change, then start services and workers again.", markup=False, soft_wrap=True
    )
