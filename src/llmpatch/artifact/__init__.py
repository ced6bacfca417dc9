"""The patch as a folder of files: write it, read it back with every byte checked, bind it to its base.

    patch = load_patch("patches/smollm2/refusal")
    patch.check_base(base)          # warnings, or WrongBaseError

Specification: docs/format/patch-v1.md. Needs numpy and pydantic; torch only to apply a patch.
"""

from llmpatch.artifact.bundle import Patch, load_patch, parse_patch, read_patch
from llmpatch.artifact.card import adapter_config, model_card
from llmpatch.artifact.manifest import Manifest, parse_manifest, release_time
from llmpatch.artifact.writing import check_target, describe_base, input_norm_p999, render_patch, write_patch

__all__ = [
    "Manifest",
    "Patch",
    "adapter_config",
    "check_target",
    "describe_base",
    "input_norm_p999",
    "load_patch",
    "model_card",
    "parse_manifest",
    "parse_patch",
    "read_patch",
    "release_time",
    "render_patch",
    "write_patch",
]
