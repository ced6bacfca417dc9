"""GGUF files: rewritten with single fields and tensors changed, everything else byte for byte as it was.

    rewrite(source, target, fields={"tokenizer.chat_template": "..."}, tensors={"token_embd.weight": Stored(...)})

Knows the container and its number formats. Knows nothing about models or patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmpatch.errors import LlmpatchError, UsageError

Array = npt.NDArray[Any]
_SCALES_OF_Q6_K = 16


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor as it lies in a file.

    Attributes:
        data: Its bytes or numbers, rows first: [rows, bytes a row] where it is quantised, else [rows, columns].
        kind: Its GGML type, as ``Q4_1``.
    """

    data: Array = field(repr=False)
    kind: str


def open_gguf(path: Path) -> Any:
    """A ``GGUFReader``.

    Raises:
        LlmpatchError: the file cannot be read as GGUF.
    """
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except Exception as error:  # the reader raises whatever its arithmetic meets in a damaged file
        raise LlmpatchError(
            f"cannot read {path} as GGUF: {str(error)[:200]}", hint="is it whole? fetch it again"
        ) from None


def value_of(reader: Any, name: str, default: Any = None) -> Any:
    """The value of a field, or ``default``."""
    found = reader.get_field(name)
    return default if found is None else found.contents()


def stored(reader: Any, name: str) -> Stored | None:
    """A tensor by name."""
    for tensor in reader.tensors:
        if tensor.name == name:
            return Stored(tensor.data, tensor.tensor_type.name)
    return None


def rewrite(source: Any, target: Path, *, fields: Mapping[str, Any], tensors: Mapping[str, Stored | None]) -> None:
    """Write a GGUF file that is another one but for what is named here.

    Args:
        source: The other file's reader.
        target: Where.
        fields: New values, of the type the field had; a new field may hold a text or true or false.
        tensors: New tensors; those the source has keep their place. ``None`` leaves a tensor out.
    """
    from gguf import GGUFValueType, GGUFWriter

    writer = GGUFWriter(None, value_of(source, "general.architecture"))
    writer.data_alignment = source.alignment
    known = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture"}
    for name, old in source.fields.items():
        if name not in known:
            sub = old.types[-1] if old.types[0] is GGUFValueType.ARRAY else None
            value = fields[name] if name in fields else old.contents()
            if sub is None or len(value):  # an empty array has no type to be written with
                writer.add_key_value(name, value, old.types[0], sub)
            known.add(name)
    for name, value in fields.items():
        if name not in known:
            writer.add_key_value(name, value, GGUFValueType.BOOL if isinstance(value, bool) else GGUFValueType.STRING)
    old_tensors = {t.name: Stored(t.data, t.tensor_type.name) for t in source.tensors}
    _write(writer, target, {**old_tensors, **tensors})


def new_gguf(target: Path, architecture: str, fields: Mapping[str, Any], tensors: Mapping[str, Stored]) -> None:
    """Write a GGUF file of texts, floats and tensors."""
    from gguf import GGUFValueType, GGUFWriter

    writer = GGUFWriter(None, architecture)
    for name, value in fields.items():
        writer.add_key_value(name, value, GGUFValueType.FLOAT32 if isinstance(value, float) else GGUFValueType.STRING)
    _write(writer, target, tensors)


def _write(writer: Any, target: Path, tensors: Mapping[str, Stored | None]) -> None:
    """Add the tensors that are kept, write the file and close it."""
    from gguf import GGMLQuantizationType

    for name, tensor in tensors.items():
        if tensor is not None:
            writer.add_tensor(name, tensor.data, raw_dtype=GGMLQuantizationType[tensor.kind])
    try:
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def dequantise(tensor: Stored) -> npt.NDArray[np.float32]:
    """Numbers of a tensor, [rows, columns] float32."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    found: npt.NDArray[np.float32] = dequantize(tensor.data, GGMLQuantizationType[tensor.kind])
    return found


def quantise(rows: npt.NDArray[np.float32], kind: str) -> Stored:
    """Rows [n, columns] in a GGML type.

    Raises:
        UsageError: a type that nothing here can write, or columns that do not fill its blocks.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import QuantError, quantize

    if kind == "Q6_K" and rows.shape[1] % 256 == 0:
        return Stored(_to_q6_k(rows), kind)
    try:
        return Stored(quantize(np.ascontiguousarray(rows, dtype=np.float32), GGMLQuantizationType[kind]), kind)
    except (NotImplementedError, QuantError, KeyError) as error:
        raise UsageError(
            f"rows of {rows.shape[1]} numbers cannot be written as {kind}: {str(error) or 'no quantiser for it'}",
            hint="quantise the model again with its output tensor as Q6_K or Q8_0 (llama-quantize --output-tensor-type)",
        ) from None


def requantise(source: Path, target: Path, kind: str) -> None:
    """Write a model anew with every matrix in one number format, to measure what that format does.

    Args:
        source: A GGUF file; what it has lost already stays lost.
        target: Where.
        kind: ``F16``, ``Q8_0``, ``Q4_1`` or another that gguf-py can write. A matrix whose rows do not fill its blocks
            becomes F16.

    Raises:
        UsageError: an unknown format.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

    if kind not in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        raise UsageError(f"no number format called {kind} can be written", hint="F16, Q8_0, Q5_1, Q4_1, Q4_0")
    reader = open_gguf(source)
    block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    changed: dict[str, Stored | None] = {}
    for tensor in reader.tensors:
        if len(tensor.shape) >= 2 and tensor.tensor_type.name != kind:
            fits = int(tensor.shape[0]) % block == 0
            changed[tensor.name] = quantise(
                dequantise(Stored(tensor.data, tensor.tensor_type.name)), kind if fits else "F16"
            )
    file_type = int(LlamaFileType.ALL_F32 if kind == "F32" else LlamaFileType[f"MOSTLY_{kind}"])
    fields = {"general.file_type": file_type} if reader.get_field("general.file_type") else {}
    rewrite(reader, target, fields=fields, tensors=changed)


def _to_q6_k(rows: npt.NDArray[np.float32]) -> Array:
    """Q6_K, which gguf-py only reads: 256 numbers of 6 bits, 16 scales of 8 bits, one of 16.

    Nearest numbers, not llama.cpp's search for the best scales: it is for rows whose precision does not matter.
    """
    blocks = rows.astype(np.float32).reshape(-1, _SCALES_OF_Q6_K, 16)
    peaks = np.abs(blocks).max(axis=2) / 31
    d = (peaks.max(axis=1, keepdims=True) / 127).astype(np.float16)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.nan_to_num(np.ceil(peaks / d.astype(np.float32))).clip(0, 127).astype(np.int8)
        step = d.astype(np.float32) * scales
        q = np.nan_to_num(np.rint(blocks / step[:, :, None])).clip(-32, 31).astype(np.int8)
    # Two halves of 128; in each, four quarters of 32 numbers share bytes: low 4 bits in ql, high 2 bits in qh.
    quarters = (q + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = quarters & 0x0F, quarters >> 4
    ql = np.concatenate([low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)], axis=2)
    qh = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    count = len(blocks)
    parts = [ql.reshape(count, 128), qh.reshape(count, 64), scales.view(np.uint8), d.view(np.uint8).reshape(count, 2)]
    return np.concatenate(parts, axis=1).reshape(rows.shape[0], -1)
