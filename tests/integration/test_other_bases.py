"""Three architectures from GGUF, one of which scales its embeddings: a prefix of their own text changes nothing.

A prefix made of the embeddings of some text must act exactly as that text does. Needs ``llmpatch models pull`` for the
two larger ones, which are skipped where they are not there.
"""

from __future__ import annotations

import pytest
import torch

from llmpatch.bases import load_base
from llmpatch.batching import Example, make_batch
from llmpatch.catalogue import locate
from llmpatch.errors import UsageError
from llmpatch.losses import hidden_states
from llmpatch.prefix import check_head, head_logits


@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2", "qwen2.5-coder-1.5b", "gemma-3-270m"])
def test_a_prefix_of_embedded_text_equals_the_text(name):
    try:
        locate(name)
    except UsageError:
        pytest.skip(f"{name} is not here: llmpatch models pull {name}")
    base = load_base(name)
    check_head(base)
    text = base.text_ids("The weather in Paris is mild in spring, and ")
    rest = base.tokenizer.encode("people sit outside.", add_special_tokens=False)
    rows = base.embed(torch.tensor(text)).float()
    example = Example("everyday", tuple(rest[:2]), tuple(rest[2:]), ())
    batch = make_batch([example], past=len(rows), answer_tokens=16, rejected=False)
    ours = head_logits(base, hidden_states(base, rows, [], batch))
    with torch.no_grad():
        plain = base.model(input_ids=torch.tensor([[*text, *rest]])).logits[0, len(text) + 1 : -1]
    assert torch.allclose(ours, plain, atol=2e-3, rtol=1e-3)
