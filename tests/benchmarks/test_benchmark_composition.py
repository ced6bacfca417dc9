"""The composition benchmark: every ordered subset, on figures that are made so that the answers are known."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from composekit import make_patch, save
from llmpatch.composing import (
    Bench,
    Column,
    Task,
    added_table,
    figures_table,
    survey_one,
    survey_set,
    survey_table,
)
from llmpatch.errors import UsageError

ROOT = Path(__file__).parent.parent.parent
RISKS = ("refusal", "toxicity", "gender-bias")


@pytest.fixture
def three(tiny, monkeypatch):
    patches = [make_patch(tiny, f"acme/{risk}", risk, seed=i) for i, risk in enumerate(RISKS)]
    rows = {p.embeddings.tobytes(): risk for p, risk in zip(patches, RISKS, strict=True)}
    size = len(patches[0].embeddings)

    def made(_, prefix, task, **__):
        """Alone .9, behind none .1; refusal is .7 where it stands first of two, .5 where it stands first of three."""
        blocks = [] if prefix is None else np.split(prefix.numpy(), len(prefix) // size)
        there = [rows.get(np.ascontiguousarray(block).tobytes(), "refusal") for block in blocks]
        rate = 0.9 if task.risk in there else 0.1
        if task.risk == "refusal" and there[:1] == ["refusal"] and len(there) > 1:
            rate = {2: 0.7, 3: 0.5, 4: 0.4}[len(there)]
        return [Column(task.risk, "good", True, {str(i): float(i < round(200 * rate)) for i in range(200)})]

    monkeypatch.setattr("llmpatch.composing.together.measure", made)
    return patches


def bench(tiny):
    return Bench(tiny, [Task(risk, "refusal", ()) for risk in RISKS])


def test_a_survey_finds_the_worst_order_of_each_size(tiny, three):
    survey = survey_set(bench(tiny), three)
    found = {(size, row["risk"]): row for size, rows in survey["sizes"].items() for row in rows}
    assert len(found) == 6
    assert found["2", "refusal"]["kept"]["value"] == pytest.approx((0.7 - 0.1) / 0.8)
    assert found["3", "refusal"]["kept"]["value"] == pytest.approx((0.5 - 0.1) / 0.8)
    assert found["3", "refusal"]["order"][0] == "acme/refusal 1.0.0"
    assert found["3", "refusal"]["spread"]["value"] == pytest.approx(0.4)
    assert found["3", "refusal"]["p"] < 0.01
    assert found["2", "toxicity"]["kept"]["value"] == found["3", "toxicity"]["kept"]["value"] == 1.0
    assert found["3", "toxicity"]["p"] == 1.0
    text = survey_table(survey)
    assert text.count("\n") == 7
    assert "| 3 | acme/refusal 1.0.0 | good | 200 | 0.100 | 0.900 | 0.500 | 50.0 % [" in text
    with pytest.raises(UsageError, match="stacks with nothing"):
        survey_set(bench(tiny), three[:1])


def test_what_stands_instead_is_measured_against_each_single_patch(tiny, three):
    figures = survey_one(bench(tiny), three, [three[0], three[1]])
    assert [round(f["together"], 3) for f in figures] == [0.7, 0.9, 0.1]
    assert figures[2]["kept"]["value"] == pytest.approx(0.0)
    assert "acme/gender-bias 1.0.0" in figures_table(figures)


def test_a_further_patch_is_compared_with_the_stack_without_it(tiny, three):
    figures = survey_one(bench(tiny), three[:2], three, against=three[:2])
    alone = survey_one(bench(tiny), three[:2], three[:2])
    assert [f["alone"] for f in figures] == [f["together"] for f in alone]
    assert [f["together"] for f in figures] == [f["together"] for f in survey_one(bench(tiny), three[:2], three)]
    for f in figures:
        assert f["change"]["value"] == pytest.approx(f["together"] - f["alone"], abs=1e-6)
    text = added_table({"name": "acme/new 1.0.0", "figures": figures, "own": alone[:1]})
    change = 100 * figures[0]["change"]["value"]
    assert f"| {figures[0]['together']:.3f} | {change:+.1f} [" in text
    assert "`acme/new 1.0.0` behind all of them" in text


def test_the_script_writes_all_of_it_and_the_page_shows_it(tiny, three, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_composition", ROOT / "benchmarks/composition.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    paths = []
    for patch in three:
        paths.append(str(save(tmp_path / patch.manifest.name.replace("/", "-"), patch)))
    from llmpatch.evals.prompt_sets import PromptSet
    from llmpatch.prompts import Prompt

    prompts = tuple(Prompt(str(i), f"What is {i}?", "harmful") for i in range(12))
    sets = tuple(PromptSet(name, name, kind, prompts) for name, kind in (("a", "harmful"), ("b", "everyday")))
    tasks = [Task(risk, "refusal", sets) for risk in RISKS]
    monkeypatch.setattr(module, "open_tasks", lambda *_, **__: tasks)
    monkeypatch.setattr(module, "load_base", lambda _: tiny)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "composition.json"
    arguments = [
        *paths,
        "--beside",
        f"alone={','.join(paths[:2])}",
        "--cumulative",
        paths[0],
        "--added",
        str(save(tmp_path / "acme-fourth", make_patch(tiny, "acme/fourth", "refusal", seed=9))),
        "--prompts",
        "6",
        "--run",
        "run",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", ["composition.py", *arguments])
    module.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["sets"]) == {"patches", "alone"}
    assert {risk: about["prompts"] for risk, about in found["risks"].items()} == dict.fromkeys(RISKS, 6)
    assert set(found["sets"]["alone"]["sizes"]) == {"2"}
    assert found["price"]["stack"]["tokens"] == 9
    assert found["price"]["stack"]["latency"]["token_ratio"]["n"] > 0
    assert found["cumulative"]["tokens"] == 3
    added = found["added"]
    assert added["name"] == "acme/fourth 1.0.0"
    assert [round(f["alone"], 3) for f in added["figures"]] == [0.5, 0.9, 0.9]  # of six prompts: the stack of three
    assert [round(f["together"], 3) for f in added["figures"]] == [0.4, 0.9, 0.9]
    assert added["figures"][0]["change"]["value"] == pytest.approx(-0.1)
    assert [(f["name"], round(f["together"], 3)) for f in added["own"]] == [("acme/fourth 1.0.0", 0.4)]
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_docs

    monkeypatch.setattr(make_docs, "COMPOSITION", out)
    page = make_docs.composition_page()
    assert "### patches" in page
    assert "One cumulative patch" in page
    assert "50.0 % [" in page
    assert "time per further token" in page
    assert "`acme/fourth 1.0.0` behind all of them" in page
    keep = ["--keep", "patches=earlier", "--keep", "alone"]
    monkeypatch.setattr(sys, "argv", ["composition.py", *paths[1:], *keep, *arguments[9:]])
    module.main()
    again = json.loads(out.read_text(encoding="utf-8"))["sets"]
    assert list(again) == ["patches", "earlier", "alone"]
    assert again["earlier"] == found["sets"]["patches"]
    assert set(again["patches"]["sizes"]) == {"2"}
    with monkeypatch.context() as patched:  # what is kept under a name that is to be measured is not measured again
        patched.setattr(module, "survey_set", None)
        patched.setattr(sys, "argv", ["composition.py", *paths[1:], "--keep", "patches", *arguments[5:]])
        module.main()
    last = json.loads(out.read_text(encoding="utf-8"))
    assert last["sets"] == {"patches": again["patches"]}
    asked = []
    with monkeypatch.context() as patched:
        patched.setattr(
            module, "survey_set", lambda bench, found: asked.append((bench.parallel, len(found))) or again["alone"]
        )
        beside = ["--parallel", "patches", "--parallel", f"pair={paths[0]},{paths[2]}"]
        patched.setattr(sys, "argv", ["composition.py", *paths[1:], "--keep", "patches", *beside, *arguments[9:]])
        module.main()
    assert asked == [(True, 2), (True, 2)]
    last = json.loads(out.read_text(encoding="utf-8"))
    assert list(last["sets"]) == ["patches", "patches-parallel", "pair-parallel"]
    assert (last["price"]["parallel"]["tokens"], last["price"]["pair-parallel"]["tokens"]) == (5, 5)
    page = make_docs.composition_page()
    assert "### pair, side by side" in page
    assert "| worst company | gain kept |\n" in page
    assert last["cumulative"]["tokens"] == 3
    assert last["price"]["cumulative"]["tokens"] == 3
    monkeypatch.setattr(sys, "argv", ["composition.py", *paths[1:], "--keep", "patches", *arguments[9:]])
    module.main()
    kept = json.loads(out.read_text(encoding="utf-8"))  # nor is what was measured beside it lost
    assert [kept[key] for key in ("cumulative", "added", "price")] == [
        last[key] for key in ("cumulative", "added", "price")
    ]
    for wrong, message in (
        (["--keep", "patches"], r"the set 'patches' that is to be kept is of acme/\S+ 1.0.0, acme/\S+ 1.0.0"),
        (["--keep", "nobody"], "no set 'nobody'"),
        (["--keep", "alone", "--samples", "9"], "samples"),
    ):
        monkeypatch.setattr(sys, "argv", ["composition.py", *paths, *wrong, *arguments[9:]])
        with pytest.raises(UsageError, match=message):
            module.main()
