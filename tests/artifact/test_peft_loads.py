"""A patch folder is a PEFT adapter: PEFT loads it and its forward gives the same numbers."""

from __future__ import annotations

import warnings

import pytest
import torch

from llmpatch.artifact import describe_base, input_norm_p999, write_patch
from patchkit import EVIDENCE, embeddings, fields
from tinymodels import make_tiny


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_peft_forward_is_ours(tmp_path, family):
    peft = pytest.importorskip("peft")
    base = make_tiny(family)
    section, p999 = describe_base(base), input_norm_p999(base)
    patch = write_patch(tmp_path / "p", fields(base=section), embeddings(), EVIDENCE, base_p999=p999)
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(3))
    rows = torch.from_numpy(patch.embeddings.copy()).expand(2, -1, -1)
    with torch.no_grad():
        ours = base.model(inputs_embeds=torch.cat([rows, base.embed(ids)], 1)).logits
        bare = base.model(input_ids=ids).logits
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PEFT's own
        model = peft.PeftModel.from_pretrained(base.model, str(tmp_path / "p")).eval()
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert model.peft_config["default"].num_virtual_tokens == 4
    assert (theirs - ours).abs().max() < 1e-5
    assert (ours[:, 4:] - bare).abs().max() > 1e-2  # the virtual tokens do something
