"""A broker that looks like Event Hubs: TLS, and a connection string as the password."""

from collections.abc import Iterator

import pytest

from tests.servers.kafka import SecureKafkaServer
from tests.servers.machine import MissingServerError
from tests.servers.session import refuse

CONNECTION_STRING = "Endpoint=sb://127.0.0.1/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0;EntityPath=insights"


@pytest.fixture(scope="module")
def hub() -> Iterator[SecureKafkaServer]:
    try:
        server = SecureKafkaServer(CONNECTION_STRING)
    except MissingServerError as missing:
        refuse(SecureKafkaServer.name, str(missing))
    with server:
        yield server
