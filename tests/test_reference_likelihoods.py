"""M' as DPO reference: its own form of the prompt, the same text of the answers, cut where training cuts them."""

from __future__ import annotations

import pytest
import torch

from clikit import save
from llmpatch.errors import RecipeError
from llmpatch.losses import pair_log_probs
from llmpatch.pairs import Pair, encode
from llmpatch.progress import Silent
from llmpatch.recipe import override, parse_recipe
from llmpatch.reference_likelihoods import _cut, reference_identity, reference_likelihoods
from llmpatch.training import train
from test_recipe import MINIMAL
from tinymodels import make_spaced_tokenizer, make_tiny

PAIRS = [
    Pair(
        f"p{i}", "harmful", f"How do I do {what}?", "I can't help with that.", "Sure, " + "first " * (3 + 3 * i), True, False,
        1, 0, f"c{i}",
    )
    for i, what in enumerate(("this", "another thing", "that"))
]  # fmt: skip


def recipe_of(folder, **changes):
    told = {"training.dpo.reference": "reference", "training.dpo.answer_tokens": "40", **changes}
    reference = {"kind": "transformers", "model": str(folder)}
    return override(parse_recipe({**MINIMAL, "reference": reference}), [f"{k}={v}" for k, v in told.items()])


def test_the_base_as_its_own_reference_gives_what_the_base_gives(tmp_path):
    base = make_tiny()
    recipe = recipe_of(save(tmp_path / "m", base))
    data = encode(base, PAIRS)
    found = reference_likelihoods(recipe, base, PAIRS, data, Silent())(data.examples[1:])
    whole = pair_log_probs(base, None, data.head, data.examples, answer_tokens=40)
    assert torch.allclose(found, whole[1:], rtol=1e-5)
    assert found.shape == (2, 2)
    assert (found < 0).all()


def test_answers_are_cut_and_a_system_message_is_read(tmp_path):
    base = make_tiny()
    folder, data = save(tmp_path / "m", base), encode(base, PAIRS)
    whole = reference_likelihoods(recipe_of(folder), base, PAIRS, data, Silent())(data.examples)
    cut = recipe_of(folder, **{"training.dpo.answer_tokens": "3"})
    short = reference_likelihoods(cut, base, PAIRS, data, Silent())(data.examples)
    assert (short > whole).all()  # fewer tokens to find
    assert torch.allclose(short, pair_log_probs(base, None, data.head, data.examples, answer_tokens=3), rtol=1e-5)
    told = recipe_of(folder, **{"reference.system": "Be careful."})
    assert not torch.allclose(reference_likelihoods(told, base, PAIRS, data, Silent())(data.examples), whole)


def test_dpo_learns_against_it(tmp_path):
    base = make_tiny()
    recipe = recipe_of(save(tmp_path / "m", make_tiny(seed=1)))
    data, short = encode(base, PAIRS), recipe.training.sft.model_copy(update={"steps": 1, "batch_size": 2})
    section = recipe.training.model_copy(
        update={"sft": short, "dpo": recipe.training.dpo.model_copy(update={"steps": 2, "batch_size": 2})}
    )
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    log_probs = reference_likelihoods(recipe, base, PAIRS, data, Silent())
    result = train(base, data, rows, section, seed=0, reference_log_probs=log_probs)
    assert [h["stage"] for h in result.history] == ["SFT", "DPO", "DPO"]
    assert not torch.equal(result.rows, rows)
    assert (
        reference_likelihoods(
            recipe_of(tmp_path / "m", **{"training.dpo.reference": "sft"}), base, PAIRS, data, Silent()
        )
        is None
    )


@pytest.mark.parametrize(
    "changes",
    [{"reference": {"kind": "recorded", "path": "r.jsonl"}}, {"joint": ["other.yaml"]}],
)
def test_a_reference_without_likelihoods_is_refused_in_the_recipe(changes):
    told = {**MINIMAL, "reference": {"kind": "transformers", "model": "m"}, **changes}
    dpo = {"steps": 1, "learning_rate": 0.1, "reference": "reference"}
    with pytest.raises(RecipeError, match=r"needs reference\.kind transformers"):
        parse_recipe({**told, "training": {"dpo": dpo}})


def test_a_continuation_is_cut_with_its_space():
    base = make_tiny()
    base.tokenizer = make_spaced_tokenizer()
    pair = Pair("1", "harmful", "He is a", " fool", ", and", True, True, 1.0, 0.0, "1", "raw")
    (example,) = encode(base, [pair]).examples
    cut = _cut(base, pair, example, 4)
    assert (cut.chosen, cut.rejected) == (" foo", ", an")
    assert (cut.chosen_ends, cut.rejected_ends) == (False, False)


def test_its_identity_is_of_files_texts_and_settings(tmp_path):
    base = make_tiny()
    folder = save(tmp_path / "m", base)
    other = save(tmp_path / "other", make_tiny(seed=1))
    one = reference_identity(recipe_of(folder), base, PAIRS)
    assert one == reference_identity(recipe_of(folder), base, PAIRS) != ""
    found = {
        one,
        reference_identity(recipe_of(other), base, PAIRS),
        reference_identity(recipe_of(folder), base, PAIRS[:2]),
        reference_identity(recipe_of(folder, **{"reference.system": "Be careful."}), base, PAIRS),
        reference_identity(recipe_of(folder, **{"training.dpo.answer_tokens": "3"}), base, PAIRS),
        reference_identity(recipe_of("some/model", **{"reference.revision": "a" * 40}), base, PAIRS),
    }
    assert len(found) == 6
    assert reference_identity(recipe_of("some/model"), base, PAIRS) == ""  # tomorrow it may be another
    assert reference_identity(recipe_of(folder, **{"training.dpo.reference": "sft"}), base, PAIRS) == ""
