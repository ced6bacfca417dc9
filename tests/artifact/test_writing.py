"""Writing: the same bytes for the same input; all or nothing; nothing of anyone else's is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmpatch.artifact import describe_base, input_norm_p999, load_patch, read_patch, release_time, write_patch
from llmpatch.errors import LlmpatchError, UsageError
from patchkit import EVIDENCE, P999, contents, embeddings, fields, save
from tinymodels import make_tiny

TESTS = Path(__file__).parent.parent


def write(folder: Path, *, overwrite: bool = False, version: str = "1.0.0", rows=None, evidence=None):
    rows = embeddings() if rows is None else rows
    evidence = EVIDENCE if evidence is None else evidence
    return write_patch(folder, fields(version=version), rows, evidence, base_p999=P999, overwrite=overwrite)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_input_gives_the_same_bytes(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert first.digest == second.digest
    assert write(tmp_path / "c", version="1.0.1").digest != first.digest


def test_source_date_epoch_sets_the_release_time(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert release_time() == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        release_time()


def test_a_patch_is_replaced_only_on_request_and_leaves_nothing_behind(tmp_path):
    write(tmp_path / "p")
    (tmp_path / "p" / "patch.sig").write_bytes(b"old signature")
    with pytest.raises(UsageError, match="already holds a patch"):
        write(tmp_path / "p", version="2.0.0")
    assert write(tmp_path / "p", version="2.0.0", overwrite=True).manifest.version == "2.0.0"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert not (tmp_path / "p" / "patch.sig").exists()


@pytest.mark.parametrize("kind", ["notes", "patch with notes", "file", "link"])
def test_what_is_not_a_patch_is_never_replaced(tmp_path, kind):
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        save(tmp_path / "real", contents())
        target.symlink_to(tmp_path / "real")
    else:
        save(target, contents() if kind == "patch with notes" else {})
        (target / "notes.txt").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError):
        write(target, overwrite=True)
    assert snapshot(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert write(tmp_path / "out").manifest.version == "1.0.0"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.full((2, 32), np.nan, np.float32), "NaN"),
        (np.full((2, 32), 1e39), "NaN or infinite"),
        (np.full((2, 32), 1e6, np.float32), "norm"),
        (np.zeros((2, 16), np.float32), "hidden_size"),
        (np.zeros((0, 32), np.float32), "shape"),
        (np.zeros((257, 32), np.float32), "shape"),
        (np.zeros(32, np.float32), "shape"),
        (np.zeros((2, 32), np.int64), "floats"),
        (np.zeros((256, 4096), np.float32), "bytes"),
    ],
)
def test_bad_virtual_tokens_are_refused_before_anything_is_written(tmp_path, rows, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        write(tmp_path / "p", rows=rows)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "evidence",
    [
        {"x": float("nan")},
        {"x": object()},
        {"x": "a" * (1 << 20)},
        {"x": np.float32(1)},
        {"x": "\ud800"},
        {"x": 1 << 80},
    ],
)
def test_bad_evidence_is_refused(tmp_path, evidence):
    with pytest.raises(UsageError, match=r"evidence\.json"):
        write(tmp_path / "p", evidence=evidence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["schema", "prefix", "files", "checksum", "colour", "name"])
def test_a_wrong_field_is_named(tmp_path, key):
    with pytest.raises(UsageError, match=key):
        write_patch(tmp_path / "p", fields(**{key: "No Such/Value"}), embeddings(), EVIDENCE, base_p999=P999)
    assert list(tmp_path.iterdir()) == []


def child(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code that has ``folder``, ``write_patch`` and the kit at hand."""
    head = (
        "import os, sys; from pathlib import Path; from patchkit import *; from llmpatch.artifact import write_patch\n"
        "from llmpatch.errors import LlmpatchError; folder = Path(sys.argv[1])\n"
        "again = lambda: write_patch(\n"
        "    folder, fields(version='2.0.0'), embeddings(), EVIDENCE, base_p999=P999, overwrite=True)\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", head + code, folder], capture_output=True, text=True, env=os.environ | paths, check=False
    )


def test_a_full_disk_leaves_the_old_patch_untouched(tmp_path):
    write(tmp_path / "p")
    before = snapshot(tmp_path)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
        "try: again()\n"
        "except LlmpatchError as error: print(error.exit_code, error.message, '|', error.hint)\n"
    )
    run = child(code, tmp_path / "p")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("2 cannot write")
    assert "File too large" in run.stdout
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(("step", "version"), [(0, "1.0.0"), (1, None), (2, "2.0.0")])
def test_a_crash_at_any_rename_loses_neither_version(tmp_path, step, version):
    """The process dies before the first, before the second and after the last rename."""
    old = write(tmp_path / "p")
    code = f"""
real, calls = os.replace, []
def replace(*args, **kwargs):
    if len(calls) == {step}: os._exit(9)
    calls.append(1); real(*args, **kwargs)
    if len(calls) == {step} == 2: os._exit(9)
os.replace = replace
import pathlib; pathlib.os.replace = replace
again()
"""
    assert child(code, tmp_path / "p").returncode == 9
    if version is not None:
        assert read_patch(tmp_path / "p").manifest.version == version
        return
    with pytest.raises(UsageError) as caught:
        load_patch(tmp_path / "p")
    kept = next(path for path in tmp_path.iterdir() if ".old-" in path.name)
    assert kept.name in caught.value.hint
    assert read_patch(kept).digest == old.digest
    assert write(tmp_path / "p", version="3.0.0").manifest.version == "3.0.0"


def test_a_failed_second_rename_brings_the_old_patch_back(tmp_path, monkeypatch):
    old = write(tmp_path / "p")
    real = os.replace

    def replace(source, target):
        if ".new-" in str(source):
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(LlmpatchError, match="Input/output error"):
        write(tmp_path / "p", version="2.0.0", overwrite=True)
    assert read_patch(tmp_path / "p").digest == old.digest
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_base_describes_itself(tiny, tmp_path):
    section = describe_base(tiny, revision="abc", tested_on=["gguf:Q4_1"])
    assert section["hidden_size"] == 32
    assert section["model_type"] == "llama"
    assert section["fingerprint"]["config"] == tiny.fingerprint.config
    patch = write_patch(tmp_path / "p", fields(base=section), embeddings(), EVIDENCE, base_p999=input_norm_p999(tiny))
    assert json.loads((patch.path / "patch.json").read_bytes())["base"] == json.loads(json.dumps(section))


def test_input_norms_are_taken_after_the_models_own_scaling():
    gemma = make_tiny("gemma3_text")
    table = gemma.model.get_input_embeddings().weight.norm(dim=1).numpy()
    assert input_norm_p999(gemma) == pytest.approx(float(np.quantile(table, 0.999)) * 32**0.5, rel=1e-3)
