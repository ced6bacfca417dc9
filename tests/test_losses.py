"""The shared computation equals the plain one, to the gradient."""

from __future__ import annotations

import random
from typing import get_args

import pytest
import torch

from llmpatch import losses
from llmpatch.batching import Example, make_batch
from llmpatch.errors import UsageError
from llmpatch.losses import (
    answer_log_probs,
    attention_masks,
    dpo_loss,
    hidden_states,
    kept_losses,
    kl_to_base,
    per_answer,
)
from llmpatch.neighbours import Arrangement
from llmpatch.step_losses import StepLosses
from llmpatch.training_data import TrainingSet
from llmpatch.training_recipe import KL, DPOSection, StageSection, TrainingSection
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


MIXED = {"num_hidden_layers": 6}  # Gemma 3: five layers with a window, one without


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("gemma3_text", MIXED),
        ("mistral", {}),
        ("gemma2", {}),
        # Windows that end within the answers, within the longest prompt, within head and prefix.
        ("gemma3_text", MIXED | {"sliding_window": 56}),
        ("gemma3_text", MIXED | {"sliding_window": 24}),
        ("gemma3_text", MIXED | {"sliding_window": 8}),
        ("gemma2", {"sliding_window": 12}),
        ("mistral", {"sliding_window": 16}),
        ("mistral", {"sliding_window": 5}),
    ],
)
def test_shared_prefix_prompt_and_head_change_neither_loss_nor_gradient(family, changes):
    base = make_tiny(family, **changes)
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


def test_an_empty_answer_moves_no_other_ones_targets(tiny):
    odd = [EXAMPLES[0], Example("everyday", (30, 31), (50, 51), ()), EXAMPLES[2]]
    batch = make_batch(odd, past=len(HEAD), answer_tokens=16, rejected=True)
    assert len(batch.sources) == len(batch.targets) == len(batch.owner)
    log_probs = answer_log_probs(tiny, hidden_states(tiny, None, HEAD, batch), batch.targets)
    found = per_answer(log_probs, batch.owner, 6, mean=False)
    assert found[3] == 0
    for place, (example, answer) in {4: (odd[2], odd[2].chosen), 5: (odd[2], odd[2].rejected)}.items():
        plain = plain_log_probs(tiny, None, example, answer).gather(1, torch.tensor(answer)[:, None]).sum()
        assert found[place].item() == pytest.approx(plain.item(), rel=1e-4)


def test_layers_that_read_in_chunks_are_refused():
    odd = make_tiny("gemma3_text", **MIXED, sliding_window=12)
    assert set(odd.windows) == {12, None}
    odd.model.config.layer_types[5] = "chunked_attention"
    batch = make_batch(EXAMPLES, past=4, answer_tokens=4, rejected=True)
    with pytest.raises(UsageError, match="layers that read in chunks"):
        attention_masks(odd, batch, [0], max(batch.lengths), 4)


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


def test_neighbours_around_the_rows_change_neither_loss_nor_gradient_of_the_shared_computation():
    """One arrangement for the whole batch: equal to plain forwards behind [before][rows][after], to the gradient."""
    base = make_tiny()

    def some(n, seed):
        return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))

    start, there = some(4, 1), Arrangement((some(3, 2), some(2, 3)), (some(5, 4),))
    shared, plain = (start.clone().requires_grad_() for _ in range(2))
    prefix = there.around(shared)
    batch = make_batch(EXAMPLES, past=len(prefix) + len(HEAD), answer_tokens=16, rejected=True)
    log_probs = answer_log_probs(base, hidden_states(base, prefix, HEAD, batch), batch.targets)
    policy = per_answer(log_probs, batch.owner, 8, mean=False).view(-1, 2)
    dpo_loss(policy, torch.zeros(4, 2), beta=0.1).mean().backward()

    whole = torch.cat([*there.before, plain, *there.after])
    assert len(whole) == 14 == there.tokens + 4
    sums = [
        [plain_log_probs(base, whole, e, a).gather(1, torch.tensor(a)[:, None]).sum() for a in (e.chosen, e.rejected)]
        for e in EXAMPLES
    ]
    expected = torch.stack([torch.stack(pair) for pair in sums])
    dpo_loss(expected, torch.zeros(4, 2), beta=0.1).mean().backward()
    assert torch.allclose(policy, expected, rtol=1e-4, atol=1e-4)
    assert (shared.grad - plain.grad).norm() / plain.grad.norm() < 1e-4
    bare = batch_policy(base, start)
    assert not torch.allclose(policy, bare, atol=1e-2)  # the neighbours are there


def batch_policy(base, rows):
    batch = make_batch(EXAMPLES, past=len(rows) + len(HEAD), answer_tokens=16, rejected=True)
    log_probs = answer_log_probs(base, hidden_states(base, rows, HEAD, batch), batch.targets)
    return per_answer(log_probs, batch.owner, 8, mean=False).view(-1, 2)


def test_one_pass_as_on_a_gpu_equals_short_and_long_rows_apart(tiny, monkeypatch):
    batch = make_batch(EXAMPLES, past=len(HEAD), answer_tokens=16, rejected=True)
    apart = hidden_states(tiny, None, HEAD, batch)
    assert len(losses.split_by_length(batch.lengths)) == 2
    monkeypatch.setattr(losses, "split_by_length", lambda lengths: [list(range(len(lengths)))])
    assert torch.allclose(hidden_states(tiny, None, HEAD, batch), apart, atol=1e-5)


@pytest.mark.parametrize("with_reference", [True, False])
def test_what_is_kept_is_the_kl_of_plain_forwards_to_the_gradient(tiny, with_reference):
    def some(n, seed):
        return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))

    # Two references with examples of their own, behind one run of the trained prefix.
    references = [some(6, 5) if with_reference else None, some(2, 8)]
    shared, plain = (some(4, 6).requires_grad_() for _ in range(2))
    asked = [(references[0], EXAMPLES[:1], "forward"), (references[1], EXAMPLES[1:], "forward")]
    found, hidden, batch = kept_losses(tiny, shared, asked, HEAD, answer_tokens=3)
    (found[0] + 2 * found[1]).backward()
    assert len(hidden) == len(batch.targets) == sum(len(e.chosen[:3]) for e in EXAMPLES)
    parts = [[], []]
    for place, example in enumerate(EXAMPLES):
        answer = example.chosen[:3]
        target = plain_log_probs(tiny, references[place > 0], example, answer).detach()
        mine = plain_log_probs(tiny, plain, example, answer)
        parts[place > 0].append((target.exp() * (target - mine)).sum(-1).mean())
    expected = [torch.stack(part).mean() for part in parts]
    (expected[0] + 2 * expected[1]).backward()
    assert [one.item() for one in found] == pytest.approx([one.item() for one in expected], rel=1e-4)
    assert (shared.grad - plain.grad).norm() / plain.grad.norm() < 1e-3
    with torch.no_grad():
        ways = [
            kept_losses(tiny, shared, [(references[0], EXAMPLES[:1], way)], HEAD, answer_tokens=3)[0][0]
            for way in get_args(KL)
        ]
        theirs, mine = (
            plain_log_probs(tiny, rows, EXAMPLES[0], EXAMPLES[0].chosen[:3]) for rows in (references[0], plain)
        )
        swapped = mine.exp() * (mine - theirs)
    assert ways[1].item() == pytest.approx(swapped.sum(-1).mean().item(), rel=1e-4)
    assert ways[2].item() == pytest.approx((ways[0] + ways[1]).item(), rel=1e-5)
    assert ways[0].item() == pytest.approx(found[0].item(), rel=1e-5)
    same = kept_losses(tiny, some(4, 6), [(some(4, 6), EXAMPLES, "forward")], HEAD, answer_tokens=3)[0]
    assert same[0].item() == pytest.approx(0, abs=1e-6)


def mixed(section):
    """Losses over 42 pairs of all kinds, rows, and a step of both."""
    numbers = random.Random(0)

    def some(low, high):
        return tuple(numbers.randrange(20, 250) for _ in range(numbers.randint(low, high)))

    examples = [
        Example(kind, some(2, 9), some(2, 5), some(2, 5)) for kind in ["harmful", "borderline", "everyday"] * 14
    ]
    losses = StepLosses(make_tiny(), TrainingSet(HEAD, examples), section, seed=0)
    return losses, torch.randn(5, 32, generator=torch.Generator().manual_seed(4)), [40, 3, 17, 8, 25, 30]


def plain_kl(base, rows, example, answer):
    patched, plain = (plain_log_probs(base, r, example, answer) for r in (rows, None))
    return (plain.exp() * (plain - patched)).sum(-1).mean()


@pytest.mark.parametrize("asked", [1, 0])
def test_the_kl_of_a_mixed_batch_is_that_of_plain_forwards(asked):
    """Base states are made in groups, by length, and handed back one by one; also of what no step would ask for."""
    stage = StageSection(steps=asked, learning_rate=0.1, answer_tokens=4, batch_size=6)
    section = TrainingSection(
        sft=stage, dpo=DPOSection(steps=0, learning_rate=0.1), kl_weight=2.0, benign_nll_weight=0.5
    )
    losses, rows, indices = mixed(section)
    with torch.no_grad():
        loss, _ = losses.sft_loss(rows, indices, stage)
        wanted = 0.0
        for example in (losses.data.examples[i] for i in indices):
            answer = example.chosen[:4]
            said = plain_log_probs(losses.base, rows, example, answer)
            nll = -said.gather(1, torch.tensor(answer)[:, None]).mean()
            benign = 0.5 * nll + 2.0 * plain_kl(losses.base, rows, example, answer)
            wanted += nll if example.kind == "harmful" else benign
    assert loss.item() == pytest.approx(wanted.item() / len(indices), rel=1e-4)


def test_dpo_adds_the_kl_of_benign_answers_and_no_likelihood_of_theirs():
    """``benign_nll_weight`` is of SFT alone, as docs/recipes.md says: published DPO runs were trained so."""
    dpo = DPOSection(steps=3, learning_rate=0.1, answer_tokens=4, batch_size=6, reference="none")
    section = TrainingSection(
        sft=StageSection(steps=0, learning_rate=0.1), dpo=dpo, kl_weight=2.0, benign_nll_weight=0.5
    )
    losses, rows, indices = mixed(section)
    losses._pair_reference.update((i, torch.zeros(2)) for i in indices)
    with torch.no_grad():
        loss, _ = losses.dpo_loss(rows, indices, dpo)
        wanted = 0.0
        for example in (losses.data.examples[i] for i in indices):
            sums = [
                plain_log_probs(losses.base, rows, example, a).gather(1, torch.tensor(a)[:, None]).sum()
                for a in (example.chosen[:4], example.rejected[:4])
            ]
            wanted += -torch.nn.functional.logsigmoid(0.1 * (sums[0] - sums[1]))
            if example.kind != "harmful":
                wanted += 2.0 * plain_kl(losses.base, rows, example, example.chosen[:4])
    assert loss.item() == pytest.approx(wanted.item() / len(indices), rel=1e-4)
