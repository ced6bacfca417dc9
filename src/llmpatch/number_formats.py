"""What a base's weights are kept in: a GGUF's tensor type, the 4 bits of bitsandbytes, whole numbers.

file_type(Path("model.gguf"))     # "gguf:Q4_1:b179c9523d0e6a0f"
kept_in(model)                    # "bitsandbytes:nf4", or "none"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmpatch.files import sha256_file


def keep_gradients(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights for AVX512-BF16 the first time a model is asked something on a CPU.

    What is packed computes in bfloat16 and has no gradient at all: a prefix that is validated between its steps would go on
    with what reaches it past those layers, without an error.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def kept_in(model: Any) -> str:
    """What transformers keeps a quantised checkpoint's weights in, as ``bitsandbytes:nf4`` or ``gptq:4``; else ``none``."""
    section = getattr(model.config, "quantization_config", None)
    if section is None:
        return "none"
    said = section if isinstance(section, dict) else section.to_dict()
    method = said.get("quant_method")
    detail = said.get("bits")
    if said.get("load_in_4bit"):
        detail = said.get("bnb_4bit_quant_type")
    elif said.get("load_in_8bit"):
        detail = "int8"
    return ":".join(str(getattr(part, "value", part)) for part in (method or "quantised", detail) if part)


def file_type(path: Path) -> str:
    """The GGUF's dominant tensor type, as ``Q4_1``, with the digest of the file for its exact bytes."""
    from collections import Counter

    import gguf

    sizes: Counter[str] = Counter()
    for tensor in gguf.GGUFReader(str(path)).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    return f"gguf:{sizes.most_common(1)[0][0]}:{sha256_file(path)[:16]}"
