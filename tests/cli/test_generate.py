import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clikit import write_rows
from composekit import make_patch, save
from llmpatch._cli.answer_file import Settings, answer_file, read_rows
from llmpatch.artifact import read_patch
from llmpatch.errors import UsageError
from llmpatch.patched import PatchedModel
from llmpatch.progress import Silent
from llmpatch.recipe import DecodingSection
from llmpatch.references.shards import Shard

ROWS = [{"prompt": "word " * (7 - i), "id": i, "own": {"x": [1, None]}} for i in range(7)]


@pytest.fixture
def prompts(tmp_path):
    return write_rows(tmp_path / "in.jsonl", ROWS)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_keep_their_order_and_get_completions(cli, workspace, prompts, model_folder, tiny_base):
    out = workspace / "sub/out.jsonl"
    found = cli("generate", "--base", model_folder, "--prompts", prompts, "--out", out, "--samples", 2,
                "--max-new-tokens", 6)  # fmt: skip
    assert (found.code, found.out, found.err) == (0, "", "")
    written = rows_of(out)
    assert [{k: v for k, v in row.items() if k != "completions"} for row in written] == ROWS
    assert all(len(row["completions"]) == 2 and row["completions"][0] == row["completions"][1] for row in written)
    assert [p.name for p in out.parent.iterdir()] == ["out.jsonl"]


def test_patches_go_one_after_another_in_the_order_given(cli, workspace, prompts, model_folder, tiny_base, built):
    import numpy as np

    first, second = read_patch(built / "patches/tiny/refusal"), make_patch(tiny_base, "acme/second", seed=5)
    save(workspace / "second", second)
    out = workspace / "out.jsonl"
    common = ("generate", "--base", model_folder, "--prompts", prompts, "--max-new-tokens", 6, "--out", out)
    found = cli(*common, "--patch", "tiny/refusal", "--patch", workspace / "second")
    assert found.code == 0
    assert found.err.startswith("warning: several patches")
    model = PatchedModel(tiny_base, np.concatenate([first.embeddings, second.embeddings]), "both")
    assert [row["completions"] for row in rows_of(out)] == model.generate([r["prompt"] for r in ROWS], max_new_tokens=6)
    assert cli(*common, "--patch", "tiny/refusal").err == ""
    one = PatchedModel(tiny_base, first.embeddings, "one").generate([r["prompt"] for r in ROWS], max_new_tokens=6)
    assert [row["completions"] for row in rows_of(out)] == one


def test_a_patch_for_another_base_is_refused_before_anything_is_written(cli, workspace, prompts, other_folder):
    found = cli("generate", "--base", other_folder, "--patch", "tiny/refusal", "--prompts", prompts, "--out", "o.jsonl")
    assert found.code == 5
    assert "embedding table" in found.err
    assert not (workspace / "o.jsonl").exists()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_interrupted_run_continues_and_gives_the_same_bytes(tmp_path, prompts, tiny_base, monkeypatch, temperature):
    settings = Settings(DecodingSection(max_new_tokens=6, temperature=temperature, seed=3), samples=20)
    options = {"prefix": None, "settings": settings, "progress": Silent()}
    answer_file(tiny_base, read_rows(prompts), tmp_path / "whole.jsonl", **options)

    append, count, out = Shard.append, [], tmp_path / "out.jsonl"

    def interrupted(self, index, answer):
        if len(count) == 45:
            raise KeyboardInterrupt
        count.append(index)
        append(self, index, answer)

    monkeypatch.setattr(Shard, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny_base, read_rows(prompts), out, **options)
    assert not out.exists()
    (partial,) = (tmp_path / "out.jsonl.partial").iterdir()
    with partial.open("ab") as file:
        file.write(b'{"index": 3, "prom')  # what a kill leaves

    more = []

    def counted(self, index, answer):
        more.append(index)
        append(self, index, answer)

    monkeypatch.setattr(Shard, "append", counted)
    answer_file(tiny_base, read_rows(prompts), out, **options)
    assert len(more) == 7 * 20 - 45
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_killed_command_keeps_its_answers(tmp_path, model_folder):
    prompts = write_rows(tmp_path / "in.jsonl", [{"prompt": f"{i} " * 20} for i in range(3000)])
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "llmpatch", "generate", "--base", str(model_folder), "--prompts", str(prompts),
               "--out", str(out), "--max-new-tokens", "48"]  # fmt: skip
    # A shell that runs the tests in the background ignores Ctrl-C for all its children; this child must not.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    folder, deadline = tmp_path / "out.jsonl.partial", time.monotonic() + 120

    def kept():
        return [line for path in folder.glob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]

    while len(kept()) < 2 and time.monotonic() < deadline and process.poll() is None:  # a header and an answer
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in err
    assert not out.exists()
    assert len(kept()) >= 2


def test_other_options_never_reuse_answers(tmp_path, prompts, tiny_base, monkeypatch):
    rows, seen = read_rows(prompts), []
    append = Shard.append

    def stop(self, index, answer):
        seen.append(self.key)
        append(self, index, answer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Shard, "append", stop)
    for changes in ({}, {"raw": True}, {"system": "Be brief."}, {"samples": 2}):
        with pytest.raises(KeyboardInterrupt):
            answer_file(
                tiny_base, rows, tmp_path / "o.jsonl", prefix=None,
                settings=Settings(DecodingSection(max_new_tokens=4), **changes), progress=Silent(),
            )  # fmt: skip
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no prompts"),
        ('{"text": "x"}\n', "row 1 has no text `prompt`"),
        ('{"prompt": "x"}\n{"prompt": 3}\n', "row 2 has no text `prompt`"),
        ('{"prompt": "x"}\n[1]\n', ":2: not a JSON object"),
        ('{"prompt": "\\ud800"}\n', "row 1 holds a lone surrogate"),
        ('{"prompt": "x", "y": NaN}\n', "row 1 holds"),
    ],
)
def test_bad_prompt_files_are_one_clear_line(cli, tmp_path, content, said):
    path = tmp_path / "in.jsonl"
    path.write_text(content, encoding="utf-8")
    found = cli("generate", "--base", "smollm2", "--prompts", path, "--out", tmp_path / "out.jsonl")
    assert found.code == 1
    assert said in found.err.splitlines()[0]


def test_a_prompt_that_does_not_fit_is_named_by_its_row(tmp_path, tiny_base):
    rows = [{"prompt": "x"}, {"prompt": "x" * 5000}]
    settings = Settings(DecodingSection(max_new_tokens=6))
    with pytest.raises(UsageError, match="row 2 has 50"):
        answer_file(tiny_base, rows, tmp_path / "o.jsonl", prefix=None, settings=settings, progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_would_destroy_something_are_refused(cli, tmp_path, prompts, model_folder):
    common = ("generate", "--base", model_folder, "--prompts", prompts)
    assert "also an input" in cli(*common, "--out", prompts).err
    assert "is a folder" in cli(*common, "--out", tmp_path).err
    assert "--system has no place" in cli(*common, "--out", tmp_path / "o", "--raw", "--system", "x").err
    assert "which is an input" in cli(*common, "--out", Path(model_folder) / "config.json").err
    assert rows_of(prompts) == ROWS
