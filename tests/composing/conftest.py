"""A base with room for the suites' texts, and a folder with their data, small."""

from __future__ import annotations

import pytest

from composekit import write_data
from tinymodels import make_tiny


@pytest.fixture(scope="module")
def wide():
    return make_tiny(max_position_embeddings=2048)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path
