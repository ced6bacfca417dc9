"""The names of a patch's files and how large each may be: the same in a folder and in a ``.lpatch``.

    LIMITS["patch.json"]    # bytes

Knows nothing about what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmpatch.artifact.tensors import MAX_TENSOR_BYTES

MANIFEST_FILE = "patch.json"
TENSOR_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
CARD_FILE = "README.md"
EVIDENCE_FILE = "evidence.json"
SIGNATURE_FILE = "patch.sig"
ARCHIVE_SUFFIX = ".lpatch"
LIMITS = {
    CARD_FILE: 256 << 10,
    CONFIG_FILE: 16 << 10,
    TENSOR_FILE: MAX_TENSOR_BYTES,
    EVIDENCE_FILE: 1 << 20,
    MANIFEST_FILE: 256 << 10,
}
MAX_SIGNATURE_BYTES = 64 << 10
ALL_LIMITS = {**LIMITS, SIGNATURE_FILE: MAX_SIGNATURE_BYTES}
TOLERATED = frozenset({".gitattributes"})
DAMAGED = "the patch is damaged or was changed after it was made; fetch it again"


@dataclass(frozen=True)
class Contents:
    """The bytes of a patch, each file read once, none checked yet.

    Attributes:
        files: The five files by name.
        signature: ``patch.sig``, if there is one.
        strangers: Names that lie beside them and are tolerated unread: ``.gitattributes``.
    """

    files: Mapping[str, bytes] = field(repr=False)
    signature: bytes | None = field(default=None, repr=False)
    strangers: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, bytes]:
        """All files that belong to the patch, its signature included."""
        return {**self.files} if self.signature is None else {**self.files, SIGNATURE_FILE: self.signature}
