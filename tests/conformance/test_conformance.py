"""Every case through the command line, in a copy of its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llmpatch._cli.main import main

CASES = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_a_case_ends_as_it_must(tmp_path, monkeypatch, capfd, folder):
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    work = shutil.copytree(folder, tmp_path / "work", symlinks=True)
    monkeypatch.chdir(work)
    monkeypatch.delenv("LLMPATCH_HOME", raising=False)
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    assert main(case["run"]) == case["exit"]
    out, err = capfd.readouterr()
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
    if case["exit"] == 0:
        assert "tiny/refusal" in out
        assert err == ""
        return
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert case["error"] in error
    assert hint.startswith("hint: ")
    assert err.replace("\n", "").isprintable()


def test_the_names_say_what_must_fail():
    assert len(CASES) >= 80
    for folder in CASES:
        case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        assert set(case) - {"error"} == {"about", "run", "exit"}
        assert folder.name.endswith("_fail") == (case["exit"] != 0)
