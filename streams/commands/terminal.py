"""How commands talk: results to stdout, complaints as one sentence to stderr, no traceback for what is usual."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alerts.words import printable
from cryptocore.clock import SystemClock
from cryptocore.errors import ConfigurationError, Failed, FormatError
from streams.commands.moments import moment_ms

if TYPE_CHECKING:
    from pydantic import ValidationError

    from streams.feeds.settings import FeedSettings
    from streams.replaying.outfolder import OutFolder
    from streams.settings import Settings

console: Final = Console(highlight=False, emoji=False)
complaint: Final = Console(stderr=True, highlight=False, emoji=False)

NOT_ALL_WELL: Final = 1
"""The command ran, and what it found needs a person."""
WRONG_USE: Final = 2
"""Arguments, settings or files cannot be used: running it again changes nothing."""
SOME_REJECTED: Final = 3
"""Everything was read; some of it was refused, each item with its reason."""
UNREACHABLE: Final = 4
"""A server did not answer or refused: running it again may help."""

STOPPED: Final = 130
"""Ctrl-C."""

_PIPE_WIDTH: Final = 1_000
_BORDERS: Final = 3
"""A column's line and the blank on each side of its cells."""
_UNREACHABLE: Final = frozenset(
    {"KafkaConnectionError", "KafkaTimeoutError", "NodeNotReadyError", "RequestTimedOutError"}
)


def fail(message: str, code: int = WRONG_USE) -> typer.Exit:
    """Say what is wrong, on stderr; raise what this returns."""
    complaint.print(f"keytrail: {message}", style="red", markup=False, soft_wrap=True)
    return typer.Exit(code)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return SystemClock().now_us() // 1000


def said_ms(text: str, *, otherwise: str) -> int:
    """Read a moment as people type it (moments.moment_ms), or end with a sentence."""
    try:
        return moment_ms(text, now_ms=now_ms())
    except ValueError:
        raise fail(otherwise) from None


def print_json(value: Any) -> None:
    """Print one JSON value and nothing else."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of which nothing is cut; into a pipe as wide as it is. Cells are text, never markup.

    Nor are they what a terminal would obey: names in logs are written by strangers.

    What is one word, an id for instance, is what people copy: it stays in one piece, and sentences fold. Where the
    terminal is too narrow for that, each row is a block of lines instead.
    """
    kept = [[printable(str(cell)) for cell in row] for row in rows]
    out = Console(highlight=False, emoji=False, width=None if console.is_terminal else _PIPE_WIDTH)
    columns = [[head, *(row[at] for row in kept)] for at, head in enumerate(heads)]
    single = [not any(len(cell.split()) > 1 for cell in column[1:]) for column in columns]
    least = [
        max(map(cell_len if whole else _longest_word, column)) for column, whole in zip(columns, single, strict=True)
    ]
    needed = sum(width + _BORDERS for width in least) + 1
    if kept and needed > out.width:
        for row in kept:
            for head, cell in zip(heads, row, strict=True):
                if cell:
                    out.print(Text(f"{head}: {cell}" if head else cell), soft_wrap=True)
            out.print()
        return
    table = Table()
    for head, whole in zip(heads, single, strict=True):
        table.add_column(head, no_wrap=whole, overflow="fold")
    for row in kept:
        table.add_row(*map(Text, row))
    out.print(table)


def _longest_word(cell: str) -> int:
    return max((cell_len(word) for word in cell.split()), default=0)


def settings(**given: str) -> "Settings":
    """Read KEYTRAIL_*, or end with what is wrong in it; what the command line gave comes before the environment."""
    needs("pydantic_settings", extra="monitor")
    from pydantic import ValidationError

    from streams.settings import Settings

    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as problem:
        raise _invalid("KEYTRAIL_*", problem) from None


def feed_settings() -> "FeedSettings":
    """Read KEYTRAIL_FEED_*, or end with what is wrong in it."""
    needs("pydantic_settings", extra="feeds")
    from pydantic import ValidationError

    from streams.feeds.settings import FeedSettings

    try:
        return FeedSettings()
    except ValidationError as problem:
        raise _invalid("KEYTRAIL_FEED_*", problem) from None


def needs(*modules: str, extra: str) -> None:
    """End with what to install where a library is not there."""
    if not all(map(_is_there, modules)):
        raise fail(f"this command needs more than is installed: install keytrail[{extra}]")


def _is_there(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in is not there either
        return False


@contextmanager
def plainly(*, kafka: str) -> Iterator[None]:
    """Turn what goes wrong outside this program into a sentence and an exit code.

    Args:
        kafka: which brokers the command talks to, as people know them.
    """
    from aiokafka.errors import KafkaError

    try:
        yield
    except KafkaError as problem:
        raise fail(_kafka(kafka, problem), UNREACHABLE) from None
    except Failed as problem:
        raise fail(str(problem), UNREACHABLE) from None
    except (ConfigurationError, FormatError) as problem:
        raise fail(str(problem)) from None
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        raise fail(f"{where}{problem.strerror or problem}") from None


@contextmanager
def writes_into(out: Path, *, reads: Iterable[Path] = ()) -> "Iterator[OutFolder]":
    """Make the folder that a command writes into; say what stands in the way, and that a stopped run is incomplete.

    Args:
        out: the folder for results.
        reads: files and folders that the command reads; results never go among them.
    """
    from streams.replaying.outfolder import FolderInUse, OutFolder

    try:
        folder = OutFolder(out, reads=reads)
        with TemporaryFile(dir=out):
            pass
    except FolderInUse as problem:
        raise fail(str(problem)) from None
    except OSError as problem:
        raise fail(f"cannot write into {out}: {problem.strerror}") from None
    try:
        yield folder
    except FolderInUse as problem:
        raise fail(str(problem)) from None
    except KeyboardInterrupt:
        raise fail(f"stopped; what is in {out} is incomplete", STOPPED) from None
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        raise fail(f"{where}{problem.strerror or problem}; what is in {out} is incomplete") from None


def _kafka(where: str, problem: Exception) -> str:
    """A broker that is not there and one that says no need different steps."""
    name = type(problem).__name__
    said = f"{name}: {problem}" if str(problem) and str(problem) != name else name
    if name in _UNREACHABLE:
        return f"cannot reach Kafka at {where} ({said})"
    return f"cannot use Kafka at {where} ({said})"


def _invalid(variables: str, problem: "ValidationError") -> typer.Exit:
    lines = (_line(error) for error in problem.errors(include_input=False, include_url=False))
    return fail(f"settings (environment {variables}): " + "; ".join(lines))


def _line(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])
