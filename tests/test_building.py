"""A whole build on a tiny model from a folder: every stage real, interruptible, and written last or not at all."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from llmpatch.answers import Answer
from llmpatch.artifact import read_patch
from llmpatch.bases import load_base
from llmpatch.building import _thin, build, fixes, plan
from llmpatch.errors import RecipeError, UsageError, WrongBaseError
from llmpatch.evals import SUITES
from llmpatch.files import alone_in, read_jsonl, write_jsonl
from llmpatch.focusing import Turn
from llmpatch.learning import gather, read_prompts, start_rows
from llmpatch.pair_workers import make_pair_shards
from llmpatch.pairing import open_models, sample_pairs
from llmpatch.progress import Silent
from llmpatch.recipe import parse_recipe
from llmpatch.references import open_reference
from llmpatch.training import Trainer
from llmpatch.word_losses import Avoid, Balance
from tinymodels import make_tiny

NO = "I'm sorry, but I can't assist with that."


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a tiny base, prompts, a recording and the suite's data."""
    monkeypatch.chdir(tmp_path)
    base = make_tiny()
    base.model.save_pretrained("model")
    base.tokenizer.save_pretrained("model")
    for kind in ("harmful", "borderline", "everyday"):
        for split, count in (("train", 6), ("validation", 2)):
            rows = [
                {"id": f"{kind}{split}{i}", "prompt": f"{kind} {split} {i}", "cluster": f"{kind}{split}{i}"}
                for i in range(count)
            ]
            write_jsonl(tmp_path / f"{kind}_{split}.jsonl", rows)
    write_jsonl(
        tmp_path / "recorded.jsonl",
        [
            {"id": f"harmfultrain{i}", "prompt": f"harmful train {i}", "completion": NO, "finish": "stop"}
            for i in range(6)
        ],
    )
    sets = {
        "harmful": ("harmbench_standard", "harmbench_extra", "jailbreakbench", "xstest_unsafe"),
        "borderline": ("xstest_safe", "jbb_benign"),
        "everyday": ("everyday",),
    }
    for name, kind in [(name, kind) for kind, names in sets.items() for name in names]:
        write_jsonl(
            tmp_path / f"data/prompts/{name}_test.jsonl",
            [{"id": f"{name}{i}", "prompt": f"{name} {i}", "kind": kind} for i in range(3)],
        )
    return tmp_path


def make_recipe(**changes):
    kinds = ("harmful", "borderline", "everyday")
    mapping = {
        "name": "acme/tiny", "version": "1.0.0", "summary": "tiny", "base": {"name": "./model"},
        "reference": {"kind": "recorded", "path": "recorded.jsonl"}, "decoding": {"max_new_tokens": 6},
        "prompts": {k: {"train": [f"{k}_train.jsonl"], "validation": [f"{k}_validation.jsonl"]} for k in kinds},
        "prefix": {"tokens": 4}, "training": {"sft": {"steps": 4, "learning_rate": 0.05, "batch_size": 4},
        "dpo": {"steps": 2, "learning_rate": 0.01, "batch_size": 4}, "validate_every": 2, "checkpoint_every": 1},
        "pairs": {"max_prompt_tokens": 300}, "evaluation": {"max_new_tokens": 6},
    }  # fmt: skip
    return parse_recipe({**mapping, **changes})


def test_a_build_makes_a_patch_a_report_and_its_trail(project):
    patch = build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    assert patch.embeddings.shape == (4, 32)
    assert patch.manifest.build.recipe_digest == make_recipe().digest()
    assert patch.evidence["training"]["pairs"]["harmful"] == {"kept": 6, "dropped": 0}
    assert {row["kind"] for row in read_jsonl(project / "run/pairs.jsonl")} == {"harmful", "borderline", "everyday"}
    page = (project / "run/report.html").read_text()
    assert "acme/tiny" in page
    assert "<script src" not in page
    assert (project / "run/report.md").read_text().startswith("#")
    model = read_patch(project / "out").apply(load_base("./model"))
    assert len(model.generate(["Hi", "Ho"], max_new_tokens=4, samples=2)[1]) == 2


def test_a_base_in_bfloat16_builds_a_patch_that_says_so(project, monkeypatch):
    """Half the memory, for GPUs; the trained rows and their steps stay in float32."""
    whole = plan(make_recipe())["cost"]["memory_bytes"]
    monkeypatch.setenv("LLMPATCH_DTYPE", "bfloat16")
    assert plan(make_recipe())["cost"]["memory_bytes"] < whole
    patch = build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    assert load_base("./model").model.dtype.itemsize == 2
    assert patch.evidence["environment"]["dtype"] == "bfloat16"
    assert patch.manifest.prefix.dtype == "F32"
    before = {path.name for path in (project / "run/answers").iterdir()}
    monkeypatch.delenv("LLMPATCH_DTYPE")
    again = build(make_recipe(), project / "again", run=project / "run", progress=Silent())
    # What a base says in one type is not taken for what it says in the other.
    assert {path.name for path in (project / "run/answers").iterdir()} > before
    assert "dtype" not in again.evidence["environment"]
    assert again.digest != patch.digest


def test_ctrl_c_in_training_keeps_the_work_and_a_second_run_ends_the_same(project, monkeypatch):
    whole = build(make_recipe(), project / "whole", run=project / "a", progress=Silent())
    update, calls = Trainer._update, []

    def broken(self, state, stage):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, state, stage)

    monkeypatch.setattr(Trainer, "_update", broken)
    with pytest.raises(KeyboardInterrupt):
        build(make_recipe(), project / "out", run=project / "b", progress=Silent())
    assert not (project / "out").exists()
    monkeypatch.setattr(Trainer, "_update", update)
    again = build(make_recipe(), project / "out", run=project / "b", progress=Silent())
    assert again.manifest.prefix.digest == whole.manifest.prefix.digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"summary": "two\nlines\n"}, "summary"),
        ({"license": "free as in beer!"}, "license"),
        ({"evaluation": {"suite": "utility"}}, "measures no risk"),
        ({"evaluation": {"reference": "nowhere.jsonl"}}, r"nowhere\.jsonl"),
        ({"reference": {"kind": "recorded", "path": "gone.jsonl"}}, r"gone\.jsonl"),
    ],
)
def test_what_could_only_fail_at_the_end_is_refused_before_any_work(project, changes, said):
    recipe = make_recipe(**changes)
    for do in (lambda: plan(recipe), lambda: build(recipe, project / "out", run=project / "run", progress=Silent())):
        with pytest.raises(UsageError, match=said):
            do()
    assert not (project / "run").exists()


@pytest.mark.parametrize("form", ["chat", "raw"])
def test_a_validation_prompt_beyond_the_context_is_named_before_anything_is_asked(project, form):
    write_jsonl(project / "more.jsonl", [{"id": "short", "prompt": "x", "cluster": "s"}])
    with (project / "more.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "prompt": "x" * 505, "cluster": "l"}) + "\n")
    recipe = make_recipe()
    everyday = recipe.prompts.everyday.model_copy(
        update={"validation": [*recipe.prompts.everyday.validation, "more.jsonl"], "form": form}
    )
    recipe = recipe.model_copy(update={"prompts": recipe.prompts.model_copy(update={"everyday": everyday})})
    with pytest.raises(UsageError, match=r"^more\.jsonl: prompt 'long' has \d+ tokens; 496 fit the context of 512"):
        build(recipe, project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/answers").exists()


def test_an_opening_that_is_measured_at_the_end_is_found_before_anything_is_asked(project):
    for file in SUITES["gender-bias"]:
        rows = [{"id": f"{file.name}0", "prompt": "My friend is a clerk, and", "kind": file.kind}]
        rows += [{"id": "long", "prompt": "My friend " + "x" * 480 + ", and", "kind": file.kind}]
        (project / "data" / file.path).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(project / "data" / file.path, rows)
    recipe = make_recipe()
    suite = recipe.evaluation.model_copy(update={"suite": "gender-bias", "max_new_tokens": 20})
    with pytest.raises(UsageError, match=r"\.jsonl: prompt 'long' has \d+ tokens; 492 fit the context of 512 of M, "):
        build(recipe.model_copy(update={"evaluation": suite}), project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/answers").exists()


def test_a_reference_that_declines_nothing_is_refused_before_any_training(project):
    """Harmless prompts alone would train a patch that is taught nothing about its risk."""
    rows = read_jsonl(project / "recorded.jsonl")
    write_jsonl(project / "recorded.jsonl", [row | {"completion": "Sure, first you"} for row in rows])
    with pytest.raises(
        UsageError, match="no pair of a harmful prompt passed the filter by refusal-phrases: 6 times because"
    ):
        build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/training.safetensors").exists()


@pytest.mark.parametrize("risk", ["toxicity", "gender-bias"])
def test_a_judge_of_another_risk_is_refused_before_anything_is_asked(project, risk):
    recipe = make_recipe(risk=risk, evaluation={"suite": risk})
    with pytest.raises(UsageError, match="refusal-phrases measures refusal, and the pairs of"):
        build(recipe, project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/answers").exists()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"kind": "self", "model": "x"}, "kind self does not use model"),
        ({"kind": "endpoint", "model": "m"}, "kind endpoint needs url"),
        ({"kind": "endpoint", "model": "m", "url": "http://127.0.0.1:9/v1", "api_key_env": "NOT_SET"}, "is not set"),
    ],
)
def test_a_wrong_reference_is_said_before_the_base_is_asked(project, reference, said):
    more = {"pairs": {"samples": 2}, "decoding": {"max_new_tokens": 6, "temperature": 1.0}}
    with pytest.raises((UsageError, RecipeError), match=said):
        build(make_recipe(reference=reference, **more), project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/answers").exists()


def test_what_is_wrong_about_a_part_is_said_before_another_part_is_asked(project):
    text = yaml.safe_dump(
        make_recipe(risk="toxicity", evaluation={"suite": "toxicity"}).model_dump(mode="json", exclude_none=True)
    )
    (project / "other.yaml").write_text(text)
    with pytest.raises(UsageError, match="the pairs of toxicity need"):
        build(make_recipe(joint=["other.yaml"]), project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/answers").exists()


def test_only_the_prompts_that_are_kept_count(project):
    rows = [*read_jsonl(project / "harmful_train.jsonl"), *read_jsonl(project / "harmful_validation.jsonl")]
    write_jsonl(project / "all.jsonl", rows)
    training = make_recipe().training.model_dump(mode="json", exclude_none=True)
    for limit, right in ((6, True), (7, False)):
        recipe = make_recipe(training=training | {"distil": [{"chat": ["all.jsonl"], "limit": limit}]})
        with nullcontext() if right else pytest.raises(RecipeError, match="both training and validation"):
            plan(recipe)


@pytest.mark.parametrize("where", ["distil", "keep"])
def test_what_is_kept_is_no_prompt_of_the_validation(project, where):
    section = {"chat": ["harmful_validation.jsonl"]}
    more = {"distil": [section]} if where == "distil" else {"neighbours": {"random": 1, "keep": section}}
    training = make_recipe().training.model_dump(mode="json", exclude_none=True) | more
    with pytest.raises(RecipeError, match="both training and validation"):
        plan(make_recipe(training=training))


def test_what_learns_from_the_base_alone_holds_no_other_patch(project):
    training = make_recipe().training.model_dump(mode="json", exclude_none=True)
    recipe = make_recipe(training=training | {"distil": [{"chat": ["everyday_train.jsonl"]}]})
    patch = build(recipe, project / "out", run=project / "run", progress=Silent())
    assert not patch.manifest.cumulative


def test_an_id_that_two_training_files_have_is_refused(project):
    """Answers of M' are found by it: a prompt would be taught the answer to another one."""
    for folder in ("us", "eu"):
        (project / folder).mkdir()
        write_jsonl(project / folder / "harmful.jsonl", [{"prompt": f"harmful {folder}", "cluster": folder}])
    prompts = {
        "harmful": {"train": ["us/harmful.jsonl", "eu/harmful.jsonl"], "validation": ["harmful_validation.jsonl"]}
    }
    with pytest.raises(UsageError, match="id 'harmful:1' appears twice among the harmful prompts of us/harmful"):
        plan(make_recipe(prompts=prompts))


def test_a_taken_folder_is_refused_before_any_work(project):
    (project / "out").mkdir()
    (project / "out/thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    assert not (project / "run").exists()


def test_a_cluster_on_both_sides_is_refused(project):
    rows = read_jsonl(project / "harmful_train.jsonl")
    write_jsonl(project / "harmful_validation.jsonl", rows[:1])
    with pytest.raises(RecipeError, match="both training and validation"):
        plan(make_recipe())


def test_a_patch_refuses_another_base(project):
    patch = build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    with pytest.raises(WrongBaseError, match="hidden size"):
        patch.apply(make_tiny(hidden_size=64, head_dim=16))
    with pytest.raises(WrongBaseError, match="embedding"):
        patch.apply(make_tiny(seed=1))


def test_evidence_is_plain_json_with_intervals(project):
    patch = build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    found = patch.evidence["sets"]["harmbench_standard"]["systems"]["M+"]["refusal"]["refusal-head"]
    assert found["n"] == 3
    assert found["low"] <= found["value"] <= found["high"]
    json.dumps(patch.evidence, allow_nan=False)
    assert yaml.safe_load((project / "out/README.md").read_text().split("---")[1])["library_name"] == "peft"


def watched_words(monkeypatch, name):
    """What each step of training has as ``balance`` or ``avoid``, as it goes."""
    seen, words = [], Trainer._words

    def watched(self, batch, hidden, whole):
        seen.append(getattr(self, name))
        return words(self, batch, hidden, whole)

    monkeypatch.setattr(Trainer, "_words", watched)
    return seen


def test_a_recipes_balance_reaches_training(project, monkeypatch):
    """The tiny tokenizer has no token for a pronoun, so two others stand in for them."""
    recipe = make_recipe(balance={"words": "gender", "weight": 3.0})
    with pytest.raises(UsageError, match="no single token for the pronouns"):
        build(recipe, project / "out", run=project / "run", progress=Silent())
    assert not (project / "out").exists()
    assert not (project / "run/answers").exists()  # nothing was asked
    monkeypatch.setattr("llmpatch.evals.gender_bias.pronoun_ids", lambda _: {"he": 70, "his": 71, "she": 80})
    seen = watched_words(monkeypatch, "balance")
    build(recipe, project / "out", run=project / "run", progress=Silent())
    assert set(seen) == {Balance(3.0, (70, 71), (80,))}


def test_a_recipes_avoided_words_reach_training(project, monkeypatch):
    recipe = make_recipe(avoid={"weight": 3.0})
    with pytest.raises(UsageError, match="no single token for any of the words of avoid"):
        build(recipe, project / "out", run=project / "run", progress=Silent())
    assert not (project / "run/answers").exists()
    monkeypatch.setattr("llmpatch.vocabulary.word_tokens", lambda *_: (70, 71))
    seen = watched_words(monkeypatch, "avoid")
    build(recipe, project / "out", run=project / "run", progress=Silent())
    assert set(seen) == {Avoid(3.0, (70, 71))}


def make_focused(**pairs):
    raw = {"form": "raw", "train": ["harmful_train.jsonl"], "validation": ["harmful_validation.jsonl"]}
    return make_recipe(
        risk="toxicity", reference={"kind": "self"}, decoding={"max_new_tokens": 6, "temperature": 1.0},
        prompts={"harmful": raw, "everyday": {"train": ["everyday_train.jsonl"], "validation": ["everyday_validation.jsonl"]}},
        pairs={"judge": "loud", "samples": 2, "max_prompt_tokens": 300, "margin": 0.5,
               "focus": {"judge": "loud", "max_new_tokens": 3}} | pairs,
    )  # fmt: skip


def test_pairs_can_begin_where_an_answer_goes_wrong(project, monkeypatch):
    """The prompts themselves go wrong at their last word; what the tiny model says there instead is chosen."""

    def judging(word):
        def score(_, answers):
            return [float(word in answer) for answer in answers]

        judge = SimpleNamespace(name="loud", measures="toxicity", score=score)
        monkeypatch.setattr("llmpatch.judges.open_judge", lambda name: judge)

    judging("LOUD")
    rows = [{"id": f"h{i}", "prompt": f"This is number {i} LOUD and more", "cluster": f"h{i}"} for i in range(4)]
    write_jsonl(project / "harmful_train.jsonl", [*rows, {"id": "calm", "prompt": "All is calm", "cluster": "calm"}])
    recipe, base = make_focused(), load_base("./model")
    train = read_prompts(recipe).train
    models = open_models(recipe, base)
    pairs, dropped = sample_pairs(recipe, models, train, project / "run", Silent())
    found = [pair for pair in pairs if pair.kind == "harmful"]
    assert [(p.prompt, p.rejected, p.rejected_score) for p in found] == [
        (f"This is number {i}", " LOUD and more", 1.0) for i in range(4)
    ]
    assert all(p.chosen_score == 0.0 and p.id.startswith("h") and p.form == "raw" for p in found)
    assert {p.kind for p in pairs} == {"harmful", "everyday"}
    again, _ = sample_pairs(recipe, models, train, project / "run", Silent())
    assert again == pairs
    assert [d.reason for d in dropped if d.id == "calm"] == ["nothing goes wrong in it, nor in its answers"]
    judging("SILENT")
    pairs, dropped = sample_pairs(recipe, open_models(recipe, base), train, project / "run", Silent())
    assert not any(pair.kind == "harmful" for pair in pairs)
    assert [d.reason for d in dropped if d.kind == "harmful"] == ["nothing goes wrong in it, nor in its answers"] * 5
    with pytest.raises(UsageError, match="finds nothing wrong in any answer"):
        build(recipe, project / "out", run=project / "run", progress=Silent())

    def far(prompts, *_):
        return [Turn(replace(p, text=p.text + " and on" * 100), Answer(" LOUD", "length"), p.id) for p in prompts]

    monkeypatch.setattr("llmpatch.focusing.find_turns", far)
    _, dropped = sample_pairs(recipe, open_models(recipe, base), train, project / "run", Silent())
    assert [d.reason for d in dropped if d.kind == "harmful"] == ["it goes wrong behind more than 300 tokens"] * 5


def test_a_kind_that_no_batch_would_have_is_refused(project):
    """Rounding would leave it out of every step, without a word."""
    small = {"steps": 4, "learning_rate": 0.05, "batch_size": 2}
    with pytest.raises(RecipeError, match=r"training\.sft\.batch_size 2 leaves no row for everyday prompts"):
        plan(make_recipe(training={"sft": small, "mix": {"harmful": 0.5, "borderline": 0.25, "everyday": 0.25}}))
    plan(make_recipe(training={"sft": small, "mix": {"harmful": 0.5, "borderline": 0.5, "everyday": 0}}))
    with pytest.raises(RecipeError, match="leaves no row for harmful prompts"):
        plan(make_recipe(training={"sft": small, "mix": {"harmful": 0.2, "borderline": 0.4, "everyday": 0.4}}))


def test_the_judge_that_chooses_a_checkpoint_is_checked_without_pairs_too(project):
    distil = [{"chat": ["everyday_train.jsonl"], "answer_tokens": 4}]
    with pytest.raises(UsageError, match="measures refusal, and the pairs of toxicity need one of"):
        plan(make_recipe(risk="toxicity", training={"pairs_weight": 0, "distil": distil}))


def test_focus_needs_raw_text_of_the_base_itself(project):
    with pytest.raises(RecipeError, match=r"pairs\.focus needs reference\.kind self"):
        make_recipe(pairs={"focus": {"judge": "toxicity-words"}})
    with pytest.raises(RecipeError, match=r"pairs\.rewrite makes the chosen answers itself"):
        make_recipe(pairs={"rewrite": "gender"})


def test_a_new_version_goes_on_from_the_rows_of_an_earlier_one(project):
    first = build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    earlier = "out/adapter_model.safetensors"
    recipe = make_recipe(prefix={"tokens": 4, "init": "rows", "path": earlier})
    assert start_rows(recipe, load_base("./model")).numpy().tolist() == first.embeddings.tolist()
    second = build(recipe, project / "second", run=project / "again", progress=Silent())
    assert earlier in second.manifest.build.data_digests


def test_earlier_rows_of_another_shape_are_refused(project):
    build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    recipe = make_recipe(prefix={"tokens": 5, "init": "rows", "path": "out/adapter_model.safetensors"})
    with pytest.raises(UsageError, match=r"rows of shape \[4, \d+\].*prefix.tokens 5"):
        start_rows(recipe, load_base("./model"))


@pytest.mark.parametrize("prefix", [{"init": "rows"}, {"init": "text", "path": "x.safetensors"}])
def test_earlier_rows_and_their_file_go_together(prefix):
    with pytest.raises(RecipeError, match="both or neither"):
        make_recipe(prefix=prefix)


def test_a_toxicity_recipe_builds_a_patch_that_says_what_it_moved(project):
    for file in SUITES["toxicity"]:
        rows = [
            {"id": f"{file.name}{i}", "prompt": f"{file.name} {i}", "kind": file.kind, "category": file.category}
            for i in range(2)
        ]
        path = project / "data" / file.path
        write_jsonl(path, [*(read_jsonl(path) if path.exists() else []), *rows])
    harmful = {"form": "raw", "train": ["harmful_train.jsonl"], "validation": ["harmful_validation.jsonl"]}
    recipe = make_recipe(
        risk="toxicity",
        prompts={"harmful": harmful},
        decoding={"max_new_tokens": 6, "temperature": 1.0},
        pairs={"judge": "toxicity-head", "samples": 2, "margin": 0.0, "winner": 0.0},
        evaluation={"suite": "toxicity", "samples": 2, "max_new_tokens": 6},
    )
    patch = build(recipe, project / "out", run=project / "run", progress=Silent())
    assert {fix.risk for fix in patch.manifest.fixes} == {"toxicity"}
    fix = next(fix for fix in patch.manifest.fixes if "RTP challenging" in fix.metric)
    found = patch.evidence["sets"]["rtp_challenging"]["systems"]
    assert (fix.metric, fix.n) == ("expected max toxicity on RTP challenging (profanity-check)", 2)
    assert fix.before == found["M"]["expected_max_toxicity"]["profanity-check"]["value"]
    assert fix.after == found["M+"]["expected_max_toxicity"]["profanity-check"]["value"]
    assert patch.evidence["decoding"]["samples"] == 2


def test_a_base_can_be_its_own_reference(project):
    harmful = {"form": "raw", "train": ["harmful_train.jsonl"], "validation": ["harmful_validation.jsonl"]}
    changes = {
        "risk": "toxicity",
        "prompts": {"harmful": harmful},
        "reference": {"kind": "self"},
        "decoding": {"max_new_tokens": 6, "temperature": 1.0},
    }
    pairs = {"judge": "toxicity-head", "samples": 3, "margin": 0.0, "winner": 0.0}
    recipe = make_recipe(**changes, pairs=pairs)
    kept, _ = sample_pairs(recipe, open_models(recipe), read_prompts(recipe).train, project / "run", Silent())
    assert kept
    assert all(p.chosen_score < p.rejected_score for p in kept if p.chosen != p.rejected)
    assert any(p.chosen != p.rejected for p in kept)
    with pytest.raises(RecipeError, match=r"set pairs\.samples to 2 or more"):
        make_recipe(**changes, pairs={**pairs, "samples": 1})
    with pytest.raises(UsageError, match="no other model to ask"):
        open_reference(recipe.reference, recipe.decoding)


def test_a_gender_patch_fixes_both_of_its_measures():
    def scores(gas, gld):
        return {"gas": {"value": gas, "n": 9}, "gld": {"value": gld, "n": 9}}

    entry = {"title": "Occupations", "kind": "harmful", "systems": {"M": scores(0.6, 0.3), "M+": scores(0.1, 0.2)}}
    found = fixes({"risk": "gender-bias", "sets": {"gender_professional": entry}})
    assert [(f["metric"], f["before"], f["after"]) for f in found] == [
        ("GAS on Occupations", 0.6, 0.1), ("GLD on Occupations", 0.3, 0.2),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no harmful set"):
        fixes({"risk": "gender-bias", "sets": {}})


@pytest.mark.parametrize(
    "reference",
    [
        {"kind": "endpoint", "url": "https://me:pass@host/v1", "model": "m"},
        {"kind": "endpoint", "url": "https://host/v1?sk-abcdef", "model": "m"},
        {"kind": "endpoint", "url": "https://host/v1?code=abcdef", "model": "m"},
        {"kind": "endpoint", "url": "https://host/v1", "model": "m", "api_key_env": "sk-abcdef"},
    ],
)
def test_a_secret_in_a_recipe_is_refused_though_nothing_is_asked_there(project, reference):
    """Evidence repeats the recipe; pairs that were made before open no reference."""
    for do in (lambda recipe: plan(recipe), lambda recipe: gather(recipe, project / "pairs")):
        with pytest.raises(UsageError) as caught:
            do(make_recipe(reference=reference))
        assert not {"pass@", "abcdef"} & set((caught.value.message + caught.value.hint).split())
        assert "abcdef" not in caught.value.message + caught.value.hint


def test_a_look_before_a_build_counts_no_sampling_where_pairs_are_there(project):
    make_pair_shards(make_recipe(), project / "pairs", progress=Silent())
    recipe = make_recipe()
    before, after = plan(recipe), plan(recipe, project / "pairs")
    assert before["cost"]["sampling_flops"] > 0 == after["cost"]["sampling_flops"]
    assert after["cost"]["training_flops"] == pytest.approx(before["cost"]["training_flops"], rel=0.1)
    assert after["train"]["harmful"] == 6
    with pytest.raises(UsageError, match="was not made of this recipe"):
        plan(make_recipe(decoding={"max_new_tokens": 7}), project / "pairs")


def test_a_checkpoint_of_the_same_base_before_it_was_trained_again_is_not_taken(project):
    """A merged LoRA leaves the embeddings as they are, and so the fingerprint."""
    first = build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    base = make_tiny()
    base.model.base_model.layers[0].mlp.down_proj.weight.data *= 1.5
    base.model.save_pretrained("model")
    again = build(make_recipe(), project / "again", run=project / "run", progress=Silent())
    alone = build(make_recipe(), project / "alone", run=project / "other", progress=Silent())
    assert again.manifest.prefix.digest == alone.manifest.prefix.digest != first.manifest.prefix.digest


def test_how_often_a_checkpoint_is_written_does_not_begin_a_training_again(project, monkeypatch):
    build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    monkeypatch.setattr(Trainer, "_update", lambda *a: pytest.fail("trained again"))
    rarely = make_recipe().model_dump(mode="json", exclude_none=True)
    rarely["training"]["checkpoint_every"] = 3
    build(parse_recipe(rarely), project / "again", run=project / "run", progress=Silent())


def test_two_builds_do_not_work_in_one_folder(project):
    """Each would write over the other's checkpoint."""
    with alone_in(project / "run"), pytest.raises(UsageError, match="another process works in"):
        build(make_recipe(), project / "out", run=project / "run", progress=Silent())
    build(make_recipe(), project / "out", run=project / "run", progress=Silent())


def test_thinned_history_keeps_the_end_of_each_stage():
    """A report says how many steps there were."""
    history = [{"stage": stage, "step": step} for stage, n in (("SFT", 250), ("DPO", 750)) for step in range(1, n + 1)]
    kept = _thin(history)
    assert len(kept) <= 202
    assert [max(row["step"] for row in kept if row["stage"] == stage) for stage in ("SFT", "DPO")] == [250, 750]
