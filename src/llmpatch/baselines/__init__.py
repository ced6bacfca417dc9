"""Baselines a patch must not lie below, trained on the same pairs with the same optimiser budget.

    tuned, parameters, seconds = train_lora(base, data, LoraSettings(), recipe.training, seed=0)      # our losses
    tuned = train_peer(base, data, Lora(rank=16), recipe.training, seed=0, folder=run / "lora")    # TRL's
    tuned.base, tuned.cost.flops

Each is a :class:`~llmpatch.bases.Base` again, so that every eval takes it as it takes any other model; the given base stays
as it was. LoRA and prefix-tuning need PEFT and TRL (the extra ``peers``). Knows token ids; nothing about prompts or judges.
"""

from __future__ import annotations

from llmpatch.baselines.counting import Cost, flops_of, patch_flops
from llmpatch.baselines.key_values import behind_key_values
from llmpatch.baselines.own_lora import LoraSettings, train_lora
from llmpatch.baselines.peers import Lora, Peer, PrefixTuning, merge, train_peer
from llmpatch.baselines.steering import Direction, find_direction, mean_differences, steer

__all__ = [
    "Cost",
    "Direction",
    "Lora",
    "LoraSettings",
    "Peer",
    "PrefixTuning",
    "behind_key_values",
    "find_direction",
    "flops_of",
    "mean_differences",
    "merge",
    "patch_flops",
    "steer",
    "train_lora",
    "train_peer",
]
