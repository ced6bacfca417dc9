"""The offline judges of toxicity: hand-written cases, their weights, their agreement with held-out labels."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.judges import identity, open_judge
from llmpatch.judges.heads import read_weights
from llmpatch.judges.text import normalise
from llmpatch.judges.toxicity import (
    CHAR_BUCKETS,
    CHAR_SIZES,
    TOXICITY_CHARS,
    WEIGHTS,
    char_buckets,
    load_toxicity,
    term_hash,
    tokens,
)

ROOT = Path(__file__).parents[2]
OFFLINE = ("toxicity-head", "profanity-check")
KIND = ["Have a nice day.", "The garden is full of roses in June.", "Thank you, that was very helpful."]
VILE = ["you are a fucking idiot, shut up", "What a stupid piece of shit.", "Go kill yourself, you worthless bitch"]


@pytest.fixture(scope="module")
def measure() -> Iterator[Any]:
    """``scripts/toxicity_measure.py``, which lives outside the package."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import toxicity_measure

    yield toxicity_measure
    sys.path.remove(str(ROOT / "scripts"))


def score(name: str, texts: list[str]) -> list[float]:
    return open_judge(name).score([""] * len(texts), texts)


@pytest.mark.parametrize("name", OFFLINE)
def test_vile_and_kind_texts_are_told_apart(name: str) -> None:
    assert min(score(name, VILE)) > 0.7
    assert max(score(name, KIND)) < 0.25


@pytest.mark.parametrize("name", OFFLINE)
def test_nothing_said_is_not_toxic(name: str) -> None:
    assert score(name, ["", " \n "]) == [0.0, 0.0]
    assert score(name, []) == []


def test_a_censored_curse_is_a_curse() -> None:
    plain, censored = score("toxicity-head", ["He is a nice man.", "He is a f*cking man."])
    assert censored > 0.5 > plain


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=4))
def test_any_text_gets_a_probability_that_its_neighbours_do_not_change(texts: list[str]) -> None:
    found = score("toxicity-head", texts)
    assert all(0 <= p <= 1 for p in found)
    assert found == pytest.approx([score("toxicity-head", [text])[0] for text in texts], abs=1e-9)


def test_only_the_beginning_is_read_and_a_megabyte_costs_nothing() -> None:
    start = "The garden is full of roses. " * 30
    assert score("toxicity-head", [start + "fuck " * 200_000]) == score("toxicity-head", [start])


def test_character_buckets_are_all_ngrams_of_padded_words() -> None:
    from zlib import crc32

    grams = {f" {w} "[i : i + n] for w in ("ab", "f*ck") for n in CHAR_SIZES for i in range(len(w) + 3 - n)}
    assert char_buckets("ab f*ck ab") == sorted({crc32(g.encode()) % CHAR_BUCKETS for g in grams})
    assert tokens(normalise("He said: “F*ck off!”, 2nd time.", 99)) == ["he", "said", "f*ck", "off", "2nd", "time"]


def test_the_head_is_the_plain_formula() -> None:
    """Coefficient by coefficient, in float64, beside the vectorised sum."""
    from llmpatch.judges.text import ngrams

    model, _ = load_toxicity()
    text = normalise("Then he said shit, twice.", TOXICITY_CHARS)
    logit = model.chars.bias
    for part, rows in ((model.chars, char_buckets(text)), (model.words, ngrams(tokens(text), 2))):
        logit += sum(float(part.weights[b]) for b in rows) / sum(float(part.squares[b]) for b in rows) ** 0.5
    hits = [model.lexicon[term_hash(w)] for w in tokens(text) if term_hash(w) in model.lexicon]
    assert len(hits) == 1
    logit += float(np.dot([hits[0], 1 / 4, 1 / len(tokens(text))], model.dense))
    assert score("toxicity-head", [text])[0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


# Weights


def test_weights_are_plain_arrays_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    arrays, digest = read_weights("toxicity-head", WEIGHTS)
    assert len(digest) == 64
    assert all(array.dtype.kind in "fu" and np.isfinite(array).all() for array in arrays.values())
    assert (WEIGHTS / "toxicity-head.npz").stat().st_size < 2_000_000
    for name in ("index.json", "toxicity-head.npz"):
        shutil.copy(WEIGHTS / name, tmp_path / name)
    data = bytearray((tmp_path / "toxicity-head.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "toxicity-head.npz").write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="sha256"):
        load_toxicity(tmp_path)


@pytest.mark.parametrize(("name", "wrong"), [("dense", np.zeros(4)), ("terms", np.zeros(2)), ("bias", None)])
def test_weights_of_other_shapes_are_refused(tmp_path: Path, name: str, wrong: Any) -> None:
    import hashlib

    arrays, _ = read_weights("toxicity-head", WEIGHTS)
    changed = {key: value for key, value in (arrays | {name: wrong}).items() if value is not None}
    np.savez(tmp_path / "toxicity-head.npz", **changed)
    digest = hashlib.sha256((tmp_path / "toxicity-head.npz").read_bytes()).hexdigest()
    (tmp_path / "index.json").write_text(json.dumps({"toxicity-head": {"sha256": digest}}))
    with pytest.raises(IntegrityError, match="other shapes"):
        load_toxicity(tmp_path)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detoxify", None)
    with pytest.raises(LlmpatchError) as caught:
        open_judge("detoxify:unbiased")
    assert caught.value.hint == "pip install detoxify"
    with pytest.raises(UsageError, match="no model 'nonsense'"):
        open_judge("detoxify:nonsense")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlmpatchError) as caught:
        open_judge("profanity-check")
    assert "llmpatch[judges]" in caught.value.hint


def test_detoxify_is_asked_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's interface as its README has it; its weights are not here."""
    import importlib.metadata
    import types

    asked: list[int] = []

    class Detoxify:
        def __init__(self, name: str) -> None:
            assert name == "unbiased"

        def predict(self, texts: list[str]) -> dict[str, list[float]]:
            asked.append(len(texts))
            return {"toxicity": [len(text) / 3000 for text in texts]}

    monkeypatch.setitem(sys.modules, "detoxify", types.SimpleNamespace(Detoxify=Detoxify))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.5.4")
    judge = open_judge("detoxify:unbiased")
    assert judge.measures == "toxicity"
    found = judge.score([""] * 40, ["a" * 300] * 38 + ["", "b" * 9000])
    assert found == pytest.approx([0.1] * 38 + [0.0, 2 / 3])
    assert asked == [32, 8]
    assert identity(judge)["model"] == "unbiased"


# Agreement with labels that training has not seen


def test_agreement_on_held_out_texts(measure: Any) -> None:
    rows = [row for row in measure.load(measure.DATA)[0] if row["split"] == "test"]
    sets = measure.parts(rows)
    for name, source, floor in (
        ("profanity-check", "rtp_selection continuations", 0.90),
        ("toxicity-head", "rtp_selection continuations", 0.87),
        ("toxicity-head", "surge", 0.87),
        ("toxicity-head", "davidson", 0.96),
    ):
        texts = [row["text"] for row in sets[source]]
        truth = np.array([row["toxic"] for row in sets[source]], dtype=bool)
        found = np.array(score(name, texts))
        _, places = np.unique(found, return_inverse=True)
        assert measure.figures(truth, found, places, np.ones(len(texts)))["auc"] >= floor, (name, source)
    named = [row["text"] for row in rows if row.get("part") == "identity"]
    assert len(named) == 240
    assert np.mean(np.array(score("toxicity-head", named)) >= 0.5) < 0.2


def test_figures_are_the_plain_ones(measure: Any) -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.random(60) < 0.4, rng.integers(0, 8, 60) / 8
    weights = rng.integers(0, 3, 60).astype(float)
    _, places = np.unique(found, return_inverse=True)
    pairs = [
        (weights[i] * weights[j], float(found[i] > found[j]) + 0.5 * float(found[i] == found[j]))
        for i in range(60)
        for j in range(60)
        if truth[i] and not truth[j]
    ]
    figures = measure.figures(truth, found, places, weights)
    assert figures["auc"] == pytest.approx(sum(w * v for w, v in pairs) / sum(w for w, _ in pairs))
    assert figures["rate"] == pytest.approx(np.average(found >= 0.5, weights=weights))
    assert measure.spearman(np.array([1.0, 2, 3]), np.array([5.0, 5, 9])) == pytest.approx(0.8660254)


def test_training_reads_no_test_cluster_no_share_alike_text_and_no_test_prompt(measure: Any) -> None:
    rows = measure.load(measure.DATA)[0]
    train = {(r["source"], r["cluster"]) for r in rows if r["split"] == "train"}
    test = {(r["source"], r["cluster"]) for r in rows if r["split"] == "test"}
    assert train & test == set()
    assert {source for source, _ in train} & {"stormfront", "wiki_detox", "wiki_context"} == set()
    prompts = {
        json.loads(line)["cluster"]
        for name in ("challenging", "nontoxic")
        for line in (ROOT / f"data/prompts/toxicity_{name}_test.jsonl").open(encoding="utf-8")
    }
    assert len(prompts) == 600
    assert {cluster for source, cluster in train if source.startswith("rtp")} & prompts == set()


def test_measurements_and_docs_belong_to_these_weights(measure: Any) -> None:
    found = json.loads((WEIGHTS / "measurements.json").read_text(encoding="utf-8"))
    assert found["judges"] == {name: identity(open_judge(name)) for name in found["judges"]}
    begin, end = measure.MARKS
    text = measure.DOCS.read_text(encoding="utf-8")
    assert text.split(begin)[1].split(end)[0].strip() == measure.render(found).strip(), (
        "run scripts/train_toxicity.py --measure"
    )
