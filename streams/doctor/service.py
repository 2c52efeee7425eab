"""What a service that embeds cryptocore stands on: its settings, spool, key store and vault."""

import asyncio
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Final

from cryptocore.core import CryptoCore
from cryptocore.errors import ConfigurationError, FormatError
from cryptocore.lines.vocabulary import Durability, Reason
from cryptocore.registry import Registry
from cryptocore.settings import CoreSettings, build
from cryptocore.spool.lock import is_held, spools_of
from cryptocore.store.check import check
from cryptocore.store.engine import StoreOptions
from cryptocore.wrapping import KeyWrapper, VaultCallFailed
from streams.doctor.findings import Area, Finding, Verdict

PREFIX: Final = "KEYTRAIL_CORE_"
ORPHANED_S: Final = 3_600
"""A spool left for longer is adopted by nobody: no process of the service comes to this disk any more."""
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_LAYERS: Final = frozenset({"overlay", "aufs"})
_VAULT_DO: Final = {
    Reason.VAULT_DENIED: "grant the identity keys/get, wrapKey and unwrapKey, and look at the vault's firewall",
    Reason.VAULT_NOT_FOUND: "correct KEYTRAIL_CORE_KEK_NAME, or make the key",
    Reason.VAULT_UNREACHABLE: "look at the network between, and at KEYTRAIL_CORE_KEK_VAULT_URL",
}
_NOT_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


async def look() -> list[Finding]:
    """Look at what KEYTRAIL_CORE_* names; on a machine of the monitor alone, nothing is set."""
    area = Area("service")
    if not any(name.startswith(PREFIX) for name in os.environ):
        area.skipped("service", f"no {PREFIX}* is set here", "run doctor in a service's environment, too")
        return area.findings
    try:
        settings = CoreSettings.load()
        Registry.load(settings.registry_file)
        core = build(settings)
        wrapper = core.parts.wrappers[settings.kek_alias]
    except (ConfigurationError, FormatError, OSError) as problem:
        area.wrong("settings", str(problem), "correct the variable or the file; the service does not start")
        return area.findings
    area.ok("settings", f"of service {settings.service} can be used")
    _signer(area, core)
    _spool(area, settings)
    orphans(area, settings.spool_dir, settings.service, now_s=time.time())
    try:
        options = StoreOptions(allow_plaintext=settings.store_allow_plaintext)
        area.findings += await asyncio.to_thread(key_store, settings.store_url.get_secret_value(), options)
        return area.findings + await vault(wrapper)
    finally:
        await core.close()


def _signer(area: Area, core: CryptoCore) -> None:
    """Say whether this service may act on keys and keep tokens, or only use keys; each act asks again."""
    try:
        core.parts.lifecycle.revisions.check_signer()
    except ConfigurationError:
        area.ok("signer", "has not the role keys: uses only; acts on keys and tokens kept are refused")
    else:
        area.ok("signer", "has the role keys: may act on keys and keep tokens")


def _spool(area: Area, settings: CoreSettings) -> None:
    """Look at the disk that must outlive the process."""
    folder = settings.spool_dir
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        area.wrong("spool", f"{folder} cannot be written", "give the service's user this folder")
        return
    kind = file_system(existing)
    if settings.durability is Durability.BROKER:
        area.ok("spool", "durability is broker: results wait for the log, the disk may be lost")
    elif kind in _MEMORY:
        area.wrong("spool", f"{folder} is in memory ({kind})", "put it on a volume, or set durability to broker")
    elif kind in _LAYERS:
        area.wrong(
            "spool", f"{folder} is the container's own layer ({kind})", "mount a volume, or set durability to broker"
        )
    else:
        area.ok("spool", f"{folder} is on {kind or 'a disk'}")
    free = shutil.disk_usage(existing).free
    if free < settings.quota_bytes:
        area.wrong("spool", f"{free >> 20} MiB are free, the quota is {settings.quota_bytes >> 20} MiB", "make room")
    if folder.exists() and folder.stat().st_mode & _NOT_OTHERS:
        area.warning("spool", f"{folder} is open to others", "chmod 700: who writes it can hold events back")


def orphans(area: Area, folder: Path, service: str, *, now_s: float) -> None:
    """Look for spools whose process is gone and that nobody adopted: events that the monitor is still to hear of."""
    left = [path for path in spools_of(folder, service) if path.exists() and not is_held(path)]
    old = [path for path in left if now_s - _written_s(path) > ORPHANED_S]
    if old:
        hours = int((now_s - min(map(_written_s, old))) // ORPHANED_S)
        says = f"{len(old)} of processes that are gone wait in {folder}, the oldest for {hours} h"
        area.warning("spools left", says, "run keytrail drain on this disk, with this service's settings")
    elif left:
        area.ok(
            "spools left", f"{len(left)} of processes that are gone, for less than an hour: the next one adopts them"
        )
    else:
        area.ok("spools left", "none of a process that is gone")


def _written_s(path: Path) -> float:
    """When a spool was last written: SQLite writes beside the file first."""
    beside = (path, path.with_name(f"{path.name}-wal"))
    return max((one.stat().st_mtime for one in beside if one.exists()), default=0.0)


_VERDICTS: Final = {True: Verdict.OK, None: Verdict.OK, False: Verdict.WRONG}


def key_store(url: str, options: StoreOptions) -> list[Finding]:
    """Look at the key store as `keytrail store check` does: schema, triggers, roles, grants, clock, transport."""
    try:
        looks = check(url, options=options)
    except ConfigurationError as problem:
        return [Finding("service", "key store", Verdict.WRONG, str(problem), "correct KEYTRAIL_CORE_STORE_URL")]
    return [Finding("service", f"key store: {one.subject}", _VERDICTS[one.well], one.says, one.do) for one in looks]


def file_system(path: Path) -> str:
    """Name the type of file system that a path is on, as the kernel says; empty where it does not."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        _, point, this, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")
        if path.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, this
    return kind


async def vault(wrapper: KeyWrapper) -> list[Finding]:
    """Read a KEK, which shows that the vault answers this identity; wrapping is tried when the first key is made."""
    area = Area("service")
    subject = f"KEK {wrapper.kek_alias}"
    try:
        version = await wrapper.current_version()
    except VaultCallFailed as failed:
        area.wrong(subject, f"cannot be read: {failed.reason}", _VAULT_DO.get(failed.reason, "look at the vault"))
    except Exception as problem:  # noqa: BLE001 - azure-identity raises what it likes, and its text may hold a token
        area.wrong(subject, f"no identity to read it with: {type(problem).__name__}", "give the process an identity")
    else:
        area.ok(subject, f"can be read; its newest version is {version}")
    return area.findings
