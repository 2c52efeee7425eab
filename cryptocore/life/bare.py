"""How other software wrapped its bare DEKs: read by the import of an existing estate, written by nothing here."""

from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA1, SHA256


class BareWrap(StrEnum):
    """The wraps that can be imported, by the names that vaults give them."""

    RSA_OAEP = "RSA-OAEP"
    RSA_OAEP_256 = "RSA-OAEP-256"


PADDINGS: Final = {
    BareWrap.RSA_OAEP: OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None),  # noqa: S303 - to read what was before
    BareWrap.RSA_OAEP_256: OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None),
}
"""Paddings by wrap."""
