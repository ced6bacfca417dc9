"""LoRA and prefix-tuning as their users train them: by TRL and PEFT, on the patch's own pairs, steps and batches.

    peer = train_peer(base, data, Lora(rank=16), recipe.training, seed=0, folder=Path("runs/lora-16"))
    peer.base          # unmerged; merge(base, peer) merges a LoRA into a copy
    peer.cost.seconds

TRL gets the token ids that the patch is trained on, cut to the same answers, in the same order: its SFT on all chosen
answers, then its DPO. So a step sees the same rows; what differs is what is trained, and that TRL has no KL to the base (the
base's own answers to benign prompts are learnt instead, as its users would). Each stage is kept in ``folder`` when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.baselines.copies import share
from llmpatch.baselines.counting import SAMPLE, Cost, Watch, flops_of
from llmpatch.baselines.kept import load_stage, save_stage, set_weights, trained_weights
from llmpatch.baselines.key_values import behind_key_values
from llmpatch.baselines.own_lora import PROJECTIONS
from llmpatch.bases import Base
from llmpatch.batching import Example
from llmpatch.errors import UsageError
from llmpatch.files import digest_json
from llmpatch.prefix import prefix_cache
from llmpatch.progress import Progress, Silent
from llmpatch.training import Trainer, settings_of
from llmpatch.training_data import TrainingSet

if TYPE_CHECKING:
    import torch

    from llmpatch.training_recipe import DPOSection, StageSection, TrainingSection

Score = Callable[[Base], float]


@dataclass(frozen=True)
class Lora:
    """LoRA (Hu et al. 2021) on all seven projections. ``alpha`` is twice the rank, as is usual."""

    rank: int = 16
    learning_rate: float = 5e-4


@dataclass(frozen=True, eq=False)
class PrefixTuning:
    """Prefix-tuning (Li and Liang 2021): keys and values in every layer.

    Attributes:
        start: Rows [n, hidden_size] whose own keys and values it starts from: the patch's own start. Random ones wreck a
            model before they teach it anything.
        learning_rate: Of SFT.
    """

    start: torch.Tensor
    learning_rate: float = 3e-3


@dataclass(frozen=True, eq=False)
class Peer:
    """A trained baseline.

    Attributes:
        base: A model to evaluate. It shares the frozen weights of the base it was made from.
        wrapped: PEFT's model around the same weights.
        cost: What it took.
        best_at: The step whose weights were kept.
    """

    base: Base
    wrapped: Any
    cost: Cost
    best_at: str


def train_peer(
    base: Base,
    data: TrainingSet,
    method: Lora | PrefixTuning,
    section: TrainingSection,
    *,
    seed: int,
    folder: Path,
    score: Score | None = None,
    scored_by: str = "",
    progress: Progress | None = None,
) -> Peer:
    """Train a baseline by TRL, or read one that was trained before by the same settings.

    Args:
        base: The frozen model.
        data: The patch's own examples.
        method: What is trained.
        section: Steps, batches, lengths, beta and clip are taken over; learning rates only as their ratio.
        seed: Decides the same batches as the patch's, and the adapter's init.
        folder: Where each stage is kept.
        score: Of a tuned base on validation prompts: the best of each ``validate_every`` steps is kept, as with the patch.
        scored_by: What the scores depend on, as :func:`llmpatch.validation.validated_by` digests it.
        progress: Where to show progress.

    Raises:
        UsageError: PEFT or TRL is not installed, or DPO's reference is ``M'``, whose likelihoods TRL cannot take from here.
        IntegrityError: a kept stage is damaged.
    """
    _check(section)
    wrapped = _wrap(base, method, seed)
    about = _about(base, data, method, section, seed, scored_by=f"scored by {scored_by}" if score else "")
    spent: list[dict[str, Any]] = []
    for offset, stage in enumerate((section.sft, section.dpo)):
        path = folder / f"{('sft', 'dpo')[offset]}.safetensors"
        found = load_stage(path, about, wrapped)
        if found is None:
            trial = _Trial(base, data, method, wrapped, section, seed, score, progress or Silent())
            if spent and spent[-1]["score"] is not None:
                trial.keep(spent[-1]["score"], spent[-1]["best_at"])
            found = trial.run(offset, stage)
            save_stage(path, about, wrapped, found)
        spent.append(found)
    cost = Cost(
        sum(weight.numel() for weight in trained_weights(wrapped).values()),
        (section.sft.steps, section.dpo.steps),
        sum(part["seconds"] for part in spent),
        sum(part["flops"] for part in spent),
        SAMPLE,
    )
    return Peer(_as_base(base, method, wrapped), wrapped, cost, spent[-1]["best_at"])


def merge(base: Base, peer: Peer, *, name: str) -> Base:
    """A LoRA merged into a copy of all weights, which costs nothing more at inference."""
    import copy

    merged = copy.deepcopy(peer.wrapped).merge_and_unload()
    merged.eval().requires_grad_(False)
    return replace(base, name=name, model=merged)


def _check(section: TrainingSection) -> None:
    try:
        import peft
        import trl
    except ImportError:
        raise UsageError("this baseline needs PEFT and TRL", hint='pip install "llmpatch[peers]"') from None
    del peft, trl
    if section.dpo.steps and section.dpo.reference == "reference":
        raise UsageError("this baseline cannot take M' as DPO reference", hint="use sft, base or none")


def _about(
    base: Base, data: TrainingSet, method: Lora | PrefixTuning, section: TrainingSection, seed: int, *, scored_by: str
) -> str:
    """The digest of all that the weights depend on."""
    import peft
    import trl

    told: dict[str, Any] = {"rate": method.learning_rate}
    told |= {"rank": method.rank} if isinstance(method, Lora) else {"start": method.start.double().sum(1).tolist()}
    return digest_json([
        type(method).__name__, told, asdict(base.fingerprint), data.digest(), settings_of(section), seed, scored_by,
        peft.__version__, trl.__version__,
    ])  # fmt: skip


def _wrap(base: Base, method: Lora | PrefixTuning, seed: int) -> Any:
    """PEFT's model around the shared weights."""
    import torch
    from peft import LoraConfig, PrefixTuningConfig, get_peft_model

    torch.manual_seed(seed)
    model = share(base.model)
    if isinstance(method, Lora):
        settings = LoraConfig(
            r=method.rank, lora_alpha=2 * method.rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM"
        )
        return get_peft_model(model, settings)
    wrapped = get_peft_model(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(method.start)))
    with torch.no_grad():
        layers = prefix_cache(base, method.start, []).layers
    # PEFT keeps one row per virtual token: keys and values of every layer in turn, each of all heads.
    parts = [
        part[0].transpose(0, 1).reshape(len(method.start), -1) for each in layers for part in (each.keys, each.values)
    ]
    wrapped.prompt_encoder["default"].load_prompt_embeddings(torch.cat(parts, 1))
    return wrapped


def _as_base(base: Base, method: Lora | PrefixTuning, wrapped: Any) -> Base:
    """The trained model as the evals know one."""
    if isinstance(method, Lora):
        return replace(base, name=f"{base.name}+LoRA r{method.rank}", model=wrapped.get_base_model())
    rows = wrapped.prompt_encoder["default"].embedding.weight.detach()
    config = wrapped.peft_config["default"]
    heads = config.num_attention_heads
    whole = rows.view(len(rows), config.num_layers, 2, heads, -1).permute(
        1, 2, 3, 0, 4
    )  # [layers, 2, heads, n, head_dim]
    return behind_key_values(base, whole[:, 0], whole[:, 1])


class _Trial:
    """One baseline's training: the rows of each step for TRL, and the best weights so far."""

    def __init__(
        self,
        base: Base,
        data: TrainingSet,
        method: Lora | PrefixTuning,
        wrapped: Any,
        section: TrainingSection,
        seed: int,
        score: Score | None,
        progress: Progress,
    ) -> None:
        self.base, self.method, self.wrapped, self.section, self.score = base, method, wrapped, section, score
        self.trainer, self.progress = Trainer(base, data, section, seed=seed), progress
        self.best: tuple[float, str, dict[str, Any]] | None = None

    def keep(self, score: float, at: str) -> None:
        """Take the weights as they are now for the best so far."""
        self.best = (score, at, {name: w.detach().clone() for name, w in trained_weights(self.wrapped).items()})

    def run(self, offset: int, stage: StageSection) -> dict[str, Any]:
        """Train one stage; the wrapped model then has the weights to keep."""
        import tempfile

        score, best_at, _ = self.best or (None, "start", {})
        if not stage.steps:
            return {"steps": 0, "seconds": 0.0, "flops": 0.0, "score": score, "best_at": best_at}
        from llmpatch.baselines.trl_stages import run_dpo, run_sft, step_rows

        top = self.method.learning_rate * stage.learning_rate / self.section.sft.learning_rate
        rows = [step_rows(self.trainer, stage, step, offset) for step in range(stage.steps)]
        beside, seconds, flops = self.reference(rows) if offset else (None, 0.0, 0.0)
        with (
            self.progress.stage(f"TRL {('SFT', 'DPO')[offset]}", stage.steps) as advance,
            tempfile.TemporaryDirectory() as at,
        ):
            watch = Watch(("SFT", "DPO")[offset], stage.steps, advance, self.section.validate_every, self.validate)
            if offset:
                run_dpo(self.wrapped, self.base.tokenizer, rows, self.section, top, at, watch, beside)
            else:
                run_sft(self.wrapped, self.base.tokenizer, rows, self.section, top, at, watch)
        self.wrapped.eval()
        if "ref" in self.wrapped.peft_config and isinstance(self.method, Lora):
            self.wrapped.delete_adapter("ref")  # DPO's frozen copy, which is no part of the result
        best_at = f"{('SFT', 'DPO')[offset]} step {stage.steps}"
        if self.best is not None:
            score, best_at, kept = self.best
            set_weights(self.wrapped, kept)
        found = {"steps": stage.steps, "seconds": seconds + watch.seconds(), "flops": flops + watch.flops()}
        return {**found, "score": score, "best_at": best_at}

    def reference(self, rows: list[list[Example]]) -> tuple[list[tuple[float, float]] | None, float, float]:
        """DPO's reference log-probabilities per row, and the seconds and FLOPs they took.

        ``None`` where TRL takes those of a frozen copy (``sft``), in its steps.
        """
        import torch

        stage: DPOSection = self.section.dpo
        if stage.reference == "sft":
            return None, 0.0, 0.0
        none, trainer = torch.empty(0, self.base.hidden_size), self.trainer
        again = Trainer(self.base, trainer.data, self.section, seed=trainer.seed)
        flops = flops_of(lambda: again.prepare_reference(none, stage))  # by itself: the counter takes time
        started = time.perf_counter()
        trainer.prepare_reference(none, stage)
        seconds = time.perf_counter() - started
        order = [i for step in range(len(rows)) for i in trainer.indices(stage, step, 1)]
        return [tuple(trainer._pair_reference[i].tolist()) for i in order], seconds, flops

    def validate(self, at: str) -> None:
        """Keep the weights if they score best so far."""
        if self.score is None:
            return
        self.wrapped.eval()
        found = self.score(_as_base(self.base, self.method, self.wrapped))
        self.wrapped.train()
        if self.best is None or found >= self.best[0]:  # of equal ones the later, as the patch's training has it
            self.keep(found, at)
