"""Shared fixtures: a tiny random Llama, and the bundled real base."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["LLMPATCH_STORE"] = os.path.join(tempfile.gettempdir(), f"llmpatch-no-store-{os.getpid()}")  # noqa: PTH118
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LLMPATCH_DEVICE"] = "cpu"  # what is compared to the bit is compared on a CPU
os.environ.pop("LLMPATCH_DTYPE", None)  # of whoever runs the tests
os.environ.pop("LLMPATCH_DATA", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded, here and in what tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from llmpatch.bases import Base
from tinymodels import make_tiny


@pytest.fixture(scope="session")
def tiny() -> Base:
    return make_tiny()


@pytest.fixture(scope="session")
def smollm2() -> Base:
    from llmpatch.bases import load_base

    return load_base("smollm2")
