"""Apache Kafka as one broker and controller in one process (KRaft), plaintext on loopback."""

import base64
import socket
import uuid

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
        properties.write_text(
            PROPERTIES.format(broker=self._broker, controller=self._controller, folder=self.folder), encoding="utf-8"
        )
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        storage = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties))
        self.run_once(self._java, "-cp", self._classpath, *storage)

    def command(self) -> list[str]:
        level = "-Dorg.apache.logging.log4j.level=INFO"
        return [self._java, "-Xmx512m", level, "-cp", self._classpath, "kafka.Kafka", "server.properties"]

    def answers(self) -> bool:
        # The broker opens its listener as the last step of its start.
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex(("127.0.0.1", self._broker)) == 0
