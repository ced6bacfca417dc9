"""What each process of a distributed test does: three steps of one stage with every loss on, in float64."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch

from llmpatch.checkpoints import State
from llmpatch.distributed import Split
from llmpatch.training import Trainer
from llmpatch.word_losses import Avoid, Balance
from test_neighbours import kept, neighbours, rows
from test_training import make_data, settings, start
from tinymodels import make_tiny


def _norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return module.weight * hidden * scale


def step_of(stage: str, split: Split) -> dict[str, Any]:
    """The first step's gradient, all losses, the last rows and what validation said."""
    base = make_tiny()
    base.model.double()
    for module in base.model.modules():
        if type(module).__name__ == "LlamaRMSNorm":  # goes through float32 whatever the model is in
            module.forward = partial(_norm, module)
    section = settings(
        sft=3 if stage == "sft" else 0, dpo=3 if stage == "dpo" else 0, kl_weight=0.7, clip=1e9, validate_every=1,
        dpo_changes={"sft_weight": 0.3},
    ).model_copy(update={"checkpoint_every": 1})  # fmt: skip
    balanced = dataclasses.replace(kept(), balance=Balance(3.0, (5, 6), (7, 8)), balanced=frozenset({0, 1, 3}))
    company = neighbours(tuple(part.double() for part in (rows(2, 11), rows(3, 12))))
    trainer = Trainer(
        base, make_data(), section, seed=0, balance=Balance(2.0, (5,), (7,)), avoid=Avoid(2.0, (6, 9)),
        neighbours=company, kept=[balanced], split=split, validate=lambda _: {"score": 0.5 + split.rank},
    )  # fmt: skip
    split.shard(base)
    begin = start().double()
    zeros = begin.new_zeros(begin.shape)
    first = []
    result = trainer.run(
        State(begin.clone(), zeros.clone(), zeros.clone(), begin.clone(), begin.clone()),
        lambda state: first.append((state.first / 0.1).tolist()),
    )
    steps = [row for row in result.history if "loss" in row]
    return {
        "gradient": next(found for found in first if any(any(row) for row in found)),
        "losses": [row["loss"] for row in steps],
        "rows": result.rows.tolist(),
        "scores": [row["validation"]["score"] for row in result.history if "validation" in row],
        "sharded": base.sharded,
    }
