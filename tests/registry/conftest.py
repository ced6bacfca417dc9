"""A customer's machine, and a registry with one patch."""

import pytest

from registrykit import found, release


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMPATCH_STORE", str(tmp_path / "store"))
    return tmp_path / "home"


@pytest.fixture
def made(tmp_path):
    return tmp_path / "made"


@pytest.fixture
def site(tmp_path, made):
    folder = found(tmp_path / "site", vendors=("acme", "evilco"))
    release(folder, made)
    return folder
