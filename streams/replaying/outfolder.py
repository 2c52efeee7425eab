"""The folder that a demo or a replay leaves its results in: cleared of an earlier run's, and of nothing else.

A listing in the folder names what keytrail wrote there, each file before it is made, so that also a run that was
stopped is known. What the listing does not name is never deleted; where it stands in the way of a result, or where the
results would fall among what is to be read, the run is refused before anything is touched.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from streams.vaultlogs.files import SUFFIXES, TABULAR, walk

LISTING: Final = ".keytrail-files"
VAULT_LOGS: Final = "vault-logs"
WORK: Final = ".work"
RESULTS: Final = frozenset(
    {
        "alerts.ndjson",
        "allowed.toml",
        "batches.ndjson",
        "index.sqlite",
        "index.sqlite-shm",
        "index.sqlite-wal",
        "kek-use.ndjson",
        "rejected.ndjson",
        "report.html",
        "sources.json",
        "summary.json",
        "vault-access.ndjson",
        VAULT_LOGS,
        WORK,
    }
)
"""All that demo and replay ever write in the folder, whichever of it one run does."""


_BESIDE_SQLITE: Final = ("-shm", "-wal")


class FolderInUse(Exception):
    """The folder holds what is not ours to delete, or what is to be read."""


class OutFolder:
    """A folder for results; made if absent.

    Args:
        path: the folder.
        reads: files and folders that the run reads.

    Raises:
        FolderInUse: results cannot go there. Nothing was touched.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, *, reads: Iterable[Path] = ()) -> None:
        self.path = path
        self._listing = path / LISTING
        for read in reads:
            _keep_apart(path, read)
        _refuse_foreign(path, self._listed())
        path.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete what an earlier run left. To be called before the first result is written.

        Raises:
            FolderInUse: something came there since.
        """
        _refuse_foreign(self.path, self._listed())
        for name in RESULTS:
            _delete(self.path / name)
        self._listing.write_text("", encoding="utf-8")

    def file(self, name: str) -> Path:
        """Return the path of a result that is about to be written, and list it."""
        path = self.path / name
        self.claim([path, *(path.with_name(name + ending) for ending in _BESIDE_SQLITE if path.suffix == ".sqlite")])
        return path

    def claim(self, paths: Iterable[Path]) -> None:
        """List files that are about to be written, or a folder with all that will be in it."""
        with self._listing.open("a", encoding="utf-8") as listing:
            listing.writelines(f"{path.relative_to(self.path).as_posix()}\n" for path in paths)

    def _listed(self) -> set[str]:
        return set(self._listing.read_text(encoding="utf-8").splitlines()) if self._listing.is_file() else set()

    def copy(self, source: Path, name: str) -> None:
        """Copy one file that was read."""
        shutil.copyfile(source, self.file(name))

    def copy_vault_logs(self, sources: Sequence[Path]) -> None:
        """Copy files and folders of vault logs, so that reading the copies gives the same records in the same order.

        One folder keeps its inner paths. Of several, and of files, each gets a place of its own that sorts as it was
        named, and a file a name by which a folder's reader takes it.
        """
        target = self.path / VAULT_LOGS
        alone = len(sources) == 1 and sources[0].is_dir()
        for number, source in enumerate(sources, start=1):
            place = target if alone else target / f"{number:0{len(str(len(sources)))}}-{source.resolve().name}"
            for path in walk([source]):
                if os.access(path, os.R_OK):  # what cannot be read was rejected, and has nothing to copy
                    copied = place / path.relative_to(source) if source.is_dir() else _readable(place)
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    self.copy(path, copied.relative_to(self.path).as_posix())

    def concatenate(self, sources: Sequence[Path], name: str) -> None:
        """Copy files of lines one after the other into one."""
        with self.file(name).open("wb") as into:
            for source in sources:
                with source.open("rb") as lines:
                    for line in lines:
                        into.write(line if line.endswith(b"\n") else line + b"\n")


def _keep_apart(out: Path, read: Path) -> None:
    """Refuse where results would be written among what is read, or over it."""
    inside, given = out.resolve(), read.resolve()
    if given.is_dir() and inside.is_relative_to(given):
        raise FolderInUse(f"{out} is, or lies in, {read}, which is to be read: name another folder for the results")
    for name in RESULTS:
        place = out / name
        if given.is_relative_to(place.resolve()) or (place.exists() and given.exists() and place.samefile(given)):
            raise FolderInUse(f"{read} is to be read, and results go to {place}: name another folder for the results")


def _refuse_foreign(folder: Path, listed: set[str]) -> None:
    for name in sorted(RESULTS):
        for path in _files(folder / name):
            if path.relative_to(folder).as_posix() not in listed and not (name == WORK and WORK in listed):
                raise FolderInUse(
                    f"{path} is in the way, and no demo or replay wrote it: move it away, or name another folder"
                )


def _files(place: Path) -> list[Path]:
    """What lies at a place, and below it where that is a folder; links are not followed."""
    if place.is_symlink() or not place.is_dir():
        return [place] if os.path.lexists(place) else []
    return sorted(Path(folder) / name for folder, _, names in os.walk(place) for name in names)


def _delete(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _readable(place: Path) -> Path:
    """A file that was named by itself may be called anything; in a folder only some names are read."""
    return place if place.suffix.lower() in SUFFIXES | TABULAR else place.with_name(place.name + ".json")
