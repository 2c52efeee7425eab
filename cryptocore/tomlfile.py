"""Files that people write and the monitor reads once: UTF-8 and TOML, or the reader's own error."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Invalid = Callable[[str, str], Exception]
"""Makes the reader's error of a field and what is wrong with it."""


def read(path: Path, invalid: Invalid) -> str:
    """Return the text of a file, or raise what `invalid` makes."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise invalid("file", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise invalid("file", f"{path} is not UTF-8") from error


def parse(text: str, invalid: Invalid) -> dict[str, Any]:
    """Return the document, or raise what `invalid` makes."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise invalid("file", f"not TOML: {error}") from error
