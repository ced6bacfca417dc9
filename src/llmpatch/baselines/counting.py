"""What training took, counted by torch on a few steps and scaled to all of them.

    patch_flops(base, data, rows, recipe.training, seed=0, sample=3)     # 6.1e+14

A counter slows a step down, and all steps of a stage do the same work but for the lengths of their rows; so a few are
counted. Time is never taken under the counter. On a CPU torch leaves the attention kernel itself out, for all alike: at the
lengths trained here, a few hundredths of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.training import Trainer
from llmpatch.training_data import TrainingSet
from llmpatch.word_losses import Avoid, Balance

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base
    from llmpatch.training_recipe import TrainingSection

SAMPLE = 3


@dataclass(frozen=True)
class Cost:
    """What a baseline took to make.

    Attributes:
        parameters: Numbers that were trained.
        steps: Optimiser steps of SFT and of DPO.
        seconds: Of training alone, on this machine.
        flops: Of training: forward, backward and what is computed once.
        counted: How many steps of each stage the FLOPs were counted on.
    """

    parameters: int
    steps: tuple[int, int]
    seconds: float
    flops: float
    counted: int

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "steps": list(self.steps)}

    @classmethod
    def of(cls, found: dict[str, Any]) -> Cost:
        """The inverse of :meth:`json`."""
        return cls(**{**found, "steps": tuple(found["steps"])})


def flops_of(work: Callable[[], object]) -> float:
    """FLOPs of some work, forward and backward, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def patch_flops(
    base: Base,
    data: TrainingSet,
    rows: torch.Tensor,
    section: TrainingSection,
    *,
    seed: int,
    sample: int = SAMPLE,
    balance: Balance | None = None,
    avoid: Avoid | None = None,
) -> float:
    """FLOPs of training a prefix as :func:`llmpatch.training.train` does, without its validations.

    The first steps of each stage are run twice: what the first run does more is computed once per example (the base's
    distributions, the DPO reference's log-probabilities), and is scaled by examples instead of steps.

    Args:
        base: The frozen model.
        data: What it is trained on.
        rows: [n, hidden_size] to start from.
        section: Stages and weights.
        seed: Decides the batches.
        sample: Steps to count of each stage.
        balance: As in training.
        avoid: As in training.
    """
    total = 0.0
    for offset, stage in enumerate((section.sft, section.dpo)):
        count = min(sample, stage.steps)
        if not count:
            continue
        trainer = Trainer(base, data, section, seed=seed, balance=balance, avoid=avoid)
        short = stage.model_copy(update={"steps": count})

        def run(trainer: Trainer = trainer, short: Any = short, offset: int = offset) -> None:
            if offset:
                trainer.prepare_reference(rows, short)
            for step in range(short.steps):
                start = rows.detach().clone().requires_grad_()
                losses = trainer.dpo_loss if offset else trainer.sft_loss
                losses(start, trainer.indices(short, step, offset), short)[0].backward()  # type: ignore[no-untyped-call]

        first, again = flops_of(run), flops_of(run)
        # What is computed once is computed for whole groups of examples.
        once = [
            len(
                {
                    j
                    for step in range(n)
                    for i in trainer.indices(stage, step, offset)
                    for j in trainer.computed_with(i, stage.answer_tokens)
                }
            )
            for n in (count, stage.steps)
        ]
        total += again / count * stage.steps + (first - again) / once[0] * once[1]
    return total


class Watch:
    """What happens around a step of TRL: time and FLOPs are taken, progress is shown, validation keeps the best."""

    def __init__(
        self, name: str, steps: int, advance: Callable[..., None], every: int, validate: Callable[[str], None]
    ) -> None:
        self.name, self.steps, self.advance, self.every, self.validate = name, steps, advance, every, validate
        self._flops: list[float] = []
        self._times: list[float] = []
        self._counter: Any = None
        self._started = 0.0

    def begin(self, step: int) -> None:
        """Before step number ``step``, counted from 0."""
        from torch.utils.flop_counter import FlopCounterMode

        if step < SAMPLE:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()
        self._started = time.perf_counter()

    def end(self, step: int) -> None:
        """After it."""
        self._times.append(time.perf_counter() - self._started)
        if self._counter:
            self._counter.__exit__(None, None, None)
            self._flops.append(float(self._counter.get_total_flops()))
            self._counter = None
        self.advance(1)
        done = step + 1
        if done % self.every == 0 or done == self.steps:
            self.validate(f"{self.name} step {done}")

    def flops(self) -> float:
        """Of all steps, from those that were counted."""
        return sum(self._flops) / len(self._flops) * self.steps

    def seconds(self) -> float:
        """Of all steps, from those that ran without the counter, where there are any."""
        free = self._times[len(self._flops) :] or self._times
        return sum(free) / len(free) * self.steps
