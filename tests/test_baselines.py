"""LoRA on the same examples: it learns, it merges, and the base stays as it was."""

from __future__ import annotations

import torch

from llmpatch.baselines import LoraSettings, _loss, train_lora
from llmpatch.recipe import MixSection
from test_training import HEAD, make_data
from tinymodels import make_tiny


def test_lora_lowers_the_patchs_loss_and_leaves_the_base_alone():
    base, data = make_tiny(), make_data()
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    settings = LoraSettings(rank=4, steps=25, learning_rate=0.02, batch_size=6, answer_tokens=6, warmup=1)
    tuned, parameters = train_lora(base, data, settings, kl_weight=0.1, mix=MixSection(), seed=0)
    everything = list(range(len(data.examples)))
    assert _loss(base, tuned, data, everything, 6, 0.1) < 0.9 * _loss(base, base, data, everything, 6, 0.1)
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
    # rank 4 on the seven projections of two layers of width 32, 64 inside, 16 for keys and values
    assert parameters == 2 * 4 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 64) * 3)
    assert tuned.chat_ids("Hi")[: len(HEAD)] == base.chat_ids("Hi")[: len(HEAD)]
    assert set(tuned.model.state_dict()) == set(before)
