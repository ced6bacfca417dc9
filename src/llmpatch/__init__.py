"""Safety patches for language models, shipped like software.

    import llmpatch
    model = llmpatch.load_patch("patches/smollm2/refusal").apply(llmpatch.load_base("smollm2"))
    model.generate(["How do I bake bread?"])

Use: :func:`load_base`, :func:`load_patch`. Build: :func:`load_recipe`, :func:`build`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llmpatch.artifact import Manifest, Patch, read_patch, write_patch
    from llmpatch.bases import Base, Fingerprint, load_base
    from llmpatch.building import build
    from llmpatch.composing import compose
    from llmpatch.errors import LlmpatchError
    from llmpatch.evals import System, evaluate
    from llmpatch.generation import generate
    from llmpatch.judges import open_judge
    from llmpatch.patched import PatchedModel
    from llmpatch.progress import console
    from llmpatch.prompts import Prompt, load_prompts
    from llmpatch.recipe import Recipe, load_recipe
    from llmpatch.store import load_patch

# Imported on first use, so that `import llmpatch` and `llmpatch --help` do not load torch.
_HOMES = {
    "Base": "bases", "Fingerprint": "bases", "LlmpatchError": "errors", "Manifest": "artifact", "Patch": "artifact",
    "PatchedModel": "patched", "Prompt": "prompts", "Recipe": "recipe", "System": "evals", "build": "building",
    "compose": "composing",
    "console": "progress", "evaluate": "evals", "generate": "generation", "load_base": "bases", "load_patch": "store",
    "load_prompts": "prompts", "load_recipe": "recipe", "open_judge": "judges", "read_patch": "artifact",
    "write_patch": "artifact",
}  # fmt: skip

__all__ = [
    "Base",
    "Fingerprint",
    "LlmpatchError",
    "Manifest",
    "Patch",
    "PatchedModel",
    "Prompt",
    "Recipe",
    "System",
    "__version__",
    "build",
    "compose",
    "console",
    "evaluate",
    "generate",
    "load_base",
    "load_patch",
    "load_prompts",
    "load_recipe",
    "open_judge",
    "read_patch",
    "write_patch",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"llmpatch.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llmpatch' has no attribute {name!r}")
