"""Checkpoints of a training run: the whole state in one file, whose identity says which run it belongs to.

    save_state(path, state, identity)
    state = load_state(path, identity)       # None when it is of another run
    found = load_log_probs(path, identity, count)      # None when it is of another run, or damaged: it is computed again

Tensors in safetensors, the rest as JSON in its metadata; nothing is unpickled. Knows nothing about losses.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.files import read_bytes, write_bytes

if TYPE_CHECKING:
    import torch


@dataclass
class State:
    """Everything a resumed run needs."""

    rows: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    best: torch.Tensor
    after_sft: torch.Tensor
    stage: int = 0
    step: int = 0
    updates: int = 0
    best_score: float = float("-inf")
    best_at: str = "start"
    stale: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


_HEADER = 4096  # bytes, at most, of a small file that are no numbers
_TENSORS = ("rows", "first", "second", "best", "after_sft")


def save_state(path: Path, state: State, identity: str) -> None:
    """Write a state and what it belongs to (errors as in :func:`llmpatch.files.write_bytes`)."""
    from safetensors.torch import save

    plain = {k: v for k, v in vars(state).items() if k not in _TENSORS}
    plain["best_score"] = plain["best_score"] if plain["best_score"] != float("-inf") else None
    tensors = {k: getattr(state, k).contiguous() for k in _TENSORS}
    write_bytes(path, save(tensors, metadata={"identity": identity, "state": json.dumps(plain)}))


def save_rows(path: Path, rows: torch.Tensor) -> None:
    """Write rows alone, as a patch's tensor file holds them (errors as in :func:`llmpatch.files.write_bytes`)."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save({"prompt_embeddings": rows.cpu().contiguous()}))


def save_log_probs(path: Path, log_probs: torch.Tensor, identity: str) -> None:
    """Write the DPO reference's log-probabilities [n, 2] and what they depend on (errors as in :func:`save_rows`)."""
    from safetensors.torch import save

    held = log_probs.cpu().contiguous()
    about = json.dumps({"identity": identity, "sha256": _sum(held)})  # one key: safetensors writes several in any order
    write_bytes(path, save({"log_probs": held}, metadata={"about": about}))


def load_log_probs(path: Path, identity: str, count: int) -> torch.Tensor | None:
    """What :func:`save_log_probs` wrote of ``count`` pairs; ``None`` where that is anything else: it can be computed again."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = read_bytes(path, limit=_HEADER + 16 * count)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header["__metadata__"]["about"])
        found: torch.Tensor = load(data)["log_probs"]
        whole = metadata["identity"] == identity and metadata["sha256"] == _sum(found)
        return found if whole and found.shape == (count, 2) and bool(found.isfinite().all()) else None
    except (LlmpatchError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sum(tensor: torch.Tensor) -> str:
    import torch

    return hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()


def load_state(path: Path, identity: str) -> State | None:
    """The state of an earlier run of the same settings, or ``None`` when it was of others.

    Raises:
        IntegrityError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data, metadata = _read(path)
    if metadata["identity"] != identity:
        return None
    try:
        plain = json.loads(metadata["state"])
        plain["best_score"] = float("-inf") if plain["best_score"] is None else plain["best_score"]
        tensors: dict[str, Any] = load(data)
        return State(**tensors, **plain)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def identity_of(path: Path) -> str:
    """What a checkpoint belongs to (errors as in :func:`load_state`)."""
    return _read(path)[1]["identity"]


def _read(path: Path) -> tuple[bytes, dict[str, str]]:
    """A checkpoint's bytes, and what it says of itself."""
    data = read_bytes(path, limit=1 << 28)
    try:
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        return data, {key: str(metadata[key]) for key in ("identity", "state")}
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(f"the checkpoint {path} is damaged: {error}", hint="delete it to start afresh")
