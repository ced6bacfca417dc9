"""A digest of a model's weights that takes milliseconds: it tells models apart whose embeddings are the same.

    weights_digest(base)     # changes with a merged LoRA, which a fingerprint does not see

Knows nothing about what the digest is kept with.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from llmpatch.bases import Base

if TYPE_CHECKING:
    import torch

_PROBES = 256


def weights_digest(base: Base) -> str:
    """Digest of up to 256 evenly spaced values of every tensor of a model; it must not be spread over processes.

    A base's fingerprint looks at embeddings only, which a merged LoRA leaves as they are; this tells such models apart without
    hashing gigabytes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(base.model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()


def _sample(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    return bytes(flat[:: max(1, -(-flat.numel() // _PROBES))].double().cpu().numpy().tobytes())
