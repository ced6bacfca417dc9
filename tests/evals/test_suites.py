"""Where the suites' prompts lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpatch.errors import UsageError
from llmpatch.evals.suites import data_folder, load_suite

DATA = Path(__file__).parent.parent.parent / "data"


def test_the_data_folder_is_here_or_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMPATCH_DATA", raising=False)
    assert data_folder() == Path("data")
    with pytest.raises(UsageError, match=r"no such file: data/prompts/harmbench_standard_test\.jsonl") as found:
        load_suite("refusal")
    assert "LLMPATCH_DATA" in found.value.hint
    monkeypatch.setenv("LLMPATCH_DATA", str(DATA))
    assert len(load_suite("refusal", limit=2)) == 7
    with pytest.raises(UsageError, match="no such file"):
        load_suite("refusal", data=tmp_path)  # what is asked for by name goes first
