"""A small server that speaks Key Vault's REST protocol over TLS and keeps its audit log.

It is always used through the real azure-keyvault-keys client. One server serves several vaults by host name. What it
leaves out: certificates, import, key release, rotation policies and Managed HSM.
"""

import random
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web
from azure.core.pipeline.transport import AioHttpTransport

from cryptocore.clock import Clock
from streams.demo.identities import Directory, Identity
from streams.demo.loopback import LOOPBACK, certificates, transport
from streams.demo.vaultkeys import Keys, VaultError
from streams.demo.vaultlog import Entry, VaultLog
from streams.demo.vaultroutes import Call, Vault, route
from streams.simulated import SUBSCRIPTION

CHALLENGE = 'Bearer authorization="https://login.microsoftonline.com/{tenant}", resource="https://vault.azure.net"'
MAX_BODY = 64 * 1024
_TENANT = "7a2f5a43-58c1-4a0e-8f0e-0b9a7d1b7e11"


class VaultServer:
    """The server and its vaults.

    Args:
        clock: the time that records show and tokens age by.
        ids: source of key versions and request ids.
        jitter: seeded generator for what has no meaning (durations, a seventh digit).
    """

    def __init__(self, hosts: list[str], *, clock: Clock, ids: Callable[[int], bytes], jitter: random.Random) -> None:
        self.directory = Directory(clock)
        self._clock = clock
        self._ids = ids
        self._certificates = certificates(hosts)
        self._vaults = {
            host: Vault(
                host, Keys(host, ids=ids), VaultLog(host, subscription=SUBSCRIPTION, clock=clock, jitter=jitter)
            )
            for host in hosts
        }
        self._runner: web.AppRunner | None = None
        self.port = 0

    def vault(self, host: str) -> Vault:
        return self._vaults[host]

    def url(self, host: str) -> str:
        return f"https://{host}"

    def transport(self) -> AioHttpTransport:
        """Return an SDK transport that reaches this server and no other."""
        return transport(self._certificates.client, self.port)

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, port, ssl_context=self._certificates.server)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        vault = self._vaults.get((request.host or "").rsplit(":", 1)[0].lower())
        if vault is None:
            return web.json_response(_error(VaultError(503, "ServiceUnavailable", "No such vault.")), status=503)
        request_id = str(uuid.UUID(bytes=self._ids(16), version=4))
        headers = {"x-ms-request-id": request_id, "x-ms-keyvault-service-version": "1.9.2854.1"}
        identity = self.directory.bearer(request.headers.get("Authorization", ""))
        entry = _entry(request, vault, identity, request_id)
        if identity is None:
            vault.log.write(entry)
            headers["WWW-Authenticate"] = CHALLENGE.format(tenant=_TENANT)
            refusal = VaultError(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
            return web.json_response(_error(refusal), status=401, headers=headers)
        status, body = self._answer(Call(vault, identity, request.method, _parts(request), await _body(request), entry))
        entry.status = status
        vault.log.write(entry)
        if status == 429:  # noqa: PLR2004
            headers["Retry-After"] = "1"
        if not body:
            return web.Response(status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    def _answer(self, call: Call) -> tuple[int, dict[str, Any]]:
        try:
            operation, permission, act = route(call)
            call.entry.operation = operation
            _admit(call, permission)
            body = act(call, self._clock.now_us())
        except VaultError as refusal:
            call.entry.description = refusal.message
            return refusal.status, _error(refusal)
        return (200, body) if body else (204, {})


def _admit(call: Call, permission: str) -> None:
    if call.vault.throttled > 0:
        call.vault.throttled -= 1
        raise VaultError(429, "Throttled", "Request was not processed because too many requests were received.")
    if permission not in call.identity.permissions:
        call.entry.authorized = False
        raise VaultError(403, "Forbidden", _denial(call.identity, permission), "ForbiddenByRbac")


def _entry(request: web.Request, vault: Vault, identity: Identity | None, request_id: str) -> Entry:
    parts = _parts(request)
    client_id = request.headers.get("x-ms-client-request-id", "")
    uri = f"https://{vault.host}{request.path_qs}"
    return Entry(
        operation="Authentication",
        status=401,
        uri=uri,
        correlation_id=client_id if vault.correlation == "client" and client_id else request_id,
        client=request.headers.get("User-Agent", ""),
        identity=identity,
        address=LOOPBACK if identity is None else identity.address,
        object_id=None if identity is None else f"https://{vault.host}/{'/'.join(parts[:3])}",
    )


def _parts(request: web.Request) -> list[str]:
    return [part for part in request.path.split("/") if part]


async def _body(request: web.Request) -> dict[str, Any]:
    if not request.body_exists:
        return {}
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _denial(identity: Identity, permission: str) -> str:
    return (
        "Caller is not authorized to perform action on resource. "
        f"Caller: appid={identity.app_id};oid={identity.object_id} Action: {permission} DenyAssignment: none"
    )


def _error(refusal: VaultError) -> dict[str, Any]:
    body: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.inner is not None:
        body["innererror"] = {"code": refusal.inner}
    return {"error": body}
