"""The command in this process, and a workspace for it."""

import shutil
from dataclasses import dataclass

import pytest

from clikit import fill, recipe_for, save
from llmpatch._cli.main import main
from llmpatch.bases import load_base
from tinymodels import make_tiny


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd):
    def run(*arguments) -> Result:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny"), make_tiny(max_position_embeddings=4096))


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("other"), make_tiny(seed=1, max_position_embeddings=4096))


@pytest.fixture(scope="session")
def recipe_text(model_folder):
    return recipe_for(model_folder)


@pytest.fixture(scope="session")
def built(tmp_path_factory, recipe_text):
    """A workspace with a patch that the command has built."""
    folder = fill(tmp_path_factory.mktemp("built"), recipe_text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["build", "recipes/demo.yaml", "-o", "patches/tiny/refusal", "--run", "runs/tiny"]) == 0
    return folder


@pytest.fixture
def workspace(built, tmp_path, monkeypatch):
    """A copy of it to work in, as the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(built, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(model_folder):
    return load_base(str(model_folder))
