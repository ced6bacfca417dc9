"""A patch is bound to its base: each part that changes the meaning of the vectors is refused by name."""

from __future__ import annotations

import copy

import pytest
import torch

from llmpatch.artifact import describe_base, input_norm_p999, write_patch
from llmpatch.bases import Base
from llmpatch.errors import WrongBaseError
from patchkit import EVIDENCE, embeddings, fields
from tinymodels import make_tiny, make_tokenizer


@pytest.fixture(scope="module")
def patch(tmp_path_factory):
    return make_patch(tmp_path_factory.mktemp("binding") / "p")


def make_patch(folder, tested_on=(), **changes):
    base = make_tiny()
    section = describe_base(base, tested_on=tested_on)
    return write_patch(folder, fields(base=section, **changes), embeddings(), EVIDENCE, base_p999=input_norm_p999(base))


def other_tokenizer(change) -> Base:
    base = make_tiny()
    tokenizer = make_tokenizer()
    change(tokenizer)
    return Base(base.name, base.model, tokenizer)


def bit_flipped() -> Base:
    base = make_tiny()
    weight = base.model.get_input_embeddings().weight
    with torch.no_grad():
        weight.view(torch.int32)[7, 3] ^= 1
    return base


PERTURBED = {
    "rope base": (lambda: make_tiny(rope_parameters={"rope_type": "default", "rope_theta": 5e5}), "configuration"),
    "layers": (lambda: make_tiny(num_hidden_layers=3), "configuration"),
    "context": (lambda: make_tiny(max_position_embeddings=256), "configuration"),
    "norm epsilon": (lambda: make_tiny(rms_norm_eps=1e-3), "configuration"),
    "family": (lambda: make_tiny("mistral"), "configuration"),
    "tokenizer, one token more": (lambda: other_tokenizer(lambda t: t.add_tokens(["<new>"])), "tokenizer"),
    "tokenizer, BOS added": (
        lambda: other_tokenizer(lambda t: setattr(t.backend_tokenizer, "normalizer", _lowercase())),
        "tokenizer",
    ),
    "template, one space": (
        lambda: other_tokenizer(lambda t: setattr(t, "chat_template", t.chat_template + " ")),
        "chat template",
    ),
    "template, none": (lambda: other_tokenizer(lambda t: setattr(t, "chat_template", None)), "chat template"),
    "embeddings, one bit": (bit_flipped, "embedding table"),
    "embeddings, another seed": (lambda: make_tiny(seed=1), "embedding table"),
}


def _lowercase():
    from tokenizers.normalizers import Lowercase

    return Lowercase()


def test_the_right_base_is_accepted_without_a_word(patch):
    assert patch.check_base(make_tiny()) == []


@pytest.mark.parametrize("name", PERTURBED)
def test_a_wrong_base_is_refused_and_the_part_is_named(patch, name):
    make, part = PERTURBED[name]
    base = make()
    with pytest.raises(WrongBaseError, match=part) as caught:
        patch.check_base(base)
    assert caught.value.exit_code == 5
    assert "tiny-llama" in caught.value.hint
    (note,) = patch.check_base(base, allow=True)
    assert part in note


def test_another_width_is_refused_even_by_force(patch):
    wide = make_tiny(hidden_size=64, head_dim=16)
    for allow in (False, True):
        with pytest.raises(WrongBaseError, match="hidden size of tiny-llama is 64"):
            patch.check_base(wide, allow=allow)


def test_another_quantisation_is_a_warning_unless_it_was_measured(patch, tmp_path):
    base = copy.copy(bit_flipped())
    base.quantisation = "gguf:Q8_0"
    (note,) = patch.check_base(base)
    assert "gguf:Q8_0" in note
    assert make_patch(tmp_path / "p", tested_on=["gguf:Q8_0"]).check_base(base) == []


def test_an_expired_patch_says_so(tmp_path):
    (note,) = make_patch(tmp_path / "p", expires="2020-01-01T00:00:00Z").check_base(make_tiny())
    assert "expired on 2020-01-01" in note


def test_applying_to_a_wrong_base_is_refused(patch):
    pytest.importorskip("llmpatch.patched")
    with pytest.raises(WrongBaseError):
        patch.apply(make_tiny(seed=1))
    with pytest.warns(UserWarning, match="embedding table"):
        assert patch.apply(make_tiny(seed=1), force=True) is not None
