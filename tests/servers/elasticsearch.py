"""Elasticsearch as one node, laid out from its Maven artifacts and started by `ElasticsearchNode.java`."""

import http.client
import shutil

from tests.servers import jars
from tests.servers.machine import free_port, java
from tests.servers.process import Server

MODULES = "jdk.net,jdk.management.agent,jdk.incubator.vector,ALL-MODULE-PATH"


class ElasticsearchServer(Server):
    """Serves 5 to 12 seconds after `start`, 400 MB resident; security, ILM and `GET /` are in modules it lacks."""

    name = "Elasticsearch"

    def __init__(self) -> None:
        self._java = java(21, "KEYTRAIL_ES_JAVA")
        self._jars = jars.fetched("elasticsearch")
        super().__init__()
        self._http, self._transport = free_port(), free_port()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http}"

    def prepare(self) -> None:
        home = self.folder / "home"
        (home / "config").mkdir(parents=True)
        (home / "data").mkdir()
        shutil.copytree(self._jars / "transport-netty4", home / "modules" / "transport-netty4")

    def command(self) -> list[str]:
        home = str(self.folder / "home")
        return [
            self._java,
            "-Xmx1g",
            f"-Des.path.home={home}",
            "--enable-native-access=ALL-UNNAMED,org.elasticsearch.nativeaccess",
            f"--add-modules={MODULES}",
            "-p",
            str(self._jars / "server"),
            str(jars.HERE / "ElasticsearchNode.java"),
            home,
            str(self._http),
            str(self._transport),
        ]

    def answers(self) -> bool:
        client = http.client.HTTPConnection("127.0.0.1", self._http, timeout=5)
        try:
            client.request("GET", "/_cluster/health")
            return client.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()
