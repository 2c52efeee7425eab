"""A service that forks after its core was used, as a preloading server does; parent and child end as programs do."""

import os
import sys
from pathlib import Path

from cryptocore import Signer, acting
from tests.cryptocore.services import OWNER, local_core


def main(directory: Path) -> None:
    core = local_core(directory, Signer.from_file(directory / "signer"))
    with acting(actor="job:parent", purpose="store-token"):
        core.sync.encrypt(b"before", owner=OWNER, record="r", create_missing=True)
    child = os.fork()
    name = "child" if child == 0 else "parent"
    with acting(actor=f"job:{name}", purpose="store-token"):
        for _ in range(5):
            core.sync.encrypt(b"after", owner=OWNER, record="r")
    if child:
        _, status = os.waitpid(child, 0)
        with acting(actor="job:parent", purpose="store-token"):
            core.sync.encrypt(b"after the child's end", owner=OWNER, record="r")
        sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
