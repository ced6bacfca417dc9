"""Where and when something was measured: versions and the kind of machine, nothing that names it.

environment()["torch"]
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmpatch.bases import Base


def environment(base: Base | None = None) -> dict[str, Any]:
    """Versions of Python and the two libraries that decide numbers, the platform, CPUs and threads.

    Of a ``base`` whose weights are not in float32, what they are in.
    """
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        **({"dtype": base.narrow_dtype} if base and base.narrow_dtype else {}),
    }


def created() -> str:
    """Now, in UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
