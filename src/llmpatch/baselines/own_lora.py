"""LoRA with the patch's own losses, batches and schedule, so that only the place of the weights differs.

    tuned, parameters, seconds = train_lora(base, data, LoraSettings(), recipe.training, seed=0)

Needs PEFT (the extra ``peers``). The base itself is not changed: the adapter lives in a copy.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from llmpatch.baselines.kept import load_stage, save_stage
from llmpatch.bases import Base
from llmpatch.batching import Batch
from llmpatch.errors import UsageError
from llmpatch.files import digest_json
from llmpatch.heap import keep_pages
from llmpatch.losses import hidden_states
from llmpatch.progress import Progress, Silent
from llmpatch.training import Trainer, settings_of
from llmpatch.training_data import TrainingSet

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from llmpatch.prefix import Rows
    from llmpatch.training_recipe import TrainingSection

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class LoraSettings:
    """What LoRA (Hu et al. 2021) needs beside the recipe. ``alpha`` is twice the rank, as is usual."""

    rank: int = 16
    learning_rate: float = 5e-4


class _LoraTrainer(Trainer):
    """The patch's losses, with an adapter in the prefix's place."""

    tuned: Base

    def policy(self, rows: Rows, batch: Batch) -> torch.Tensor:  # noqa: ARG002
        """Hidden states of the adapted model; there are no rows."""
        return hidden_states(self.tuned, None, self.data.head, batch)


def train_lora(
    base: Base,
    data: TrainingSet,
    settings: LoraSettings,
    section: TrainingSection,
    *,
    seed: int,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Base, int, float]:
    """Train LoRA on all seven projections: the recipe's SFT and DPO steps, batches, losses and schedule.

    Args:
        base: The frozen model.
        data: The same examples as the patch's.
        settings: Rank and learning rate.
        section: The recipe's training; its learning rates only set the ratio of DPO's to SFT's.
        seed: Decides batches and adapter init.
        keep: File of the trained adapter; one of the same data and settings is not trained again.
        progress: Where to show progress.

    Returns:
        The base with the adapter merged, the adapter's number of parameters, and the seconds that training took.

    Raises:
        IntegrityError: the kept adapter is damaged.
        UsageError: PEFT is not installed, or DPO's reference is neither ``base`` nor ``none``.
    """
    import torch

    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UsageError("the LoRA baseline needs PEFT", hint='pip install "llmpatch[peers]"') from None
    if section.dpo.steps and section.dpo.reference not in ("base", "none"):
        raise UsageError(f"LoRA cannot take {section.dpo.reference!r} as DPO reference", hint="use base or none")
    if base.device.type == "cpu":
        keep_pages()
    torch.manual_seed(seed)
    config = LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM"
    )
    wrapped = get_peft_model(copy.deepcopy(base.model), config)
    trainer = _LoraTrainer(base, data, section, seed=seed)
    trainer.tuned = replace(base, name=f"{base.name}+LoRA r{settings.rank}", model=wrapped.get_base_model())
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    about = digest_json([asdict(settings), asdict(base.fingerprint), data.digest(), settings_of(section), seed])
    found = load_stage(keep, about, wrapped) if keep else None
    if found is None:
        began = time.perf_counter()
        _optimise(trainer, weights, settings.learning_rate, progress or Silent())
        found = {"seconds": round(time.perf_counter() - began, 1)}
        if keep:
            save_stage(keep, about, wrapped, found)
    merged: Any = wrapped.merge_and_unload()
    merged.eval().requires_grad_(False)
    return replace(trainer.tuned, model=merged), sum(w.numel() for w in weights), float(found["seconds"])


def _optimise(trainer: _LoraTrainer, weights: list[Any], learning_rate: float, progress: Progress) -> None:
    """Both stages, each with a fresh AdamW and a linear decay to zero, as the patch has them."""
    import torch

    section = trainer.section
    nothing = torch.empty(0, trainer.base.hidden_size)
    for offset, stage in enumerate((section.sft, section.dpo)):
        if offset and stage.steps:
            trainer.prepare_reference(nothing, section.dpo)
        top = learning_rate * stage.learning_rate / section.sft.learning_rate
        optimizer = torch.optim.AdamW(weights, lr=top, weight_decay=section.weight_decay)
        with progress.stage(f"LoRA {('SFT', 'DPO')[offset]}", stage.steps) as advance:
            for step in range(stage.steps):
                rate = top * min(1.0, (step + 1) / max(1, section.warmup)) * (1 - step / stage.steps)
                optimizer.param_groups[0]["lr"] = rate
                indices = trainer.indices(stage, step, offset)
                if offset:
                    loss, _ = trainer.dpo_loss(nothing, indices, section.dpo)
                else:
                    loss, _ = trainer.sft_loss(nothing, indices, stage)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(weights, section.clip)
                optimizer.step()
                advance(1, note=f"loss {float(loss.detach()):.3f}")
