"""How fast vault records are normalised, against json.loads alone on the same bytes.

The records are three of the audit log's envelopes (a real KeyBackup's shape), with fresh times, ids, URIs, callers'
ports and keys, so that caches help as much as they would on a fleet's log and no more. Both figures are for one core
and include decoding.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bench.result import Result
from streams.vaultlogs.normalise import normalise

COUNT = 20_000
ROUNDS = 5
_decode = msgspec.json.Decoder().decode


def records(count: int, seed: int = 1) -> list[bytes]:
    """Distinct records: 40 principals, 20 vaults of 50 keys, one unwrap in four with a version of its own."""
    draw = random.Random(seed)
    principals = [(uuid.UUID(int=draw.getrandbits(128)), uuid.UUID(int=draw.getrandbits(128))) for _ in range(40)]
    return [json.dumps(_record(at, draw, principals)).encode() for at in range(count)]


def _record(at: int, draw: random.Random, principals: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> dict[str, Any]:
    oid, app = draw.choice(principals)
    vault, key = f"kt-prod-{draw.randrange(20):02}", f"tokens-kek-{draw.randrange(50)}"
    operation = draw.choice(["KeyUnwrap", "KeyUnwrap", "KeyWrap", "KeyGet", "KeyBackup"])
    version = f"{draw.getrandbits(128):032x}" if at % 4 == 0 else f"{draw.randrange(3):032x}"
    uri = f"https://{vault}.vault.azure.net/keys/{key}/{version}"
    group = "/SUBSCRIPTIONS/F40A1F1D-F2C6-4444-92A6-000000000000/RESOURCEGROUPS/INTEGRATION"
    return {
        "time": f"2026-11-16T{at // 3600 % 24:02}:{at // 60 % 60:02}:{at % 60:02}.{draw.randrange(10**7):07}Z",
        "category": "AuditEvent",
        "operationName": operation,
        "resultType": "Success",
        "correlationId": str(uuid.UUID(int=draw.getrandbits(128))),
        "callerIpAddress": f"20.50.{draw.randrange(4)}.{draw.randrange(200)}",
        "identity": {"claim": {"oid": str(oid), "appid": str(app), "appidacr": "2", "xms_az_nwperimid": []}},
        "properties": {
            "id": uri,
            "clientInfo": "azsdk-python-keyvault-keys/4.10.0 Python/3.11.2 (Linux-6.1.0)",
            "httpStatusCode": draw.choice([200, 200, 200, 403]),
            "requestUri": f"{uri}/{operation[3:].lower()}key?api-version=7.6&_={draw.randrange(10**12)}",
            "isAccessPolicyMatch": True,
            "keyProperties": {"type": "RSA", "attributes": {"hsmPlatform": "0"}},
            "algorithm": "RSA-OAEP-256",
            "tlsVersion": "TLS1_3",
        },
        "resourceId": f"{group}/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/{vault.upper()}",
        "operationVersion": "7.6",
        "resultSignature": "OK",
        "durationMs": str(draw.randrange(4, 60)),
    }


def _best(work: Callable[[bytes], object], lines: Sequence[bytes]) -> float:
    """Records a second in the best of the rounds, as CPU time."""
    taken_s = []
    for _ in range(ROUNDS):
        started_s = time.process_time()
        for line in lines:
            work(line)
        taken_s.append(time.process_time() - started_s)
    return len(lines) / min(taken_s)


def run() -> list[Result]:
    """Measure `vault_normalise`; the aim is 30,000 records/s a core."""
    lines = records(COUNT)
    value = _best(lambda line: normalise(_decode(line)), lines)
    baseline = _best(json.loads, lines)
    return [Result("vault_normalise", value, "records/s", COUNT, "json.loads", baseline)]
