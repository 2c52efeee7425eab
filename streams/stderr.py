"""What a process logs: one JSON object a line on stderr, its own lines and those of libraries in the same form."""

import logging
import sys
from typing import Final

import structlog
from structlog.typing import Processor

_OF_THE_LOG: Final = ("aiokafka", "faust", "mode")
"""They speak below WARNING when DEBUG is asked for, and never at DEBUG: that writes out requests, sign-in included."""
_OF_REQUESTS: Final = ("azure", "elastic_transport", "httpx")
"""At INFO they write each request's address or headers, in which there may be secrets."""


def log_to_stderr(level: str) -> None:
    """Log as JSON lines from now on; libraries only what is a warning.

    Args:
        level: DEBUG, INFO, WARNING or ERROR. With DEBUG, the clients of Kafka log from INFO on.
    """
    number = logging.getLevelNamesMapping()[level]
    for name in (*_OF_THE_LOG, *_OF_REQUESTS):
        logging.getLogger(name).setLevel(max(logging.WARNING, number))
    if number <= logging.DEBUG:
        for name in _OF_THE_LOG:
            logging.getLogger(name).setLevel(logging.INFO)
    begun: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ended: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    _of_libraries(number, begun, ended)
    structlog.configure(
        processors=begun + ended,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def _of_libraries(level: int, begun: list[Processor], ended: list[Processor]) -> None:
    """Bring what comes through `logging`, warnings of Python included, into the form; it names its logger besides."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*begun, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ended],
        )
    )
    logging.basicConfig(handlers=[handler], level=level)
    logging.captureWarnings(capture=True)
