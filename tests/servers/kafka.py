"""Apache Kafka as one broker and controller in one process (KRaft), plaintext on loopback, SASL_SSL too if asked."""

import base64
import socket
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers import jars
from tests.servers.machine import free_port, java
from tests.servers.process import Server

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
log.dirs={folder}/data
message.max.bytes=2097152
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""

SECURE_PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{broker},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},SASL_SSL://127.0.0.1:{secure}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
sasl.enabled.mechanisms=PLAIN,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
 user_{username}="{password}";
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
 org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
"""


class KafkaServer(Server):
    """Serves about 5 seconds after `start`; topics take their own settings, none is made by asking for it."""

    name = "Kafka"

    def __init__(self) -> None:
        self._java = java(17, "KEYTRAIL_JAVA")
        self._classpath = f"{jars.fetched('kafka')}/*"
        super().__init__()
        self._broker, self._controller = free_port(), free_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._broker}"

    def prepare(self) -> None:
        properties = self.folder / "server.properties"
        properties.write_text(self.properties(), encoding="utf-8")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        storage = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties))
        self.run_once(self._java, "-cp", self._classpath, *storage)

    def properties(self) -> str:
        return PROPERTIES.format(broker=self._broker, controller=self._controller, folder=self.folder)

    def command(self) -> list[str]:
        level = "-Dorg.apache.logging.log4j.level=INFO"
        return [self._java, "-Xmx512m", level, "-cp", self._classpath, "kafka.Kafka", "server.properties"]

    def answers(self) -> bool:
        # The broker opens its listener as the last step of its start.
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex(("127.0.0.1", self._broker)) == 0


class SecureKafkaServer(KafkaServer):
    """Also listens with SASL_SSL, as the Kafka surface of Event Hubs does; OAUTHBEARER takes unsigned tokens.

    Its certificate is made for this run and is in `ca_file`.
    """

    username = "$ConnectionString"

    def __init__(self, password: str) -> None:
        super().__init__()
        self._secure = free_port()
        self._password = password

    @property
    def secure_address(self) -> str:
        return f"127.0.0.1:{self._secure}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def properties(self) -> str:
        key, certificate = loopback_certificate()
        (self.folder / "server.pem").write_bytes(key + certificate)
        self.ca_file.write_bytes(certificate)
        own = {"listeners", "advertised.listeners"}
        plain = "\n".join(line for line in super().properties().splitlines() if line.partition("=")[0] not in own)
        return f"{plain}\n" + SECURE_PROPERTIES.format(
            broker=self._broker,
            secure=self._secure,
            controller=self._controller,
            folder=self.folder,
            username=self.username,
            password=self._password,
        )


def loopback_certificate() -> tuple[bytes, bytes]:
    """A private key and a certificate for 127.0.0.1 that signs itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keytrail test broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
