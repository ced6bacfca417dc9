"""Shared fixtures: a tiny random Llama, and the bundled real base."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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
