"""A worker process of a campaign: what `keytrail worker` runs, less patient, over Faust or over plain aiokafka.

Started as `python -m tests.faults.worker faust`.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import typer

from alerts.thresholds import MINUTE_MS, Limits
from streams.commands.terminal import plainly, settings
from streams.running.app import WorkerApp
from streams.running.process import Application
from streams.running.worker import run
from tests.streams.plain_app import PlainApp

LIMITS: Final = Limits(head_received_ms=1 * MINUTE_MS)
"""A campaign lasts minutes: a batch that does not come is told after one, where operation waits for five."""


class Over(StrEnum):
    """What brings messages and assignments to the shell."""

    FAUST = "faust"
    PLAIN = "plain"


APPLICATIONS: Final[Mapping[Over, Callable[..., Application]]] = {Over.FAUST: WorkerApp, Over.PLAIN: PlainApp}


def main(over: Over) -> None:
    chosen = settings()
    with plainly(kafka=chosen.kafka_bootstrap):
        run(chosen, limits=LIMITS, application=APPLICATIONS[over])


if __name__ == "__main__":
    typer.run(main)
