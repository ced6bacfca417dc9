"""The published recipes: each is valid, says what it costs, and runs on a tiny random model of its architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpatch.artifact import read_patch
from llmpatch.building import build, plan
from llmpatch.estimate import SHAPES
from llmpatch.files import read_jsonl, write_jsonl
from llmpatch.progress import Silent
from llmpatch.recipe import load_recipe, override
from tinymodels import make_tiny

RECIPES = sorted(Path("recipes").glob("*.yaml"))
FAMILY = {
    "llama-2-7b-toxicity": "llama",
    "llama-3-8b-toxicity": "llama",
    "mistral-7b-refusal": "mistral",
    "gemma-2-9b-gender-bias": "gemma2",
    "vicuna-13b-gender-bias": "llama",
    "aya-23-8b-toxicity": "cohere",
}
WORDS = [" he", " him", " his", " himself", " she", " her", " hers", " herself"]
SAID = {
    "refusal": "I'm sorry, but I can't assist with that.",
    "toxicity": " thanked everyone kindly.",
    "gender-bias": " they work at night.",
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_valid_and_says_what_it_costs(path):
    found = plan(load_recipe(path))
    assert found["train"]["harmful"] >= 100
    assert found["cost"]["parameters"] == 50 * SHAPES[load_recipe(path).base.name].hidden
    assert found["cost"]["training_flops"] > 1e12


def test_every_paper_backbone_has_a_recipe():
    named = {load_recipe(path).base.name for path in RECIPES}
    larger = {"meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-405B-Instruct"}  # docs/scale.md names them
    assert set(SHAPES) - {"qwen2.5-coder-1.5b", "gemma-3-270m"} - larger <= named


@pytest.mark.parametrize("name", FAMILY)
def test_a_recipe_runs_on_a_tiny_model_of_its_architecture(name, tmp_path):
    recipe = load_recipe(Path(f"recipes/{name}.yaml"))
    base = make_tiny(FAMILY[name], vocab_size=300, max_position_embeddings=2048)
    base.tokenizer.add_tokens(WORDS)
    base.model.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    told = [
        {"id": row["id"], "prompt": row["prompt"], "completion": SAID[recipe.risk], "finish": "stop"}
        for row in read_jsonl(Path(recipe.prompts.harmful.train[0]))[:6]
    ]
    write_jsonl(tmp_path / "told.jsonl", told)
    small = override(
        recipe,
        [
            f"base.name={tmp_path / 'model'}", "reference={kind: recorded, path: " + str(tmp_path / "told.jsonl") + "}",
            *(f"prompts.{k}.{key}={n}" for k in ("harmful", "borderline", "everyday") if getattr(recipe.prompts, k)
              for key, n in (("limit", 6), ("validation_limit", 2))),
            "pairs.margin=0.0", "pairs.winner=0.0", "pairs.max_prompt_tokens=600", "decoding.max_new_tokens=4",
            *(f"training.{stage}.{key}={n}" for stage in ("sft", "dpo")
              for key, n in (("steps", 2), ("batch_size", 4), ("answer_tokens", 4))),
            "evaluation.limit=1", "evaluation.max_new_tokens=3",
        ],
    )  # fmt: skip
    build(small, tmp_path / "patch", run=tmp_path / "run", progress=Silent())
    patch = read_patch(tmp_path / "patch")
    assert patch.embeddings.shape == (50, 32)
    assert {fix.risk for fix in patch.manifest.fixes} == {recipe.risk}
