"""The index: does it answer, over TLS, is its cluster well, has it our templates, what time does it have."""

from typing import Final

from cryptocore.addresses import all_loopback
from cryptocore.clock import Clock
from streams.doctor.findings import Area, Finding
from streams.index.elastic import ElasticIndex, OtherProduct, Server
from streams.index.port import IndexUnavailable
from streams.settings import Settings

MAJOR: Final = "9."


async def look(settings: Settings, index: ElasticIndex, clock: Clock) -> list[Finding]:
    """Ask the server about itself; nothing is written."""
    area = Area("index")
    _protection(area, settings)
    host = f"{settings.elasticsearch_url.host}:{settings.elasticsearch_url.port}"
    try:
        server = await index.server()
        stale = await index.stale_templates()
    except OtherProduct:
        area.wrong(host, "is not Elasticsearch", "correct KEYTRAIL_ELASTICSEARCH_URL")
        return area.findings
    except IndexUnavailable as problem:
        area.wrong(host, f"does not answer: {problem}", "start it; look at the API key's rights (docs/operations.md)")
        return area.findings
    finally:
        await index.close()
    _judge(area, host, server, stale, clock)
    return area.findings


def _protection(area: Area, settings: Settings) -> None:
    url = settings.elasticsearch_url
    if url.scheme == "https":
        area.ok("TLS", "https, TLS 1.2 or later")
    elif all_loopback(f"{url.host}:{url.port}"):
        area.warning("TLS", "http to this machine", "https as soon as the index is another machine")
    else:
        area.wrong("TLS", "http to another machine: events and the API key can be read on the way", "use https")


def _judge(area: Area, host: str, server: Server, stale: list[str], clock: Clock) -> None:
    if server.version.startswith(MAJOR):
        area.ok(host, f"Elasticsearch {server.version}, {server.nodes} nodes")
    else:
        area.wrong(host, f"is Elasticsearch {server.version}", "keytrail is tested with Elasticsearch 9")
    if server.status == "red":
        area.wrong("cluster", "is red: some primary shards are missing", "restore them before documents are refused")
    else:
        area.ok("cluster", f"is {server.status}")
    if stale:
        names = ", ".join(stale)
        area.warning(
            "templates", f"missing or of another version: {names}", "start a worker of this version: it puts them"
        )
    else:
        area.ok("templates", "are those of this version")
    area.clock("clock of the index", server.clock_ms - clock.now_us() // 1000)
