"""Envelope encryption whose every use leaves a sealed audit event."""

from importlib import metadata


def _refuse_two_distributions() -> None:
    """Both distributions bring this package; side by side, the order of installation would decide which is imported."""
    installed = [name for name in ("keytrail", "keytrail-core") if any(metadata.Distribution.discover(name=name))]
    if len(installed) > 1:
        raise ImportError(
            "keytrail and keytrail-core are both installed and both bring cryptocore: uninstall one of them"
        )


_refuse_two_distributions()
