"""Trained stages of a baseline on disk: the adapter's weights and what they took, under the digest of what they depend on.

save_stage(path, about, wrapped, found)
load_stage(path, about, wrapped)         # found, with the weights set; None where there is none of these settings
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import IntegrityError
from llmpatch.files import read_bytes, write_bytes

if TYPE_CHECKING:
    import torch

MAX_WEIGHTS_BYTES = 1 << 32


def trained_weights(wrapped: Any) -> dict[str, torch.Tensor]:
    """What is trained, by name."""
    marks = ("lora_A.default", "lora_B.default", "prompt_encoder.default")
    return {name: weight for name, weight in wrapped.named_parameters() if any(mark in name for mark in marks)}


def set_weights(wrapped: Any, weights: dict[str, Any]) -> None:
    """Put weights, by name, in the place of the trained ones."""
    import torch

    with torch.no_grad():
        for name, weight in trained_weights(wrapped).items():
            weight.copy_(weights[name])


def save_stage(path: Path, about: str, wrapped: Any, found: dict[str, Any]) -> None:
    """Keep the weights as they are now, with what the stage took (errors as in :func:`llmpatch.files.write_bytes`)."""
    from safetensors.torch import save

    weights = {name: weight.detach().contiguous() for name, weight in trained_weights(wrapped).items()}
    write_bytes(path, save(weights, metadata={"about": about, "found": json.dumps(found)}))


def load_stage(path: Path, about: str, wrapped: Any) -> dict[str, Any] | None:
    """What a kept stage took, with its weights set; ``None`` where there is none of these settings.

    Raises:
        IntegrityError: the file is damaged or huge.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.exists():
        return None
    data = read_bytes(path, limit=MAX_WEIGHTS_BYTES)
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if metadata["about"] != about:
            return None
        found: dict[str, Any] = json.loads(metadata["found"])
        weights = load(data)
        if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in trained_weights(wrapped).items()}:
            raise ValueError("other weights than this baseline has")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"the baseline {path} is damaged: {error}", hint="delete it to train it again") from None
    set_weights(wrapped, weights)
    return found
