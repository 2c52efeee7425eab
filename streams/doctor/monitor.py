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
    return area.findings
