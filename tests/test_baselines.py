"""LoRA on the same examples: it learns, it merges, and the base stays as it was."""

from __future__ import annotations

import pytest
import torch

from llmpatch.baselines import LoraSettings, train_lora
from llmpatch.errors import UsageError
from llmpatch.training import Trainer
from test_training import HEAD, make_data, settings
from tinymodels import make_tiny


def losses(base, tuned, section):
    """The patch's own losses of a model without a prefix, on all examples."""
    data = make_data()
    trainer = Trainer(base, data, section, seed=0)
    trainer.policy = lambda rows, batch: hidden(tuned, batch)
    trainer._pair_reference = {i: torch.zeros(2) for i in range(len(data.examples))}
    everything = list(range(len(data.examples)))
    nothing = torch.empty(0, base.hidden_size)
    with torch.no_grad():
        return (
            float(trainer.sft_loss(nothing, everything, section.sft)[0]),
            float(trainer.dpo_loss(nothing, everything, section.dpo)[0]),
        )


def hidden(tuned, batch):
    from llmpatch.losses import hidden_states

    return hidden_states(tuned, None, HEAD, batch)


def test_lora_lowers_the_patchs_losses_and_leaves_the_base_alone():
    base = make_tiny()
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    section = settings(sft=20, dpo=20, dpo_changes={"reference": "none"})
    tuned, parameters = train_lora(base, make_data(), LoraSettings(rank=4, learning_rate=0.02), section, seed=0)
    was, now = losses(base, base, section), losses(base, tuned, section)
    assert now[0] < 0.95 * was[0]
    assert now[1] < 0.8 * was[1]
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
    # rank 4 on the seven projections of two layers of width 32, 64 inside, 16 for keys and values
    assert parameters == 2 * 4 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 64) * 3)
    assert tuned.chat_ids("Hi")[: len(HEAD)] == base.chat_ids("Hi")[: len(HEAD)]
    assert set(tuned.model.state_dict()) == set(before)


def test_lora_cannot_start_dpo_from_a_patch():
    with pytest.raises(UsageError, match="cannot take 'sft' as DPO reference"):
        train_lora(make_tiny(), make_data(), LoraSettings(), settings(dpo_changes={"reference": "sft"}), seed=0)
