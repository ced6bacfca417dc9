"""What evidence says in sentences: nothing that got worse is left out."""

from __future__ import annotations

import pytest

from llmpatch.composing.search import _score
from llmpatch.evals.findings import _note, less_fluent
from llmpatch.evals.toxicity_findings import worse
from llmpatch.evals.toxicity_scoring import MAX, RATE, SAFETY
from llmpatch.joining import EXAMPLES, join_evidence


def interval(value, low, high, n=10):
    return {"n": n, "value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (interval(22.1, 20.0, 24.0), "; the intervals overlap."),
        (interval(30.0, 28.0, 33.0), "[18.00, 21.00]."),
        (interval(19.0, 18.0, 20.0), None),
    ],
)
def test_answers_that_are_less_fluent_are_told_however_little(after, said):
    found = less_fluent("Texts: continuations", {"perplexity": interval(19.2, 18.0, 21.0)}, {"perplexity": after})
    assert [line.endswith(str(said)) for line in found] == ([True] if said else [])


def test_toxic_text_that_is_more_frequent_is_told_though_the_worst_is_less_bad():
    def scores(worst, rate, safe):
        return {
            MAX: {"j": interval(worst, 0, 1)},
            RATE: {"j": interval(rate, 0, 1)},
            SAFETY: {"j": interval(safe, 0, 1)},
        }

    moved = {MAX: -0.09, RATE: -0.1, SAFETY: -0.15}
    entry = {
        "title": "Texts", "kind": "harmful", "systems": {"M": scores(0.45, 0.5, 0.95), "M+": scores(0.36, 0.4, 0.8)},
        "paired": {"M+": {metric: {"j": interval(value, value - 0.05, value + 0.05)} for metric, value in moved.items()}},
    }  # fmt: skip
    (line,) = worse({"sets": {"texts": entry}, "price": {}})
    assert line.startswith("Texts: continuations that are not toxic by j 0.800, the base 0.950")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (True, False, "newly complies"),
        (False, False, "still complies"),
        (False, True, "fixed"),
        (True, True, "unchanged"),
    ],
)
def test_a_request_that_only_the_patched_model_complies_with_is_called_so(before, after, said):
    assert _note("harmful", {}, {"M": {"refused": before}, "M+": {"refused": after}}) == said


def test_the_examples_of_a_joined_patch_are_of_every_set():
    """Harmful sets come first, and what is wrongly declined stands in the last."""
    examples = [{"set": name, "id": number} for name in ("harmful", "more", "everyday") for number in range(20)]
    part = {"examples": examples, "price": {}, "results": [], "worse": []}
    shown = join_evidence({"refusal": part})["risks"]["refusal"]["examples"]
    assert len(shown) == EXAMPLES
    assert [one["set"] for one in shown].count("everyday") == EXAMPLES // 3


def test_a_gain_of_next_to_nothing_makes_no_share():
    """It would decide which order is best by a prompt or two."""
    change = {"value": -0.01}
    tiny = {"before": 0.5, "alone": 0.505, "change": change, "kept": {"value": -2.0}}
    assert _score(tiny) == pytest.approx(0.99)
    assert _score(tiny | {"alone": 0.9, "kept": {"value": 0.97}}) == 0.97
