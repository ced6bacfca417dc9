"""Recipes that train with others: one prefix for several risks, a stack distilled, published patches as neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from composekit import make_patch, save, write_data
from llmpatch.artifact import LONG_TEXT, load_patch
from llmpatch.bases import load_base
from llmpatch.building import build, method, plan, recipe_files
from llmpatch.company import open_company, validated_together
from llmpatch.errors import RecipeError, UsageError, WrongBaseError
from llmpatch.generation import generate
from llmpatch.joining import join_validations, parts_of
from llmpatch.progress import Silent
from llmpatch.prompts import load_prompts
from llmpatch.recipe import DecodingSection, parse_recipe
from llmpatch.training import Trainer
from test_building import make_recipe, project  # noqa: F401 - a fixture
from tinymodels import make_tiny

START = torch.zeros(4, 32)


@pytest.fixture
def published(project):  # noqa: F811
    """Two published patches for the project's base, as folders."""
    base = load_base("./model")
    return [
        str(save(project / "one", make_patch(base, "acme/one", "toxicity", seed=1))),
        str(save(project / "two", make_patch(base, "acme/two", "gender-bias", seed=2))),
    ]


def training(**more):
    sections = make_recipe().training.model_dump(mode="json", exclude_defaults=True)
    return sections | more


TOXICITY = {
    "risk": "toxicity", "name": "acme/calm",
    "prompts": {"harmful": {"form": "raw", "train": ["borderline_train.jsonl"], "validation": ["borderline_validation.jsonl"]}},
    "reference": {"kind": "self"}, "decoding": {"max_new_tokens": 6, "temperature": 1.0},
    "pairs": {"judge": "toxicity-head", "samples": 2, "margin": 0.0, "winner": 0.0, "max_prompt_tokens": 300},
    "evaluation": {"suite": "toxicity", "samples": 2, "max_new_tokens": 6, "limit": 2},
}  # fmt: skip


def write_recipe(path, **changes):
    mapping = make_recipe(**changes).model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return str(path)


def test_one_prefix_carries_two_risks_and_learns_a_stack(project, published, monkeypatch):  # noqa: F811
    write_data(project, 2)
    other = write_recipe(project / "calm.yaml", **TOXICITY)
    distil = {"patches": published, "chat": ["everyday_train.jsonl"], "raw": ["borderline_train.jsonl"], "limit": 3,
              "batch_size": 4, "answer_tokens": 5}  # fmt: skip
    recipe = make_recipe(joint=[other], training=training(distil=[distil]))
    seen = []
    update = Trainer._update

    def watched(self, state, stage):
        seen.append({self.data.examples[i].risk for i in self.indices(stage, state.step, offset=state.stage)})
        (kept,) = self.kept
        assert kept.rows.shape == (6, 32)
        assert {e.risk for e in kept.data.examples} <= {"everyday_train", "borderline_train"}
        return update(self, state, stage)

    monkeypatch.setattr(Trainer, "_update", watched)
    patch = build(recipe, project / "out", run=project / "run", progress=Silent())
    assert set().union(*seen) == {"refusal", "toxicity"}
    manifest = patch.manifest
    assert manifest.cumulative
    assert {fix.risk for fix in manifest.fixes} == {"refusal", "toxicity"}
    assert set(patch.evidence["risks"]) == {"refusal", "toxicity"}
    assert any("RTP challenging" in row["name"] for row in patch.evidence["results"])
    assert "with the pairs of 1 other risks; distilled from one + two, 4 a step" in manifest.build.method
    named = manifest.build.data_digests
    assert {"calm.yaml", "one/patch.json", "two/patch.json", "borderline_train.jsonl"} <= {
        path.removeprefix(f"{project}/") for path in named
    }
    for name in ("report.html", "report-toxicity.html"):
        assert "acme/tiny" in (project / "run" / name).read_text()
    rows = [row for row in patch.evidence["training"]["history"] if "validation" in row]
    found = rows[0]["validation"]
    assert found["score"] == pytest.approx((found["refusal/score"] + found["toxicity/score"]) / 2)
    assert all("kept" in row for row in patch.evidence["training"]["history"] if "loss" in row)


def test_a_prefix_learns_from_each_patch_by_itself_without_any_pair(project, published, monkeypatch):  # noqa: F811
    write_data(project, 2)
    other = write_recipe(project / "calm.yaml", **TOXICITY)
    distil = [
        {"patches": published[:1], "chat": ["everyday_train.jsonl"], "batch_size": 2, "answer_tokens": 5},
        {
            "patches": published[1:],
            "raw": ["borderline_train.jsonl"],
            "batch_size": 3,
            "answer_tokens": 5,
            "temperature": 1.0,
        },
        {"chat": ["borderline_train.jsonl"], "batch_size": 2, "answer_tokens": 5, "weight": 0.5, "answers": "start"},
    ]
    recipe = make_recipe(joint=[other], training=training(pairs_weight=0, distil=distil))
    monkeypatch.setattr("llmpatch.learning.sample_pairs", None)
    steps = []
    update = Trainer._update

    def watched(self, state, stage):
        assert [None if kept.rows is None else len(kept.rows) for kept in self.kept] == [3, 3, None]
        before = state.rows.clone()
        loss, parts = update(self, state, stage)
        # The mean KL from each teacher, weighed: nothing else is in the loss.
        there = self.arrangement(before, 0, 0)
        found = [self.kept_losses(before, there, [kept], state.step, 0) for kept in self.kept]
        assert loss == pytest.approx(sum(float(one) for one, _ in found), rel=1e-5)
        assert parts["kept"] == pytest.approx(sum(told["kept"] for _, told in found), rel=1e-5)
        steps.append(state.stage)
        return loss, parts

    monkeypatch.setattr(Trainer, "_update", watched)
    patch = build(recipe, project / "out", run=project / "run", progress=Silent())
    assert steps == [0] * recipe.training.sft.steps  # one stage: the steps of DPO are not run
    history = patch.evidence["training"]["history"]
    assert {row["stage"] for row in history} == {"Distillation"}
    assert patch.evidence["training"]["best"].startswith("Distillation step")
    assert patch.evidence["training"]["pairs"] == {}
    assert patch.manifest.cumulative
    assert set(patch.evidence["risks"]) == {"refusal", "toxicity"}
    said = patch.manifest.build.method
    assert "without pairs; distilled from one, 2 a step, weight 1; distilled from two, 3" in said
    assert "distilled from the base on answers of the start, 2 a step, weight 0.5" in said
    assert not (project / "run" / "pairs.jsonl").exists()


def test_neighbours_of_a_recipe_stand_around_its_rows(project, published, monkeypatch):  # noqa: F811
    near = {"patches": published, "probability": 1.0, "random": 1, "random_tokens": 2, "norm_budget": 2.0,
            "validate_together": True, "keep": {"raw": ["borderline_train.jsonl"], "answer_tokens": 4}}  # fmt: skip
    recipe = make_recipe(training=training(neighbours=near))
    base = load_base("./model")
    company = open_company(recipe, base, START, project / "run", Silent())
    assert [len(rows) for rows in company.neighbours.patches] == [3, 3]
    assert company.neighbours.largest > 0
    assert company.kept[0].rows is None
    assert company.kept[0].balance is None
    # The tiny tokenizer has no pronouns of one token.
    monkeypatch.setattr("llmpatch.evals.gender_bias.pronoun_ids", lambda _: {"he": 70, "she": 80})
    words = near | {"keep": near["keep"] | {"chat": ["borderline_train.jsonl"], "balance": {"weight": 3}}}
    part = open_company(make_recipe(training=training(neighbours=words)), base, START, project / "run", Silent()).kept[
        0
    ]
    assert part.balance.weight == 3
    assert part.balance.first
    assert part.balance.second
    assert 0 < len(part.balanced) < len(part.data.examples)  # the raw ones, not the same prompts as chats
    assert company.together.shape == (6, 32)
    calls = []

    def validate(rows):
        calls.append(len(rows))
        return {"harmful": 0.5, "score": 0.9 if len(rows) == 4 else 0.3}

    found = validated_together(recipe, company, validate)(company.together[:4])
    assert calls == [4, 10]
    assert (found["score"], found["together_score"], found["harmful"]) == (0.3, 0.3, 0.5)


def test_what_is_learnt_may_be_after_the_words_of_the_base_or_of_the_start(project, published):  # noqa: F811
    base = load_base("./model")
    start = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    part = {"patches": published[:1], "raw": ["borderline_train.jsonl"], "answer_tokens": 4}
    distil = [part, part | {"answers": "base"}, part | {"answers": "start"}]
    recipe = make_recipe(training=training(distil=distil))
    kept = open_company(recipe, base, start, project / "run", Silent()).kept
    teacher = torch.tensor(load_patch(published[0]).embeddings)
    assert [bool(torch.equal(one.rows, teacher)) for one in kept] == [True, True, True]
    prompts = load_prompts(Path("borderline_train.jsonl"))
    decoding = DecodingSection(max_new_tokens=4)
    for one, speaker in zip(kept, (teacher, None, start), strict=True):
        said = generate(base, [p.text for p in prompts], decoding=decoding, prefix=speaker, raw=True)
        texts = {i: answers[0].text for i, answers in said}
        wanted = [tuple(base.tokenizer.encode(texts[i])) for i in range(len(prompts)) if texts[i].strip()]
        assert [example.chosen for example in one.data.examples] == wanted
    assert len({tuple(e.chosen for e in one.data.examples) for one in kept}) == 3
    with pytest.raises(RecipeError, match="answers"):
        make_recipe(training=training(distil=[part | {"answers": "nobody"}]))


def test_what_neighbours_do_alone_is_taught_beside_them_and_makes_no_cumulative_patch(project, published):  # noqa: F811
    lesson = {"patches": published[1:], "raw": ["borderline_train.jsonl"], "answer_tokens": 4, "beside": True}
    both = {"patches": published[::-1], "parallel": True}
    recipe = make_recipe(training=training(neighbours=both, distil=[lesson, lesson | {"beside": False}]))
    kept = open_company(recipe, load_base("./model"), START, project / "run", Silent()).kept
    assert [one.beside for one in kept] == [(0,), ()]
    assert "distilled from two where it stands beside, 8 a step" in method(recipe)
    alone = make_recipe(training=training(neighbours=both, distil=[lesson]))
    assert not build(alone, project / "out", run=project / "run", progress=Silent()).manifest.cumulative
    own = make_recipe(name="acme/two", training=training(distil=[lesson | {"beside": False}]))
    assert not build(own, project / "own", run=project / "own-run", progress=Silent()).manifest.cumulative


def test_recipes_without_company_have_the_digest_they_had():
    plain = make_recipe()
    assert "joint" not in plain.model_dump(mode="json", exclude_defaults=True)
    assert set(plain.training.model_dump(mode="json", exclude_defaults=True)) == {
        "sft", "dpo", "validate_every", "checkpoint_every",
    }  # fmt: skip
    assert parts_of(plain) == [plain]
    check = object()
    assert join_validations([plain], [check]) is check


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joint": ["same.yaml"]}, "is of the risk refusal, as acme/tiny is"),
        ({"joint": ["nested.yaml"]}, "is joined with others itself"),
        ({"joint": ["elsewhere.yaml"]}, "is for the base other, this recipe for ./model"),
        ({"joint": ["none.yaml"]}, "no such file"),
    ],
)
def test_recipes_that_cannot_be_joined_are_refused(project, changes, said):  # noqa: F811
    write_recipe(project / "same.yaml")
    write_recipe(project / "calm.yaml", **TOXICITY)
    write_recipe(project / "nested.yaml", **(TOXICITY | {"joint": ["calm.yaml"]}))
    write_recipe(project / "elsewhere.yaml", **(TOXICITY | {"base": {"name": "other"}}))
    with pytest.raises(UsageError, match=said):
        plan(make_recipe(**changes))


BESIDE = {"distil": [{"chat": ["x.jsonl"], "patches": ["x"], "beside": True}]}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"neighbours": {}}, "there are no neighbours"),
        ({"neighbours": {"random": 1, "keep": {}}}, "names no prompts"),
        ({"neighbours": {"random": 1, "validate_together": True}}, "needs published patches"),
        ({"neighbours": {"random": 1, "keep": {"chat": ["x.jsonl"], "balance": {}}}}, "balance is about raw prompts"),
        ({"neighbours": {"random": 1, "probability": 1.5}}, "probability"),
        ({"distil": [{"patches": ["x"]}]}, "names no prompts"),
        ({"distil": {"chat": ["x.jsonl"], "patches": ["x"]}}, "distil: Input should be a valid"),
        ({"distil": [{"chat": ["x.jsonl"], "beside": True}]}, "beside is about patches"),
        (
            {"neighbours": {"patches": ["y"]}, "distil": [{"chat": ["x.jsonl"], "patches": ["x"], "beside": True}]},
            "distil.beside: x is not among neighbours.patches",
        ),
        ({**BESIDE, "neighbours": {"patches": ["x"], "row_subsets": True}}, "beside is about whole patches"),
        ({**BESIDE, "neighbours": {"patches": ["x"], "probability": 0}, "pairs_weight": 0}, "nothing is learnt"),
        ({"pairs_weight": 0}, "there is nothing to learn"),
        (
            {"pairs_weight": 0, "distil": [{"chat": ["x.jsonl"]}], "sft": {"steps": 0, "learning_rate": 0.1}},
            "and so is sft.steps",
        ),
        ({"pairs_weight": 0, "distil": [{"chat": ["x.jsonl"], "weight": 0}]}, "there is nothing to learn"),
        ({"neighbours": {"random": 1, "colour": "red"}}, "colour"),
    ],
)
def test_crooked_sections_name_the_key(section, said):
    with pytest.raises(RecipeError, match=said):
        make_recipe(training=training(**section))


def test_company_that_cannot_be_is_refused(project, published):  # noqa: F811
    base = load_base("./model")

    def opened(**section):
        return open_company(make_recipe(training=training(**section)), base, START, project / "run", Silent())

    with pytest.raises(UsageError, match="twice"):
        opened(neighbours={"patches": [published[0], published[0]]})
    with pytest.raises(UsageError, match=r"virtual tokens are too many for the context of \./model"):
        opened(neighbours={"random": 1, "random_tokens": 200})
    foreign = str(save(project / "foreign", make_patch(make_tiny(seed=1), "acme/foreign")))
    with pytest.raises(WrongBaseError, match="embedding table"):
        opened(neighbours={"patches": [foreign]})
    long = make_recipe(
        pairs={"max_prompt_tokens": 3},
        training=training(distil=[{"patches": published, "chat": ["everyday_train.jsonl"]}]),
    )
    with pytest.raises(UsageError, match="all prompts have more than 3 tokens"):
        open_company(long, base, START, project / "run", Silent())


def test_a_plan_counts_the_prompts_of_all_parts(project):  # noqa: F811
    other = write_recipe(project / "calm.yaml", **TOXICITY)
    assert plan(make_recipe())["train"]["harmful"] == 6
    assert plan(make_recipe(joint=[other]))["train"]["harmful"] == 12
    assert other in recipe_files(make_recipe(joint=[other]))
    assert parse_recipe(make_recipe(joint=[other]).model_dump(mode="json", exclude_none=True)) == make_recipe(
        joint=[other]
    )


def test_a_method_of_many_losses_still_fits_a_manifest():
    parts = [{"chat": ["everyday_train.jsonl"], "batch_size": 2 + i, "answers": "start"} for i in range(12)]
    recipe = make_recipe(training=training(distil=parts, pairs_weight=0))
    said = method(recipe)
    shown = said.count("distilled from the base")
    assert (
        len(said)
        <= LONG_TEXT
        < len(said) + len("; distilled from the base on answers of the start, 9 a step, weight 1")
    )
    assert said.endswith(f"; and {12 - shown} more losses, which the recipe lists")
    assert 3 < shown < 12
