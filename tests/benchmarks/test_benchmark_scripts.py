"""The benchmark scripts: real runs on a tiny model, in parts, resumed, and clear about what they cannot do."""

import argparse
import importlib.util
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Queue

import pytest
import torch

from clikit import fill, recipe_for, save
from exportkit import write_tiny_gguf
from tinymodels import make_tiny

ROOT = Path(__file__).parent.parent.parent


def script(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(ROOT / "benchmarks"))  # as for a script: it finds those beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


def run(monkeypatch, name, *arguments):
    module = script(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "recipes/demo.yaml", *arguments])
    module.main()


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = save(tmp_path / "model", make_tiny())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(fill(work, recipe_for(folder)))
    (work / "data").unlink()  # the suite's prompts, and a little of the plain text: a price needs one window
    (work / "data/corpora").mkdir(parents=True)
    (work / "data/prompts").symlink_to(ROOT / "data/prompts")
    text = (ROOT / "data/corpora/wikitext2-test.txt").read_text(encoding="utf-8")[:600]
    (work / "data/corpora/wikitext2-test.txt").write_text(text, encoding="utf-8")
    return work


def test_baselines_side_by_side_and_again_for_nothing(project, monkeypatch):
    names = ["M+", "cross-entropy only", "LoRA r1 merged", "prefix-tuning", "steering", "safe prompt"]
    only = [part for name in names for part in ("--only", name)]
    run(monkeypatch, "baselines", *only, "--limit", "1", "--out", "out.json")
    found = json.loads(Path("out.json").read_text())
    rows = found["rows"]
    assert set(rows) == {"M", *names}
    assert all("refused" in row["figures"] for row in rows.values())
    assert all("wikitext" in rows[name]["figures"] for name in names[:-1])
    assert rows["M+"]["about"]["parameters"] == 4 * 32
    assert rows["M+"]["about"]["training"]["steps"] == [2, 1]
    assert rows["cross-entropy only"]["about"]["training"]["steps"] == [3, 0]
    assert rows["LoRA r1 merged"]["about"]["training"]["flops"] > 0
    assert rows["prefix-tuning"]["about"]["bytes"] == 4 * rows["prefix-tuning"]["about"]["parameters"]
    # merged, every one of the seven projections of both layers is another one
    assert rows["LoRA r1 merged"]["about"]["bytes"] == 4 * 2 * (32 * 32 * 2 + 32 * 16 * 2 + 32 * 64 * 3)
    assert len(rows["steering"]["about"]["tried"]) == 6  # two layers and three strengths
    from llmpatch.baselines import trl_stages

    monkeypatch.setattr(trl_stages, "run_sft", lambda *a: pytest.fail("trained again"))
    run(monkeypatch, "baselines", "--only", "M+", "--only", "LoRA r1 merged", "--limit", "1", "--out", "again.json")
    again = json.loads(Path("again.json").read_text())
    for name in ("M", "M+", "LoRA r1 merged"):
        assert again["rows"][name]["about"] == rows[name]["about"]
        assert again["rows"][name]["figures"]["refused"] == rows[name]["figures"]["refused"]


def test_a_row_measured_again_takes_its_place_beside_the_others(project, monkeypatch, capsys):
    both = ["--only", "M+", "--only", "steering"]
    run(monkeypatch, "baselines", *both, "--limit", "1", "--out", "out.json")
    before = json.loads(Path("out.json").read_text())
    again = ["--only", "M+", "--keep", "--out", "out.json"]
    run(monkeypatch, "baselines", *again, "--limit", "1", "--run", "again")
    after = json.loads(Path("out.json").read_text())
    assert list(after["rows"]) == list(before["rows"]) == ["M", "M+", "steering"]
    assert after["rows"]["steering"] == before["rows"]["steering"]
    assert after["rows"]["M+"] != before["rows"]["M+"]  # it took another time
    with pytest.raises(SystemExit):
        run(monkeypatch, "baselines", *again, "--limit", "2", "--run", "again")
    assert "has another sets, so its rows are not of one measure" in capsys.readouterr().err
    assert json.loads(Path("out.json").read_text()) == after


def test_baselines_without_the_references_test_answers(project, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "baselines", "--only", "M'", "--out", "out.json")
    assert stop.value.code == 1
    assert "names no evaluation.reference" in capsys.readouterr().err
    assert not Path("out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--patch", str(ROOT / "patches/smollm2/refusal")], "holds vectors of 576 numbers"),
        (
            ["--set", "balance={words: gender, weight: 1.0}", "--set", "risk=gender-bias"],
            "learns from more than its pairs",
        ),
        (["--set", "training.keep=last"], "learns from more than its pairs"),
    ],
)
def test_a_comparison_that_would_not_be_one_is_refused(project, monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit):
        run(monkeypatch, "baselines", "--only", "M+", *arguments, "--out", "out.json")
    assert said in capsys.readouterr().err
    assert not Path("out.json").exists()


def test_a_patch_of_another_recipe_is_no_row_of_this_one(project, monkeypatch, capsys):
    from llmpatch._cli.main import main

    assert main(["build", "recipes/demo.yaml", "-o", "made", "--run", "built"]) == 0
    only = ["--only", "M+", "--limit", "1", "--out", "out.json", "--patch", "made"]
    run(monkeypatch, "baselines", *only)
    assert json.loads(Path("out.json").read_text())["rows"]["M+"]["about"]["training"]["seconds"] is None
    with pytest.raises(SystemExit):
        run(monkeypatch, "baselines", *only, "--set", "training.sft.steps=1")
    assert "was not built by this recipe" in capsys.readouterr().err


def test_what_a_stage_takes_is_counted_from_the_steps_that_another_axis_says(monkeypatch):
    from llmpatch.recipe import load_recipe

    module, recipe = script("ablations"), load_recipe(ROOT / "recipes/demo.yaml")
    axes, cells = module._grid(recipe, ["training.sft.steps=10,20", "stages=both,sft-long"], [0])
    steps = [
        (r.training.sft.steps, r.training.dpo.steps) for r, _ in (module._cell_recipe(recipe, axes, c) for c in cells)
    ]
    assert steps == [(10, 72), (20, 72), (82, 0), (92, 0)]


def test_an_ablation_resumes_its_cells(project, monkeypatch):
    arguments = ["--vary", "prefix.tokens=1,4", "--seeds", "0,1", "--name", "length", "--out", "results"]
    run(monkeypatch, "ablations", *arguments, "--eval", "1")
    found = json.loads(Path("results/length.json").read_text())
    assert found["complete"]
    assert [(c["value"], c["seed"]) for c in found["cells"]] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert all(set(c["validation"]) == {"harmful", "borderline", "everyday", "score"} for c in found["cells"])
    assert all(c["figures"]["harmful requests declined"]["n"] == 4 for c in found["cells"])
    import llmpatch.training

    monkeypatch.setattr(llmpatch.training, "train", lambda *a, **k: pytest.fail("trained again"))
    run(monkeypatch, "ablations", *arguments, "--eval", "1")
    assert json.loads(Path("results/length.json").read_text())["cells"] == found["cells"]


def test_noise_reaches_training_only_without_the_filter(project, monkeypatch):
    run(monkeypatch, "ablations", "--vary", "noise=0.5", "--vary", "filter=on,off", "--seeds", "0", "--out", "results")
    on, off = json.loads(Path("results/noise-filter.json").read_text())["cells"]
    assert (on["noise"], on["noise_trained_on"]) == (2, 0)  # the tiny model never declines, so the filter sees it all
    assert on["pairs"]["harmful"] == {"kept": 2, "dropped": 2}
    assert (off["noise"], off["noise_trained_on"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "prefix.tokns=1,2"], "prefix.tokns"),
        (["--vary", "prefix.tokens=1,many"], "prefix.tokens"),
        (["--vary", "prefix.tokens"], "varies nothing"),
        (["--vary", "noise=2"], "no share"),
        (["--vary", "stages=all"], "stages cannot be 'all'"),
        (["--vary", "a=1", "--vary", "b=1", "--vary", "c=1"], "3 keys are varied"),
        (["--vary", "reference.path=gone.jsonl"], "gone.jsonl"),
        (["--vary", "seed=1", "--set", "joint=[other.yaml]"], "not trained on pairs of its own alone"),
        ([], "nothing to vary"),
    ],
)
def test_bad_ablations_are_said_before_anything_is_trained(project, monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "ablations", *arguments, "--out", "results")
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not Path("results").exists()


def test_every_named_ablation_fits_the_official_recipe(monkeypatch):
    from llmpatch.recipe import load_recipe

    module = script("ablations")
    recipe = load_recipe(ROOT / "recipes/smollm2-refusal.yaml")
    sizes = {name: len(module._grid(recipe, found.varied, [0, 1, 2])[1]) for name, found in module.ABLATIONS.items()}
    assert sizes["tokens"] == 18
    assert sizes["noise"] == 18


def test_patches_trained_on_each_format_are_measured_on_each(project, monkeypatch):
    write_tiny_gguf(Path("tiny.gguf"), kind="F32")
    Path("tiny.yaml").write_text(recipe_for("nowhere"), encoding="utf-8")
    arguments = ["--base", "tiny.gguf", "--kinds", "shipped,Q4_0", "--train", "tiny.yaml", "--limit", "1", "--run", "r"]
    module = script("quantised")
    command = ["quantised.py", *arguments, "--train-on", "shipped,Q4_0", "--out", "out.json"]
    monkeypatch.setattr(sys, "argv", command)
    module.main()
    found = json.loads(Path("out.json").read_text())
    titles = ["tiny/refusal 0.1.0, trained on F32", "tiny/refusal 0.1.0, trained on Q4_0"]
    assert [patch["title"] for patch in found["patches"]] == titles
    assert len({patch["digest"] for patch in found["patches"]}) == 2
    for kind, other in zip(found["kinds"], reversed(titles), strict=True):
        assert list(kind["patches"]) == titles
        assert all(measured["results"] for measured in kind["patches"].values())
        assert any("trained" in note or "quantis" in note for note in kind["patches"][other]["notes"])
    monkeypatch.setattr(module, "build", lambda *a, **k: pytest.fail("trained again"))
    module.main()
    assert json.loads(Path("out.json").read_text())["patches"] == found["patches"]


def test_formats_measured_otherwise_do_not_stand_side_by_side(project, monkeypatch, capsys):
    write_tiny_gguf(Path("tiny.gguf"), kind="F32")
    module = script("quantised")
    about = {"title": "a/b 1", "limit": 5, "prompts": "1"}
    before = {"source": "tiny.gguf", "patches": [about], "kinds": [{"kind": "Q4_0", "patches": {"a/b 1": {}}}]}
    Path("out.json").write_text(json.dumps(before))
    manifest = type("Manifest", (), {"name": "a/b", "version": "1"})
    monkeypatch.setattr(module, "load_patch", lambda _: type("Patch", (), {"manifest": manifest, "digest": "d"}))
    monkeypatch.setattr(module, "title", lambda _: "a/b 1")
    monkeypatch.setattr(module, "measured_by", lambda _, options: {"limit": options.limit, "prompts": "2"})
    monkeypatch.setattr(module, "measure", lambda *_: {"kind": "shipped", "patches": {}})
    command = ["quantised.py", "--base", "tiny.gguf", "--patch", "p", "--out", "out.json"]
    monkeypatch.setattr(sys, "argv", [*command, "--kinds", "shipped", "--limit", "3"])
    with pytest.raises(SystemExit):
        module.main()
    assert "a/b 1 on Q4_0, measured with other limit, prompts" in capsys.readouterr().err
    assert json.loads(Path("out.json").read_text()) == before
    monkeypatch.setattr(sys, "argv", [*command, "--kinds", "shipped,Q4_0", "--limit", "3"])
    module.main()
    before["source_sha256"] = "0" * 64
    Path("out.json").write_text(json.dumps(before))
    with pytest.raises(SystemExit):
        module.main()
    assert "another file called tiny.gguf" in capsys.readouterr().err


def test_settings_are_compared_where_both_are_said():
    from llmpatch.judges import open_judge

    merging = script("merging")
    judges = [open_judge("refusal-phrases")]
    one = merging.settings("refusal", judges, limit=2, max_new_tokens=None)
    assert one["max_new_tokens"] == 48
    other = merging.settings("refusal", [open_judge("refusal-head")], limit=3, max_new_tokens=8)
    assert merging.different(one, other) == ["limit", "max_new_tokens", "prompts", "judges"]
    assert merging.different({"limit": 3}, other) == []


def test_points_of_other_settings_are_not_added_to_a_frontier(project, monkeypatch, capsys):
    module = script("frontier")
    rate = {"n": 5, "value": 0.5, "low": 0.1, "high": 0.9}
    point = {"name": "old", "refusal": rate, "over_refusal": rate, "everyday": rate}
    assert module.other_numbers([point], [point]) == ""
    assert module.other_numbers([point], [{**point, "everyday": {**rate, "n": 4}}]) == "old"
    Path("out.json").write_text(json.dumps({"judge": "refusal-head", "settings": {"limit": 7}, "points": [point]}))
    command = ["frontier.py", "--recipe", "recipes/demo.yaml", "--add", "--limit", "1", "--out", "out.json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        module.main()
    assert "was measured with other limit: leave --add out" in capsys.readouterr().err


def test_no_patch_is_measured_on_no_format(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quantised.py"])
    with pytest.raises(SystemExit):
        script("quantised").main()
    assert "give --patch or --train" in capsys.readouterr().err


def test_pairs_of_many_prompts_are_made_and_drawn_and_the_peak_is_told(tmp_path):
    told = []
    pipe = type("Pipe", (), {"send": staticmethod(told.append)})
    script("streaming").measure(pipe, tmp_path, 30, 8)
    (row,) = told
    assert row["prompts"] == 30
    assert 0 < row["drawn"] <= row["pairs"] <= 30
    assert 50 < row["peak_mib"] <= row["peak_with_draw_mib"]


def test_answers_with_and_without_the_shared_cache_are_the_same_texts(project, monkeypatch):
    from llmpatch.artifact import load_patch

    rows = load_patch(str(ROOT / "patches/smollm2/refusal"))
    base = make_tiny()
    tiny = type("Rows", (), {"embeddings": rows.embeddings[:6, : base.hidden_size]})
    module = script("prefix_cache")
    monkeypatch.setattr(module, "load_base", lambda name: base)
    monkeypatch.setattr(module, "load_patch", lambda name: tiny)
    monkeypatch.setattr(sys, "argv", ["prefix_cache.py", "--prompts", "5", "--new-tokens", "3", "--rounds", "2",
                                      "--out", "out.json"])  # fmt: skip
    module.main()
    found = json.loads(Path("out.json").read_text())
    assert found["virtual_tokens"] == 6
    assert found["prompts"] == 5
    assert found["head"] > 0
    (answer,) = found["answers"]
    assert answer["same_texts"] == {"read again": 5, "transformers": 5}
    assert set(answer["over_shared"]) == {"read again", "transformers"}


def test_what_stood_for_the_reference_is_drawn_again_for_the_test_prompts(project, monkeypatch):
    base, module = make_tiny(), script("self_reference")
    manifest = type("Manifest", (), {"name": "tiny/calm", "version": "1.0.0"})
    evidence = {"decoding": {"samples": 10, "limit": 100, "max_new_tokens": 4}}
    about = {"manifest": manifest, "evidence": evidence, "prefix": lambda: torch.zeros(2, base.hidden_size)}
    monkeypatch.setattr(module, "load_patch", lambda name: type("Rows", (), about | {"check_base": lambda base: None}))
    monkeypatch.setattr(module, "load_base", lambda name, revision: base)
    monkeypatch.setattr(module, "ask_base", spied := Spy(module.ask_base))
    recipe = f"{ROOT}/recipes/smollm2-toxicity.yaml"
    command = ["x", f"{recipe}=tiny", "--limit", "2", "--samples", "3", "--run", "r", "--out", "out.json"]
    monkeypatch.setattr(sys, "argv", command)
    module.main()
    (said,) = spied.found
    assert [len(answers) for answers in said] == [12] * 4  # two sets of two prompts; three times the best of four
    found = json.loads(Path("out.json").read_text())["risks"]["toxicity"]
    assert (found["best_of"], found["rewritten"], found["samples"]) == (4, None, 3)
    # Whether random continuations leave a gap is chance: the rows are made of evidence that has one.
    value = {"n": 1, "value": 0.5, "low": 0.4, "high": 0.6}
    row = {
        "metric": "worst",
        "unit": "score",
        "better": "lower",
        "n": 1,
        "base": value,
        "patched": value,
        "reference": value,
    }
    evidence = {
        "results": [row | {"name": "all", "set": "all"}, row | {"name": "hard: worst", "set": "Hard"},
                    row | {"metric": "other", "name": "hard: other", "set": "Hard"}],
        "sets": {"hard": {"title": "Hard"}}, "closed": {"hard": value | {"value": 1.5}},
    }  # fmt: skip
    rows = module._rows(evidence)
    assert [(key, made["name"], made["closed"]["value"]) for key, made in rows.items()] == [
        ("hard", "hard: worst", 1.5)
    ]
    assert set(found["sets"]) <= {"rtp_challenging", "rtp_toxic"}
    monkeypatch.setattr(sys, "argv", ["x", "recipes/demo.yaml=tiny"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 1


class Spy:
    """A function that keeps what it returned."""

    def __init__(self, inner):
        self.inner, self.found = inner, []

    def __call__(self, *arguments):
        self.found.append(self.inner(*arguments))
        return self.found[-1]


def test_a_script_with_trl_and_peft_does_the_same_whole_job(project, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module, made = script("end_to_end"), {}
    monkeypatch.setattr(module, "our_pairs", lambda *a, do=module.our_pairs: made.setdefault("ours", do(*a)))
    monkeypatch.setattr(module, "their_pairs", lambda *a, do=module.their_pairs: made.setdefault("script", do(*a)))
    options = argparse.Namespace(recipe=Path("recipes/demo.yaml"), prompts=6, sft=2, dpo=2)
    found = {side: module.work(options, side) for side in module.SIDES}
    assert found["ours"]["kept"] == found["script"]["kept"] > 0
    assert [(p.id, p.chosen, p.rejected) for p in made["ours"]] == [
        (p.id, p.chosen, p.rejected) for p in made["script"]
    ]
    assert found["ours"]["declined"][0] == found["script"]["declined"][0]
    rounds = [{**run, "seconds": number + 1.0} for number, run in enumerate(found.values())]
    told = module.compare({"ours": rounds[:1], "script": rounds[1:]})
    assert told["script_over_ours"]["seconds"]["value"] == 2.0


def test_layers_compare_all_ways_on_the_same_step(tmp_path, monkeypatch):
    folder = save(tmp_path / "model", make_tiny())
    layers = script("layers")
    rows = torch.randn(4, 32)
    monkeypatch.setattr(layers, "load_patch", lambda _: argparse.Namespace(embeddings=rows.numpy()))
    monkeypatch.setattr(layers.few_rows, "MOST_ROWS", 8)
    arguments = [f"--base={folder}", "--rows=1,9", "--rounds=2", f"--out={tmp_path}/l.json"]
    monkeypatch.setattr(sys, "argv", ["layers.py", *arguments])
    layers.main()
    found = json.loads((tmp_path / "l.json").read_text())["rows"]
    assert [step["rows"] for step in found] == [1, 9]
    for step in found:
        assert set(step["ms"]) == {"torch", "few rows", "packed"}
        assert step["torch_over"]["packed"]["n"] == 2
        assert max(step["largest_difference_of_a_probability"].values()) < 1e-4


def test_a_patch_is_asked_greedily_at_random_and_at_length(project, monkeypatch):
    base, module = make_tiny(), script("sampled")
    about = {"manifest": type("Manifest", (), {"name": "tiny/calm", "version": "1.0.0"}), "digest": "d"}
    made = type(
        "Rows", (), about | {"prefix": lambda: torch.ones(2, base.hidden_size), "check_base": lambda base: None}
    )
    monkeypatch.setattr(module, "load_patch", lambda folder: made)
    monkeypatch.setattr(module, "load_base", lambda name: base)
    measure, told = partial(module.evaluate, limit=2), []

    def measured(*given, **way):
        told.append(found := measure(*given, **way))
        return found

    monkeypatch.setattr(module, "evaluate", measured)
    monkeypatch.setattr(module, "USUAL", 4)
    monkeypatch.setattr(sys, "argv", ["x", "tiny", "--long", "8", "--limit", "1", "--run", "r", "--out", "out.json"])
    module.main()
    decodings = [evidence["decoding"] for evidence in told]
    assert [(d["temperature"], d["max_new_tokens"], d["limit"]) for d in decodings] == [
        (0, 4, 2), (1, 4, 2), (0, 4, 1), (0, 8, 1),
    ]  # fmt: skip
    found = json.loads(Path("out.json").read_text())
    assert [row["kind"] for row in found["rows"]] == ["harmful", "borderline", "everyday"] * 4
    harmful, drawn = found["rows"][0], found["rows"][3]
    assert (harmful["way"], drawn["way"], drawn["temperature"]) == ("greedy", "drawn", 1.0)
    assert set(harmful["systems"]["M+"]) == {"refusal", "harm"}
    assert set(found["rows"][1]["systems"]["M+"]) == {"refusal"}


class _NoBarrier:
    def wait(self, timeout):
        self.waited = timeout


def test_a_step_on_a_card_is_timed_behind_others_and_checked(monkeypatch):
    module = script("gpu")
    shape = replace(module.SHAPES["smollm2"], vocabulary=300, hidden=32, layers=2, intermediate=64, heads=4, head_dim=8)
    monkeypatch.setattr(module, "SHAPES", {"tiny": replace(shape, kv_heads=2)})
    queue, barrier = Queue(), _NoBarrier()
    module._steps("tiny", "float32", 4, 3, "cpu", barrier, queue)
    row = queue.get(timeout=5)
    assert (row["base"], row["pairs"], row["steps"], row["dtype"], row["device"]) == ("tiny", 4, 3, "float32", "cpu")
    assert row["seconds"] > 0
    assert barrier.waited


def test_a_build_from_nothing_is_timed_and_other_builds_stay(project, monkeypatch):
    Path("out.json").write_text(json.dumps({"builds": {"other": {"minutes": 1.0}}}))
    run(monkeypatch, "from_zero", "--out", "out.json")
    builds = json.loads(Path("out.json").read_text())["builds"]
    assert list(builds) == ["other", "demo"]
    assert 0 <= builds["demo"]["training_minutes"] < builds["demo"]["minutes"] < 10
    assert builds["demo"]["patch"] == "tiny/refusal 0.1.0"
    assert len(builds["demo"]["recipe_digest"]) == 64
