"""The one tensor of a patch, in safetensors, read and written without torch.

    data = encode_tensor(embeddings)               # (tokens, dim) float32 -> bytes, always the same
    tensor = decode_tensor(data, where="adapter_model.safetensors")
    tensor.embeddings                              # (tokens, dim) float32, read-only

The safetensors libraries accept duplicate names, NaN, foreign tensors and 100 MB headers. This reader takes exactly one
tensor ``prompt_embeddings`` of F32, F16 or BF16 that fills the file. Knows nothing about manifests.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError

TENSOR_NAME = "prompt_embeddings"
MAX_TENSOR_BYTES = 4 << 20
MAX_HEADER_BYTES = 4096
MAX_TOKENS = 256
MAX_DIM = 1 << 16
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_METADATA = {"format": "pt"}
_HINT = "the file is damaged or was not written by llmpatch; fetch it again"

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor out of a file.

    Attributes:
        embeddings: (tokens, dim) float32, read-only.
        dtype: How it is stored: ``F32``, ``F16`` or ``BF16``.
        digest: sha256 of the stored bytes of the tensor, header aside.
    """

    embeddings: Embeddings
    dtype: str
    digest: str


def encode_tensor(embeddings: Embeddings) -> bytes:
    """The bytes of a safetensors file that holds ``embeddings``, (tokens, dim), as F32."""
    raw = np.ascontiguousarray(embeddings, dtype="<f4").tobytes()
    entry = {"dtype": "F32", "shape": list(embeddings.shape), "data_offsets": [0, len(raw)]}
    header = json.dumps({"__metadata__": _METADATA, TENSOR_NAME: entry}, separators=(",", ":")).encode("ascii")
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw


def decode_tensor(data: bytes, *, where: str) -> Tensor:
    """Read a safetensors file.

    Raises:
        IntegrityError: anything but one finite ``prompt_embeddings`` of at most 256 tokens that fills the file.
    """
    if len(data) > MAX_TENSOR_BYTES:
        raise IntegrityError(f"{where} is larger than {MAX_TENSOR_BYTES:,} bytes", hint=_HINT)
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise IntegrityError(f"{where} is truncated: its header is not complete", hint=_HINT)
    if size > MAX_HEADER_BYTES:
        raise IntegrityError(f"{where}: a header of {size:,} bytes, at most {MAX_HEADER_BYTES:,} allowed", hint=_HINT)
    dtype, tokens, dim = _entry(parse_object(data[8 : 8 + size], where=f"{where} header"), where, len(data) - 8 - size)
    raw = data[8 + size :]
    embeddings = _to_float32(raw, dtype).reshape(tokens, dim)
    if not np.isfinite(embeddings).all():
        raise IntegrityError(f"{where} contains NaN or infinite numbers", hint="do not use this patch; fetch it again")
    embeddings.setflags(write=False)
    return Tensor(embeddings, dtype, hashlib.sha256(raw).hexdigest())


def _entry(header: dict[str, Any], where: str, available: int) -> tuple[str, int, int]:
    """The dtype, tokens and dim of the only tensor, whose ``available`` bytes must be all that follows the header."""
    if header.pop("__metadata__", _METADATA) != _METADATA:
        raise IntegrityError(f"{where}: unknown metadata in the header", hint=_HINT)
    if list(header) != [TENSOR_NAME]:
        names = ", ".join(shown(name) for name in list(header)[:3]) or "none"
        raise IntegrityError(f"{where}: expected the one tensor {TENSOR_NAME}, found {names}", hint=_HINT)
    entry = header[TENSOR_NAME]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise IntegrityError(f"{where}: {TENSOR_NAME} needs dtype, shape and data_offsets, nothing else", hint=_HINT)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise IntegrityError(
            f"{where}: dtype {shown(str(dtype))}, only {', '.join(ITEM_BYTES)} are allowed", hint=_HINT
        )
    if not _two_integers(shape) or not 1 <= shape[0] <= MAX_TOKENS or not 1 <= shape[1] <= MAX_DIM:
        raise IntegrityError(
            f"{where}: shape {shown(str(shape))}, expected [tokens <= {MAX_TOKENS}, dim <= {MAX_DIM:,}]", hint=_HINT
        )
    expected = shape[0] * shape[1] * ITEM_BYTES[dtype]
    if not _two_integers(offsets) or offsets != [0, expected] or available != expected:
        raise IntegrityError(
            f"{where}: a {dtype} tensor of {shape[0]} x {shape[1]} is {expected:,} bytes at [0, {expected}]; "
            f"the header says {shown(str(offsets))} and {available:,} bytes follow it",
            hint=_HINT,
        )
    return dtype, shape[0], shape[1]


def _two_integers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value)


def _to_float32(raw: bytes, dtype: str) -> Embeddings:
    """A flat float32 copy; BF16 is the upper half of a float32, which numpy has no type for."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2").astype(np.float32)


def row_norms(embeddings: Embeddings) -> npt.NDArray[np.float64]:
    """The Euclidean length of each virtual token: (tokens, dim) -> (tokens,), computed in float64."""
    norms: npt.NDArray[np.float64] = np.sqrt(np.square(embeddings, dtype=np.float64).sum(axis=1))
    return norms
