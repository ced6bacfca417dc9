"""The harness's data sets are cached below a folder of the test run."""

import os
import tempfile

os.environ.setdefault("HF_DATASETS_CACHE", os.path.join(tempfile.gettempdir(), f"llmpatch-datasets-{os.getpid()}"))  # noqa: PTH118
