"""Baselines a patch must not lie below, trained on the same examples with the same losses.

    tuned = train_lora(base, data, LoraSettings(steps=300), kl_weight=1.0, mix=MixSection(), seed=0)

Needs PEFT (the extra ``peers``). The base itself is not changed: the adapter lives in a copy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from llmpatch.bases import Base
from llmpatch.batching import choose, make_batch, shares
from llmpatch.errors import UsageError
from llmpatch.losses import answer_log_probs, hidden_states, kl_to_base, per_answer
from llmpatch.progress import Progress, Silent
from llmpatch.recipe import MixSection
from llmpatch.training import TrainingSet

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA run (Hu et al. 2021). ``alpha`` is twice the rank, as is usual."""

    rank: int = 16
    steps: int = 300
    learning_rate: float = 5e-4
    batch_size: int = 16
    answer_tokens: int = 14
    warmup: int = 10
    clip: float = 1.0


def train_lora(
    base: Base,
    data: TrainingSet,
    settings: LoraSettings,
    *,
    kl_weight: float,
    mix: MixSection,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Base, int]:
    """Train LoRA on all seven projections: likelihood of refusals where harmful, KL to the base where benign.

    Args:
        base: The frozen model.
        data: The same examples as the patch's.
        settings: Rank and optimiser.
        kl_weight: Weight of KL(base || tuned) per token on benign answers.
        mix: Shares of each batch by kind.
        seed: Decides batches and adapter init.
        progress: Where to show progress.

    Returns:
        The base with the adapter merged, and the adapter's number of parameters.

    Raises:
        UsageError: PEFT is not installed.
    """
    import torch

    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UsageError("the LoRA baseline needs PEFT", hint='pip install "llmpatch[peers]"') from None
    torch.manual_seed(seed)
    config = LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM"
    )
    wrapped = get_peft_model(copy.deepcopy(base.model), config)
    tuned = replace(base, name=f"{base.name}+LoRA r{settings.rank}", model=wrapped.get_base_model())
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    counts = shares(mix, settings.batch_size, sorted({e.kind for e in data.examples}))
    with (progress or Silent()).stage(f"LoRA r{settings.rank}", settings.steps) as advance:
        for step in range(settings.steps):
            rate = settings.learning_rate * min(1.0, (step + 1) / settings.warmup) * (1 - step / settings.steps)
            optimizer.param_groups[0]["lr"] = rate
            indices = choose(data.examples, counts, seed=seed, step=step)
            loss = _loss(base, tuned, data, indices, settings.answer_tokens, kl_weight)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, settings.clip)
            optimizer.step()
            advance(1, note=f"loss {float(loss.detach()):.3f}")
    merged: Any = wrapped.merge_and_unload()
    merged.eval().requires_grad_(False)
    return replace(tuned, model=merged), sum(w.numel() for w in weights)


def _loss(base: Base, tuned: Base, data: TrainingSet, indices: list[int], cut: int, kl_weight: float) -> Any:
    """The patch's SFT loss, with the adapter in the prefix's place."""
    import torch

    batch = make_batch([data.examples[i] for i in indices], past=len(data.head), answer_tokens=cut, rejected=False)
    hidden = hidden_states(tuned, None, data.head, batch)
    nll = -per_answer(answer_log_probs(tuned, hidden, batch.targets), batch.owner, 2 * batch.rows, mean=True)[::2]
    with torch.no_grad():
        target = hidden_states(base, None, data.head, batch)
    kl = per_answer(kl_to_base(tuned, hidden, target), batch.owner, 2 * batch.rows, mean=True)[::2]
    harmful = torch.tensor([kind == "harmful" for kind in batch.kinds])
    return (nll[harmful].sum() + kl_weight * kl[~harmful].sum()) / batch.rows
