"""The patch as five files, in a folder or a ``.lpatch``: write, read with every byte checked, bind to its base.

    patch = load_patch("patches/smollm2/refusal")
    patch.check_base(base)          # warnings, or WrongBaseError

Specification: docs/format/patch-v1.md. Needs numpy and pydantic; torch only to apply a patch.
"""

from llmpatch.artifact.archive import pack_members, unpack_members
from llmpatch.artifact.bundle import Patch, find_patch, load_patch, parse_patch, prefix_of, read_patch
from llmpatch.artifact.card import adapter_config, model_card
from llmpatch.artifact.layout import ARCHIVE_SUFFIX, SIGNATURE_FILE, Contents
from llmpatch.artifact.manifest import LONG_TEXT, Manifest, parse_manifest, release_time
from llmpatch.artifact.reading import read_contents
from llmpatch.artifact.writing import (
    check_target,
    describe_base,
    input_norm_p999,
    render_patch,
    write_members,
    write_patch,
)

__all__ = [
    "ARCHIVE_SUFFIX",
    "LONG_TEXT",
    "SIGNATURE_FILE",
    "Contents",
    "Manifest",
    "Patch",
    "adapter_config",
    "check_target",
    "describe_base",
    "find_patch",
    "input_norm_p999",
    "load_patch",
    "model_card",
    "pack_members",
    "parse_manifest",
    "parse_patch",
    "prefix_of",
    "read_contents",
    "read_patch",
    "release_time",
    "render_patch",
    "unpack_members",
    "write_members",
    "write_patch",
]
