"""The reviewed files: can they be used, and who may soon say nothing any more."""

from cryptocore.errors import FormatError
from cryptocore.registry import Registry, Role
from streams.doctor.findings import Area, Finding
from streams.feeds.vaults import VaultDeclarations
from streams.joining.allowed import Allowed
from streams.settings import Settings

SOON_MS = 30 * 86_400_000
"""How long before a signer's end doctor speaks of it: time for a review and an overlap."""


async def look(settings: Settings, now_ms: int) -> list[Finding]:
    """Read every file as a worker would."""
    area = Area("files")
    registry = _registry(area, settings, now_ms)
    if settings.vaults_file is None:
        area.warning(
            "vaults.toml",
            "KEYTRAIL_VAULTS_FILE is not set: nobody judges which vaults are silent or undeclared",
            "declare the vaults (docs/vault-feeds.md)",
        )
    else:
        try:
            declared = VaultDeclarations.load(settings.vaults_file)
        except (FormatError, OSError) as problem:
            area.wrong("vaults.toml", str(problem), "correct the file; a worker does not start with it")
        else:
            area.ok("vaults.toml", f"{len(declared.vaults)} vaults declared")
    if settings.allowed_file is not None:
        try:
            allowed = Allowed.load(settings.allowed_file)
            if registry is not None:
                allowed.check(registry)
        except (FormatError, OSError) as problem:
            area.wrong("allowed.toml", str(problem), "correct the file; a worker does not start with it")
        else:
            area.ok("allowed.toml", "can be used")
    return area.findings


def _registry(area: Area, settings: Settings, now_ms: int) -> Registry | None:
    try:
        registry = Registry.load(settings.sources_file)
    except (FormatError, OSError) as problem:
        area.wrong("sources.json", str(problem), "keytrail sources init draws one; a worker does not start without it")
        return None
    valid = [signer for signer in registry.signers if signer.valid_from_ms <= now_ms < signer.valid_until_ms]
    area.ok("sources.json", f"{len(valid)} of {len(registry.signers)} signers are valid now")
    for role in (Role.EVENTS, Role.KEYS):
        if not any(role in signer.roles for signer in valid):
            area.wrong("sources.json", f"no signer with role {role} is valid", "keytrail sources add")
    _ends(area, registry, now_ms)
    return registry


def _ends(area: Area, registry: Registry, now_ms: int) -> None:
    """Name each source whose last signer of a role ends soon."""
    ends: dict[tuple[str, str], int] = {}
    for signer in registry.signers:
        for held in signer.roles:
            key = (signer.source, str(held))
            ends[key] = max(ends.get(key, 0), signer.valid_until_ms)
    for (source, role_name), end_ms in sorted(ends.items()):
        days = (end_ms - now_ms) // 86_400_000
        if end_ms <= now_ms:
            area.warning(
                source, f"has no valid signer for {role_name} any more", "retire the source, or keytrail sources add"
            )
        elif end_ms - now_ms < SOON_MS:
            area.warning(
                source, f"its last signer for {role_name} ends in {days} days", "keytrail sources add, with overlap"
            )
