"""What only a deployment in earnest needs: somebody outside who hears when the monitor falls silent, and channels."""

from streams.doctor.findings import Area, Finding
from streams.settings import Settings


async def look(settings: Settings) -> list[Finding]:
    """Judge by the settings."""
    area = Area("monitor")
    if settings.webhook_url is None and not settings.apprise_urls:
        says = "no channel but the log: nobody is called"
        do = "set KEYTRAIL_WEBHOOK_URL and its secret, or KEYTRAIL_APPRISE_URLS"
        if settings.production:
            area.wrong("channels", says, do)
        else:
            area.warning("channels", says, do)
    else:
        count = len(settings.apprise_urls) + (settings.webhook_url is not None)
        area.ok("channels", f"{count} beside the log")
    _canary(area, settings)
    return area.findings


def _canary(area: Area, settings: Settings) -> None:
    missing = [
        f"KEYTRAIL_CANARY_{name}"
        for name, value in (
            ("ROUTE", settings.canary_route),
            ("SECRET", settings.canary_secret),
            ("BEAT_URL", settings.canary_beat_url),
        )
        if value is None
    ]
    if not missing:
        area.ok("canary", "workers deliver it, and somebody outside hears when it stays away")
        return
    says, do = f"{', '.join(missing)} not set: nobody hears when the monitor falls silent", "run keytrail canary"
    if settings.production:
        area.wrong("canary", says, do)
    else:
        area.warning("canary", says, do)
