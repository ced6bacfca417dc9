"""Recipes: closed, typed, overridable; the shipped ones are valid and split by cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.building import plan
from llmpatch.errors import LlmpatchError, RecipeError, UsageError
from llmpatch.learning import read_prompts
from llmpatch.recipe import load_recipe, override, parse_recipe

RECIPES = sorted(Path("recipes").glob("*.yaml"))
MINIMAL = {
    "name": "acme/refusal", "version": "1.0.0", "summary": "s", "reference": {"kind": "recorded", "path": "r.jsonl"},
    "prompts": {"harmful": {"train": ["a.jsonl"], "validation": ["b.jsonl"]}},
}  # fmt: skip


def with_key(dotted, value):
    mapping = yaml.safe_load(yaml.safe_dump(MINIMAL))
    section = mapping
    *parents, leaf = dotted.split(".")
    for parent in parents:
        section = section.setdefault(parent, {})
    section[leaf] = value
    return mapping


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_valid_and_split_by_cluster(path):
    recipe = load_recipe(path)
    prompts = read_prompts(recipe)
    test = {
        p["cluster"]
        for f in Path("data/prompts").glob("*_test.jsonl")
        for p in map(json.loads, f.open(encoding="utf-8"))
    }
    assert not test & {p.cluster for p in [*prompts.train, *prompts.validation]}
    assert plan(recipe)["train"]["harmful"] > 100


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("colour", "red", "colour: Extra inputs"),
        ("training.sft.stepz", 3, "training.sft"),
        ("prefix.tokens", "fifty", "prefix.tokens"),
        ("prefix.tokens", 0, "prefix.tokens"),
        ("prefix.tokens", 5000, "prefix.tokens"),
        ("prompts.harmful.train", [], "prompts.harmful.train"),
        ("prompts", {}, "prompts.harmful"),
        ("reference.kind", "oracle", "reference.kind"),
        ("version", "1.0", "version"),
        ("version", "01.2.3", "version"),
        ("version", "1.0.20260731120000", "version"),
        ("name", "No Slash", "name"),
        ("training.dpo.reference", "nobody", "training.dpo.reference"),
        ("training.kl_weight", float("nan"), "training.kl_weight"),
        ("training.clip", float("inf"), "training.clip"),
        ("reference.timeout_seconds", float("inf"), "reference.timeout_seconds"),
        ("seed", -1, "seed"),
        ("seed", 1 << 32, "seed"),
    ],
)
def test_what_is_wrong_is_named(key, value, message):
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")) as caught:
        parse_recipe(with_key(key, value))
    assert caught.value.exit_code == 1
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "- a\n- b", "a: [", "\x00", "a: .inf", "!!python/object/apply:os.system [id]", "a: &a [*a]"]
)
def test_what_is_not_a_recipe(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError):
        load_recipe(path)


def test_a_missing_recipe():
    with pytest.raises(UsageError, match="no such file"):
        load_recipe(Path("nowhere.yaml"))


def test_overrides_change_single_keys_and_are_checked():
    recipe = parse_recipe(MINIMAL)
    changed = override(recipe, ["training.sft.steps=7", "training.mix.borderline=0.5", "prefix.init=random"])
    assert (changed.training.sft.steps, changed.training.mix.borderline, changed.prefix.init) == (7, 0.5, "random")
    assert changed.digest() != recipe.digest()
    assert override(recipe, []).digest() == recipe.digest()
    # PyYAML lets a ValueError, a KeyError and an AttributeError out of the last three.
    wrongs = ["training.sft.steps", "training.sft.steps=many", "nothing.here=1", "name.x=1", "training={a: 1, a: 2}"]
    wrongs += ["version=2024-13-45", "summary=!!bool y", "summary=!!timestamp x"]
    for wrong in wrongs:
        with pytest.raises(RecipeError):
            override(recipe, [wrong])


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_recipe_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_bytes(data)
    with pytest.raises(LlmpatchError):
        load_recipe(path)


def test_a_small_file_that_means_a_huge_one_is_refused(tmp_path):
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
    path = tmp_path / "r.yaml"
    path.write_text("\n".join(layers))
    with pytest.raises(RecipeError, match="aliases"):
        load_recipe(path)


def test_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: a/b\nname: a/c\n")
    with pytest.raises(RecipeError, match="there twice"):
        load_recipe(path)
