"""``llmpatch export`` as a user runs it: figures on the screen and as JSON, one line and a code for what is wrong."""

import json

import pytest

from clikit import save
from exportkit import common_tiny, make_patch
from llmpatch._cli.export import TARGETS
from llmpatch._cli.main import main
from llmpatch.bases import load_base
from llmpatch.exporting import TARGETS as KNOWN


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A saved base and a patch for it, as paths."""
    folder = tmp_path_factory.mktemp("given")
    save(folder / "model", common_tiny())
    make_patch(load_base(str(folder / "model")), folder / "patch")
    return str(folder / "patch"), str(folder / "model")


def run(given, out, *more):
    patch, base = given
    return main(["export", patch, "--base", base, "-o", str(out), *more])


def test_the_command_knows_every_target():
    assert tuple(KNOWN) == TARGETS


def test_figures_are_shown_and_kept(given, tmp_path, capsys):
    assert run(given, tmp_path / "out", "--to", "vllm-embeds") == 0
    shown = capsys.readouterr()
    assert "max |d logit|" in shown.out
    assert "warning: vLLM takes embeddings" in shown.err
    kept = json.loads((tmp_path / "out/export.json").read_text())
    assert set(kept["files"]) == {"prompt_embeds.safetensors", "patched_prompt.py"}
    assert run(given, tmp_path / "other", "--to", "vllm-embeds", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["checks"] == kept["checks"]


@pytest.mark.parametrize(
    ("more", "code", "part"),
    [
        (["--to", "onnx"], 1, "onnx"),
        (["--to", "gguf"], 1, "not a GGUF file"),
        (["--to", "peft", "--dtype", "float16"], 1, "does not store float16"),
    ],
)
def test_what_is_wrong_is_one_line(given, tmp_path, capsys, more, code, part):
    assert run(given, tmp_path / "out", *more) == code
    error = capsys.readouterr().err
    assert error.count("error:") == 1
    assert part in error
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_looked_at_first(given, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main(["export", "nothing", "--base", "nothing", "--to", "peft", "-o", str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_patch_for_another_base(given, tmp_path, capsys):
    other = save(tmp_path / "other", common_tiny(seed=7))
    assert main(["export", given[0], "--base", str(other), "--to", "peft", "-o", str(tmp_path / "out")]) == 5
    assert "embedding table" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
