"""What goes into a step and what comes out of it.

A step is pure: (message, now, state) → effects. It never does I/O and never reads a clock; the shell that owns the
partition calls it, commits its state and outputs together, and writes its documents.
"""

from typing import NamedTuple, Protocol

from streams.index.port import Document
from streams.state import State

KEY_EVENTS = "key-events"
VAULT_ACCESS = "vault-access"
CORRELATE = "correlate"
WHO = "who"
SOURCES = "sources"
FINDINGS = "findings"
REJECTED = "rejected"


class Message(NamedTuple):
    """One message of an input topic; `topic` is the logical name, without the deployment's prefix and the generation.

    `generation` tells messages apart whose topic, partition and offset are the same.
    """

    topic: str
    partition: int
    offset: int
    append_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    generation: int = 1


def generation_in(full_name: str, name: str) -> int:
    """The generation that the full name of a topic carries (Settings.topic)."""
    _, _, number = full_name.rpartition(f"{name}.g")
    return int(number) if number.isdecimal() else 1


class Out(NamedTuple):
    """A message for another topic; `to_all` sends it to every partition."""

    topic: str
    key: bytes | None
    value: bytes
    to_all: bool = False


class Effects:
    """What a step asks its shell to do: nothing is done before the cut that holds it.

    Attributes:
        revocations: how many the step took, ever: for the figures alone.
    """

    __slots__ = ("documents", "out", "revocations")

    def __init__(self) -> None:
        self.revocations = 0
        self.out: list[Out] = []
        self.documents: list[Document] = []

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        self.out.append(Out(topic, key, value))

    def broadcast(self, topic: str, value: bytes) -> None:
        self.out.append(Out(topic, None, value, to_all=True))

    def document(self, document: Document) -> None:
        self.documents.append(document)


class Step(Protocol):
    """One agent's pure function, for one partition. Memory of its own may only be derived from the state."""

    topic: str

    def restore(self, state: State) -> None:
        """Rebuild derived memory after the state was read back."""

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        """Take one message; never raises for bad input, which goes to `rejected`."""

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Let time pass."""

    def reindex(self, message: Message, effects: Effects) -> None:
        """Append the message's append-only documents again: a function of the message and the registry alone."""

    def redocument(self, state: State, effects: Effects) -> None:
        """Append the documents of records whose `doc_revision` and `doc_indexed` differ."""

    def indexed(self, document: Document, state: State) -> None:
        """Note that a versioned document is in the index at its version."""
