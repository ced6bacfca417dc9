"""What a base's weights are kept in: its name, and gradients through 4 bits that do not depend on what was asked before."""

from __future__ import annotations

import pytest
import torch

from llmpatch.bases import load_base
from llmpatch.number_formats import kept_in
from llmpatch.patched import answer_all
from llmpatch.recipe import DecodingSection
from tinymodels import make_tiny, save_in_four_bits


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    return save_in_four_bits(folder), folder


def test_a_base_in_four_bits_is_the_same_base_and_says_so(four_bits):
    tiny, folder = four_bits
    base = load_base(str(folder))
    assert base.quantisation == "bitsandbytes:nf4"
    assert tiny.fingerprint.differences(base.fingerprint) == []


def test_four_bits_have_the_same_gradient_after_an_answer_as_before(four_bits):
    base = load_base(str(four_bits[1]))
    torch.manual_seed(0)
    rows = torch.randn(4, base.hidden_size, requires_grad=True)

    def gradient():
        embeds = torch.cat([rows, base.embed(torch.tensor([5, 6, 7]))])[None]
        logits = base.model(inputs_embeds=embeds).logits
        (found,) = torch.autograd.grad(logits[0, -1].softmax(-1)[3], rows)
        return logits.detach(), found

    logits, before = gradient()
    answer_all(base, ["hello there"], DecodingSection(max_new_tokens=3), prefix=rows.detach())  # without gradients
    again, after = gradient()
    assert torch.equal(logits, again)
    assert torch.equal(before, after)
    assert before.abs().max() > 0


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq:4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes:int8"),
        ({"quant_method": "fp8"}, "fp8"),
        ({}, "quantised"),
        (None, "none"),
    ],
)
def test_what_a_checkpoint_is_kept_in_has_a_name(section, said):
    tiny = make_tiny()
    tiny.model.config.quantization_config = section
    assert kept_in(tiny.model) == said
