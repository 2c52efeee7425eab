"""`keytrail keys`: the life of DEKs, by people. Each command is in the file of its concern."""

from collections.abc import Callable
from typing import Any, Final

import typer

from streams.commands import keys_acts, keys_approve, keys_destroy, keys_look, keys_risk, keys_rotation, keys_work

keys = typer.Typer(help="The life of keys (docs/keys.md).", no_args_is_help=True)

_COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "list": keys_look.list_,
    "show": keys_look.show,
    "timeline": keys_look.timeline,
    "blast-radius": keys_risk.blast_radius,
    "overdue": keys_risk.overdue,
    "create": keys_acts.create,
    "activate": keys_acts.activate,
    "rotate": keys_acts.rotate,
    "suspend": keys_acts.suspend,
    "resume": keys_acts.resume,
    "revoke": keys_acts.revoke,
    "archive": keys_acts.archive,
    "compromise": keys_acts.compromise,
    "import": keys_work.import_,
    "rewrap": keys_work.rewrap,
    "resign": keys_work.resign,
    "approve": keys_approve.approve,
}
for name, command in _COMMANDS.items():
    keys.command(name)(command)
keys.add_typer(keys_rotation.rotation, name="rotation")
keys.add_typer(keys_destroy.destroy, name="destroy")
