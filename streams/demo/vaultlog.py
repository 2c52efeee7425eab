"""What a local vault writes down: AuditEvent records as the real service writes them, the awkward parts included.

`resultType` is always "Success"; a 401 challenge is "Authentication" without caller and without object; durationMs is
a string; time has seven digits; workloads have no UPN; the resource id is in capitals. KeyUnwrap and KeyWrap have no
public raw sample: they follow KeyBackup's shape, plus `properties.algorithm`.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from cryptocore.clock import Clock, rfc3339
from streams.demo.identities import Identity

_SIGNATURES = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
}


@dataclass(slots=True)
class Entry:
    """What the server knows of one request when it is answered."""

    operation: str
    status: int
    uri: str
    correlation_id: str
    client: str
    identity: Identity | None
    address: str
    object_id: str | None = None
    description: str | None = None
    authorized: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class VaultLog:
    """The diagnostic log of one vault, in the order of events.

    Args:
        jitter: seeded generator for durations and the seventh digit; no secret is drawn from it.
    """

    def __init__(self, host: str, *, subscription: str, clock: Clock, jitter: random.Random) -> None:
        name = host.partition(".")[0]
        group = f"/SUBSCRIPTIONS/{subscription}/RESOURCEGROUPS/PRODUCTION"
        self.resource_id = f"{group}/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/{name}".upper()
        self.records: list[dict[str, Any]] = []
        self._clock = clock
        self._jitter = jitter

    def write(self, entry: Entry) -> None:
        """Append one record, timed by the vault's clock."""
        record = {
            "time": f"{rfc3339(self._clock.now_us())[:-1]}{self._jitter.randrange(10)}Z",
            "category": "AuditEvent",
            "operationName": entry.operation,
            "resultType": "Success",
            **({} if entry.description is None else {"resultDescription": entry.description}),
            "correlationId": entry.correlation_id,
            "callerIpAddress": entry.address,
            "identity": {} if entry.identity is None else {"claim": entry.identity.claims()},
            "properties": self._properties(entry),
            "resourceId": self.resource_id,
            "operationVersion": "7.6",
            "resultSignature": _SIGNATURES[entry.status],
            "durationMs": str(self._jitter.randint(4, 60)),
        }
        self.records.append(record)

    @staticmethod
    def _properties(entry: Entry) -> dict[str, Any]:
        properties: dict[str, Any] = {} if entry.object_id is None else {"id": entry.object_id}
        properties |= {"clientInfo": entry.client, "httpStatusCode": entry.status, "requestUri": entry.uri}
        if entry.identity is not None:
            properties["isRbacAuthorized"] = entry.authorized
        return properties | entry.extra | {"tlsVersion": "TLS1_3"}
