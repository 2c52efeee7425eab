"""The vault of a campaign, the way of its log to the monitor, and a thief who calls it past our services.

Records reach the folder that `keytrail vault-feed files --watch` reads late, out of order, sometimes twice, some never.
"""

import asyncio
import heapq
import json
import os
import random
import ssl
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptocore.clock import SystemClock
from cryptocore.envelope import Owner
from cryptocore.registry import Registry
from cryptocore.store.key_store import KeyStore
from streams.demo.identities import Identity
from streams.demo.loopback import LOOPBACK
from streams.demo.vault import VaultServer
from tests.faults.service import KEK, SERVICE, VAULT, wrapper

HOST = f"{VAULT}.vault.azure.net"
EVERY_S = 0.2
USUAL_S, LATE_S = (0.2, 3.0), (4.0, 12.0)
LATE, LOST, TWICE = 0.05, 0.04, 0.05
USES = {"KeyWrap", "KeyUnwrap"}


def _identity(name: str, draw: random.Random) -> Identity:
    oid, app_id = (str(UUID(int=draw.getrandbits(128), version=4)) for _ in range(2))
    return Identity(name, oid, app_id, "20.70.9.4", frozenset({"get", "wrapKey", "unwrapKey"}))


class VaultSide:
    """The server, and everything about its log."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder = folder
        self.service, self.thief = _identity(SERVICE, draw), _identity("thief", draw)
        self.lost: list[str] = []
        """Call ids of uses whose record never arrives."""
        self.delivered = 0
        self.twice = 0
        self.late = 0
        self.copied: list[str] = []
        self._spared: set[str] = set()
        self._draw = draw
        self._way: list[tuple[float, int, dict[str, Any]]] = []
        self._taken = self._number = 0
        self._server = VaultServer([HOST], clock=SystemClock(), ids=os.urandom, jitter=draw)
        vault = self._server.vault(HOST)
        vault.correlation = "client"
        vault.keys.create(KEK, SystemClock().now_us())

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def logs(self) -> Path:
        return self.folder / "vault-logs"

    def token(self, identity: Identity | None = None) -> str:
        return self._server.directory.issue(identity or self.service)

    async def start(self) -> None:
        await self._server.start()
        pem = await asyncio.to_thread(ssl.get_server_certificate, (LOOPBACK, self.port))
        (self.folder / "vault.pem").write_text(pem)
        self.logs.mkdir()

    async def stop(self) -> None:
        await self._server.stop()

    async def carry(self) -> None:
        """Bring records to the feed's folder until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.step()

    def step(self, *, all_of_it: bool = False) -> None:
        """Take what the vault wrote, and deliver what is due."""
        now_s, draw = asyncio.get_running_loop().time(), self._draw
        records = self._server.vault(HOST).log.records
        for record in records[self._taken :]:
            spared = record["correlationId"] in self._spared or self._oid(record) != self.service.object_id
            is_first = not self.lost and record["operationName"] in USES
            if (draw.random() < LOST or is_first) and not spared:
                if record["operationName"] in USES:
                    self.lost.append(record["correlationId"])
                continue
            copies = 2 if draw.random() < TWICE else 1
            self.twice += copies - 1
            for _ in range(copies):
                late = draw.random() < LATE
                self.late += late
                self._number += 1
                heapq.heappush(self._way, (now_s + draw.uniform(*(LATE_S if late else USUAL_S)), self._number, record))
        self._taken = len(records)
        due = []
        while self._way and (all_of_it or self._way[0][0] <= now_s):
            due.append(heapq.heappop(self._way)[2])
        if due:
            self.delivered += len(due)
            with (self.logs / "PT1H.json").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record, separators=(",", ":")) + "\n" for record in due)

    @staticmethod
    def _oid(record: dict[str, Any]) -> str | None:
        oid = record["identity"].get("claim", {}).get("oid")
        return None if oid is None else str(oid)

    async def steal(self, store_url: str, registry: Registry, owner: Owner, *, copy: bool) -> None:
        """Unwrap a DEK of the key table: as a stranger, or as the service under the call id of one of its own calls."""
        identity, call_id = self.thief, str(UUID(int=self._draw.getrandbits(128), version=4))
        if copy:
            identity, call_id = self.service, self._call_id_of_the_service()
            self.copied.append(call_id)
        store = KeyStore(store_url, registry=registry)
        key = await asyncio.to_thread(store.newest, owner)
        await asyncio.to_thread(store.close)
        assert key is not None
        assert key.wrapped_dek is not None
        way = wrapper(self.token(identity), self.port, self.folder)
        try:
            await way.unwrap(key.wrapped_dek, version=key.record.kek_version, call_ids=(call_id,))
        finally:
            await way.close()

    def _call_id_of_the_service(self) -> str:
        """A call id whose own record has arrived: the thief read the log."""
        for record in self._server.vault(HOST).log.records:
            call_id = record["correlationId"]
            mine = self._oid(record) == self.service.object_id and record["operationName"] in USES
            if mine and call_id not in self.lost and call_id not in self._spared:
                self._spared.add(call_id)
                return str(call_id)
        raise LookupError("the service has called the vault for nothing yet")
