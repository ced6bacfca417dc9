"""The shared computation equals the plain one, to the gradient."""

from __future__ import annotations

import pytest
import torch

from llmpatch.batching import Example, make_batch
from llmpatch.losses import answer_log_probs, dpo_loss, hidden_states, kl_to_base, per_answer
from tinymodels import make_tiny

HEAD = [1, 5, 9, 12]
EXAMPLES = [
    Example("harmful", (20, 21, 22), (40, 41, 42, 2), (60, 61, 62, 63, 64)),
    Example("everyday", (30, 31, 32, 33, 34, 35), (50, 51), (70, 71, 72, 2)),
    Example("borderline", (25,), (55, 56, 57), (75, 2)),
    Example("harmful", tuple(range(80, 130)), (90, 91), (92, 93, 2)),
]


def plain_log_probs(base, rows, example, answer):
    """Log-probabilities of one answer by one unshared forward over [prefix][head][prompt][answer]."""
    ids = torch.tensor([*HEAD, *example.prompt, *answer])
    embeds = base.embed(ids)[None]
    if rows is not None:
        embeds = torch.cat([rows[None], embeds], 1)
    logits = base.model(inputs_embeds=embeds).logits[0, -len(answer) - 1 : -1].float()
    return logits.log_softmax(-1)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "mistral", "gemma2"])
def test_shared_prefix_prompt_and_head_change_neither_loss_nor_gradient(family):
    base = make_tiny(family)
    start = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))

    shared = start.clone().requires_grad_()
    batch = make_batch(EXAMPLES, past=6 + len(HEAD), answer_tokens=16, rejected=True)
    log_probs = answer_log_probs(base, hidden_states(base, shared, HEAD, batch), batch.targets)
    policy = per_answer(log_probs, batch.owner, 8, mean=False).view(-1, 2)
    loss = dpo_loss(policy, torch.zeros(4, 2), beta=0.1).mean()
    loss.backward()

    plain = start.clone().requires_grad_()
    sums = [
        torch.stack(
            [
                plain_log_probs(base, plain, e, a).gather(1, torch.tensor(a)[:, None]).sum()
                for a in (e.chosen, e.rejected)
            ]
        )
        for e in EXAMPLES
    ]
    expected = dpo_loss(torch.stack(sums), torch.zeros(4, 2), beta=0.1).mean()
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(policy, torch.stack(sums), rtol=1e-4, atol=1e-4)
    assert (shared.grad - plain.grad).norm() / plain.grad.norm() < 1e-4


def test_kl_from_cached_hidden_states_equals_kl_of_full_distributions(tiny):
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    example = EXAMPLES[1]
    ours = make_batch([example], past=5 + len(HEAD), answer_tokens=16, rejected=False)
    bare = make_batch([example], past=len(HEAD), answer_tokens=16, rejected=False)
    kl = kl_to_base(tiny, hidden_states(tiny, rows, HEAD, ours), hidden_states(tiny, None, HEAD, bare))

    patched, base = (
        plain_log_probs(tiny, rows, example, example.chosen),
        plain_log_probs(tiny, None, example, example.chosen),
    )
    expected = (base.exp() * (base - patched)).sum(-1)
    assert torch.allclose(kl, expected, rtol=1e-4, atol=1e-5)
    assert kl.min() > 0


def test_cut_answers_and_a_batch_without_head():
    base = make_tiny()
    batch = make_batch(EXAMPLES, past=0, answer_tokens=2, rejected=True)
    assert batch.targets.tolist() == [40, 41, 60, 61, 50, 51, 70, 71, 55, 56, 75, 2, 90, 91, 92, 93]
    found = answer_log_probs(base, hidden_states(base, None, [], batch), batch.targets)
    ids = torch.tensor([[20, 21, 22, 60, 61]])
    expected = base.model(input_ids=ids).logits[0, 2:4].log_softmax(-1).gather(1, torch.tensor([[60], [61]]))[:, 0]
    assert torch.allclose(found[2:4], expected, atol=1e-4)
