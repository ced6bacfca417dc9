"""Prompt sets: rows of a user's own file, with the names that other programs write."""

from __future__ import annotations

import json

import pytest

from llmpatch.errors import UsageError
from llmpatch.prompts import load_prompts


def load(folder, *rows):
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts(path)


def test_numbers_are_names_too_and_zero_is_one(tmp_path):
    found = load(tmp_path, {"prompt": "a", "cluster": 0, "id": 0}, {"prompt": "b", "cluster": 0, "id": "x"})
    assert [(p.id, p.cluster) for p in found] == [("0", "0"), ("x", "0")]


def test_what_is_absent_is_named_after_its_row_and_its_text(tmp_path):
    """pandas writes NaN where a cell is empty: rows without a cluster are not one cluster."""
    rows = [
        {"prompt": text, "cluster": none, "id": none}
        for text, none in zip("abc", (None, float("nan"), ""), strict=True)
    ]
    found = load(tmp_path, *rows)
    assert [p.id for p in found] == ["mine:1", "mine:2", "mine:3"]
    assert len({p.cluster for p in found}) == 3


@pytest.mark.parametrize("key", ["id", "cluster"])
@pytest.mark.parametrize("value", ["\ud800", [1], {"a": 1}, True, float("inf")])
def test_what_is_no_name_is_refused_with_its_row(tmp_path, key, value):
    with pytest.raises(UsageError, match=rf"mine\.jsonl: row 2 has `{key}`"):
        load(tmp_path, {"prompt": "a"}, {"prompt": "b", key: value})
