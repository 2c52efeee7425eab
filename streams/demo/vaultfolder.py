"""The vaults' own records as a storage account would hold them: one PT1H.json a vault and hour, one record a line."""

import json
from pathlib import Path
from typing import Any

from streams.replaying.outfolder import VAULT_LOGS, OutFolder


def write_vault_logs(out: OutFolder, records: list[dict[str, Any]]) -> None:
    """Write records, in the order they arrived, below vault-logs/resourceId=…/y=…/m=…/d=…/h=…/m=00/."""
    folder = out.path / VAULT_LOGS
    files: dict[Path, list[str]] = {}
    for record in records:
        files.setdefault(_place(folder, record), []).append(json.dumps(record, separators=(",", ":")))
    out.claim(files)
    for path, lines in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _place(folder: Path, record: dict[str, Any]) -> Path:
    day, time = str(record["time"]).split("T")
    year, month, date = day.split("-")
    resource = str(record["resourceId"]).strip("/")
    parts = (f"resourceId={resource}", f"y={year}", f"m={month}", f"d={date}", f"h={time[:2]}", "m=00")
    return folder.joinpath(*"/".join(parts).split("/"), "PT1H.json")
