"""A patch in the forms that engines run: written, loaded again, and compared with the run-time prefix before it appears.

    found = export(base, [load_patch("patches/smollm2/refusal")], "checkpoint", Path("out"))
    found.checks["forward of the loaded folder"].max_delta_logit    # 0.0

Engines, commands and figures: docs/engines.md. Knows formats; knows nothing about servers.
"""

from llmpatch.exporting.checking import Measured
from llmpatch.exporting.exports import EXPORT_FILE, TARGETS, Description, export, read_description
from llmpatch.exporting.gguf_file import requantise
from llmpatch.exporting.job import Made

__all__ = [
    "EXPORT_FILE",
    "TARGETS",
    "Description",
    "Made",
    "Measured",
    "export",
    "read_description",
    "requantise",
]
