"""The Celery example as a worker starts it: `celery --app tests.cryptocore.celery_worker worker`.

The folder in KEYTRAIL_TEST_DIR holds broker, results, spools, log and key store. One task in ten is the last its
process does in its life: it is killed with the task's result already handed out.
"""

import os
import signal
from pathlib import Path
from typing import Any

from cryptocore import Signer, acting
from examples.celery_app import make_app
from tests.cryptocore.services import OWNER, local_core

HERE = Path(os.environ["KEYTRAIL_TEST_DIR"])
core = local_core(HERE, Signer.from_file(HERE / "signer"))
app = make_app(
    core,
    broker="filesystem://",
    broker_transport_options={
        "data_folder_in": str(HERE / "queue"),
        "data_folder_out": str(HERE / "queue"),
        "control_folder": str(HERE / "control"),
        "polling_interval": 0.05,
    },
    result_backend=f"file://{HERE / 'results'}",
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=1,
    broker_connection_retry_on_startup=False,
)


@app.task(name="tests.use")  # type: ignore[untyped-decorator]
def use(number: int) -> str:
    """Use a key, and tell it outside: what is in `handed-out` must be in the log."""
    stored: bytes = core.sync.encrypt(b"token", owner=OWNER, record=f"tokens/{number}")
    descriptor = os.open(HERE / "handed-out", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, b"%d\n" % number)
    os.close(descriptor)
    if number % 10 == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return stored.hex()


def prepare() -> None:
    """Make the owner's key, in the process that will fork no worker."""
    for name in ("queue", "control", "results"):
        (HERE / name).mkdir()
    with acting(actor="job:prepare", purpose="store-token"):
        core.sync.encrypt(b"first", owner=OWNER, record="r", create_missing=True)
    core.sync.close()


def send(count: int) -> list[Any]:
    """Send tasks, each on behalf of another user."""
    sent = []
    for number in range(count):
        with acting(actor=f"user:{number}", purpose="store-token"):
            sent.append(use.delay(number))
    return sent
