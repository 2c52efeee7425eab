"""A certificate authority for one run, and an SDK transport that finds the vaults' real host names on loopback.

The URLs stay `https://kv-prod.vault.azure.net/…`, so that the SDK's own checks (TLS, the challenge's resource)
run as in production; only the name resolution is ours. Proxy settings of the machine are not read.
"""

import ipaddress
import socket
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import ClientSession, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from azure.core.pipeline.transport import AioHttpTransport
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Certificates:
    """A server's TLS context and the context that trusts it alone."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def certificates(hosts: list[str]) -> Certificates:
    """Make a self-signed certificate for these hosts (TLS 1.2 or newer), good for a day of the machine's clock."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keytrail local vault")])
    now = datetime.now(UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    alternatives.append(x509.IPAddress(ipaddress.ip_address(LOOPBACK)))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    client = ssl.create_default_context(cadata=pem.decode())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context in (client, server):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.TemporaryDirectory() as folder:  # the ssl module reads certificates from files only
        path = Path(folder, "server.pem")
        path.touch(mode=0o600)
        path.write_bytes(private + pem)
        server.load_cert_chain(path)
    return Certificates(server, client)


class _Loopback(AbstractResolver):
    """Every host and port is this one port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - the interface's signature
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=LOOPBACK, port=self._port, family=family, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        """Nothing is held open."""


def transport(trusted: ssl.SSLContext, port: int) -> AioHttpTransport:
    """Return an SDK transport that only ever connects to this port on loopback and trusts this certificate alone."""
    connector = TCPConnector(ssl=trusted, resolver=_Loopback(port))
    return AioHttpTransport(session=ClientSession(connector=connector, trust_env=False), use_env_settings=False)
