"""Prompts dealt into chunks: each once, in order, an even share of every kind, whatever the files look like."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpatch import chunks
from llmpatch.chunks import deal
from llmpatch.errors import RecipeError, UsageError
from llmpatch.files import write_jsonl
from llmpatch.learning import read_prompts
from test_building import make_recipe


def write(path, count, name):
    write_jsonl(path, [{"id": f"{name}{i}", "prompt": f"{name} {i}"} for i in range(count)])


def recipe_of(folder, harmful, everyday=(), **limits):
    for i, count in enumerate(harmful):
        write(folder / f"h{i}.jsonl", count, f"h{i}-")
    for i, count in enumerate(everyday):
        write(folder / f"e{i}.jsonl", count, f"e{i}-")
    write(folder / "validation.jsonl", 1, "v")

    def section(letter, counts):
        train = [str(folder / f"{letter}{i}.jsonl") for i in range(len(counts))]
        return {"train": train, "validation": [str(folder / "validation.jsonl")]} | limits

    prompts = {"harmful": section("h", harmful)} | ({"everyday": section("e", everyday)} if everyday else {})
    return make_recipe(prompts=prompts)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    harmful=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    everyday=st.lists(st.integers(1, 30), max_size=2),
    size=st.integers(1, 40), stride=st.integers(1, 12), limit=st.none() | st.integers(1, 60),
)  # fmt: skip
def test_every_prompt_is_in_one_chunk(tmp_path_factory, monkeypatch, harmful, everyday, size, stride, limit):
    monkeypatch.setattr(chunks, "STRIDE", stride)
    recipe = recipe_of(tmp_path_factory.mktemp("prompts"), harmful, everyday, limit=limit)
    dealt = deal(recipe, size)
    found = [dealt.read(number) for number in range(len(dealt))]
    for letter, kind, counts in (("h", "harmful", harmful), ("e", "everyday", everyday)):
        wanted = [f"{letter}{i}-{j}" for i, count in enumerate(counts) for j in range(count)][:limit]
        assert [p.id for chunk in found for p in chunk if p.kind == kind] == wanted
        shares = [sum(p.kind == kind for p in chunk) for chunk in found]
        assert max(shares) - min(shares) <= 1
        assert dealt.counts.get(kind, 0) == len(wanted)
    assert max(map(len, found)) <= size + 2


def test_blank_lines_and_own_kinds_do_not_move_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "STRIDE", 2)
    recipe = recipe_of(tmp_path, [6])
    path = tmp_path / "h0.jsonl"
    lines = [json.dumps({"prompt": f"é {i}", "kind": "everyday"}, ensure_ascii=False) for i in range(5)]
    path.write_text("\n\n" + "\n  \n".join(lines), encoding="utf-8")
    found = [p for n in range(2) for p in deal(recipe, 3).read(n)]
    assert [(p.id, p.text, p.kind) for p in found] == [(f"h0:{i + 1}", f"é {i}", "harmful") for i in range(5)]


def test_a_bad_row_is_named_before_anything_is_asked(tmp_path):
    recipe = recipe_of(tmp_path, [3])
    path = tmp_path / "h0.jsonl"
    path.write_text(path.read_text() + '\n{"prompt": 7}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"h0\.jsonl: row 4 has no text"):
        deal(recipe)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"h0\.jsonl:1: not a JSON object"):
        deal(recipe)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has no prompts"):
        deal(recipe)
    path.unlink()
    with pytest.raises(UsageError, match="no such file"):
        deal(recipe)


def test_a_cluster_on_both_sides_is_refused(tmp_path):
    recipe = recipe_of(tmp_path, [2])
    write_jsonl(tmp_path / "validation.jsonl", [{"prompt": "other", "cluster": "c"}])
    write_jsonl(tmp_path / "h0.jsonl", [{"prompt": "a"}, {"prompt": "b", "cluster": "c"}])
    with pytest.raises(RecipeError, match=r"h0\.jsonl:2: cluster c is among the validation prompts"):
        deal(recipe)


def test_kinds_may_number_their_prompts_alike_as_in_a_build(tmp_path):
    for name in ("harmful", "everyday"):
        (tmp_path / name).mkdir()
        rows = [{"prompt": f"{name} {i}", "cluster": f"{name}{i}"} for i in range(4)]
        write_jsonl(tmp_path / name / "train.jsonl", rows)
        write_jsonl(tmp_path / name / "validation.jsonl", [{"prompt": f"{name} apart"}])
    kinds = ("harmful", "everyday")
    sets = {
        k: {"train": [str(tmp_path / k / "train.jsonl")], "validation": [str(tmp_path / k / "validation.jsonl")]}
        for k in kinds
    }
    recipe = make_recipe(prompts=sets)
    assert [p.text for p in deal(recipe).read(0)] == [p.text for p in read_prompts(recipe).train]


def test_the_limit_of_validation_prompts_is_over_all_their_files_as_in_a_build(tmp_path):
    write(tmp_path / "train.jsonl", 4, "h")
    write(tmp_path / "v0.jsonl", 3, "v")
    rows = [{"id": f"w{i}", "prompt": "both", "cluster": "h1"} for i in range(2)]
    write_jsonl(tmp_path / "v1.jsonl", rows)
    rows = [{"id": f"h{i}", "prompt": f"h {i}", "cluster": f"h{i}"} for i in range(4)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    validation = [str(tmp_path / f"v{i}.jsonl") for i in range(2)]
    section = {"train": [str(tmp_path / "train.jsonl")], "validation": validation}
    recipe = make_recipe(prompts={"harmful": section | {"validation_limit": 3}})
    assert deal(recipe).counts == {"harmful": len(read_prompts(recipe).train)}
    with pytest.raises(RecipeError, match="among the validation prompts"):
        deal(make_recipe(prompts={"harmful": section}))


def test_what_changed_since_is_noticed(tmp_path):
    recipe = recipe_of(tmp_path, [4])
    dealt = deal(recipe, 2)
    write(tmp_path / "h0.jsonl", 3, "h0-")
    with pytest.raises(UsageError, match="has become shorter"):
        dealt.read(1)
    write_jsonl(tmp_path / "h0.jsonl", [{"id": "same", "prompt": str(i)} for i in range(4)])
    with pytest.raises(UsageError, match="'same' appears twice"):
        deal(recipe, 2).read(0)
