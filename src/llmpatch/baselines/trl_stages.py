"""TRL's two trainers, fed token ids in a fixed order. Knows TRL 1.x; nothing about what is trained.

run_sft(wrapped, tokenizer, rows, section, 5e-4, folder, watch)      # rows: a list of examples per step
run_dpo(wrapped, tokenizer, rows, section, 2.5e-4, folder, watch, None)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmpatch.batching import Example

if TYPE_CHECKING:
    from llmpatch.baselines.counting import Watch
    from llmpatch.step_losses import StepLosses
    from llmpatch.training_recipe import StageSection, TrainingSection

_IGNORED = -100  # the label of a token that is not learnt


def step_rows(losses: StepLosses, stage: StageSection, step: int, offset: int) -> list[Example]:
    """The examples of a step of SFT (offset 0) or DPO (1): the patch's own, prompts whole and answers cut as its are."""
    cut, head = stage.answer_tokens, tuple(losses.data.head)
    found = [losses.data.examples[i] for i in losses.indices(stage, step, offset)]
    return [replace(e, prompt=head + e.prompt, chosen=e.chosen[:cut], rejected=e.rejected[:cut]) for e in found]


def run_sft(
    wrapped: Any,
    tokenizer: Any,
    rows: list[list[Example]],
    section: TrainingSection,
    rate: float,
    folder: str,
    watch: Watch,
) -> None:
    """TRL's SFT on the chosen answers; every answer token of a batch weighs the same, as TRL has it.

    Args:
        wrapped: PEFT's model; its adapter is trained in place.
        tokenizer: Of the base.
        rows: The examples of each step, prompts whole and answers cut.
        section: Clip and warm-up.
        rate: Highest learning rate.
        folder: Of what TRL may write.
        watch: Told of each step.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    flat = [e for step in rows for e in step]
    table = {
        "input_ids": [[*e.prompt, *e.chosen] for e in flat],
        "labels": [[_IGNORED] * len(e.prompt) + list(e.chosen) for e in flat],
    }
    _say_plain(wrapped)
    options = SFTConfig(
        **_options(wrapped, rows, section, rate, folder), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}
    )
    trainer = SFTTrainer(
        model=wrapped, args=options, train_dataset=Dataset.from_dict(table), processing_class=tokenizer
    )
    _train(trainer, watch)


def run_dpo(
    wrapped: Any,
    tokenizer: Any,
    rows: list[list[Example]],
    section: TrainingSection,
    rate: float,
    folder: str,
    watch: Watch,
    reference: list[tuple[float, float]] | None,
) -> None:
    """TRL's DPO with the recipe's beta and weight of the chosen answers' likelihood.

    Args:
        wrapped: As for :func:`run_sft`.
        tokenizer: As for :func:`run_sft`.
        rows: As for :func:`run_sft`.
        section: As for :func:`run_sft`, with DPO's own settings.
        rate: As for :func:`run_sft`.
        folder: As for :func:`run_sft`.
        watch: As for :func:`run_sft`.
        reference: Log-probabilities of chosen and rejected under the reference policy, per row; ``None`` takes those of the
            adapter as it is now, which TRL keeps as a frozen copy.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer on rows that are token ids already, with log-probabilities that are known already."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    flat = [e for step in rows for e in step]
    table: dict[str, list[Any]] = {
        "prompt_ids": [list(e.prompt) for e in flat],
        "chosen_ids": [list(e.chosen) for e in flat],
        "rejected_ids": [list(e.rejected) for e in flat],
    }
    if reference is not None:
        table |= {"ref_chosen_logps": [c for c, _ in reference], "ref_rejected_logps": [r for _, r in reference]}
    _say_plain(wrapped)
    extra = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, section.dpo.sft_weight]}
    options = DPOConfig(
        **_options(wrapped, rows, section, rate, folder), beta=section.dpo.beta, max_length=None,
        precompute_ref_log_probs=reference is not None, **(extra if section.dpo.sft_weight else {}),
    )  # fmt: skip
    trainer = Tokenised(model=wrapped, args=options, train_dataset=Dataset.from_dict(table), processing_class=tokenizer)
    _train(trainer, watch)


def _options(
    wrapped: Any, rows: list[list[Example]], section: TrainingSection, rate: float, folder: str
) -> dict[str, Any]:
    """The recipe's stages in TRL's words: AdamW whatever its optimiser, linear decay to zero, the same clip, steps and rows."""
    # Where the base is: TRL moves a model that it is told to train elsewhere, and the base's weights are shared.
    cpu = next(wrapped.parameters()).device.type == "cpu"
    return {
        "output_dir": folder, "per_device_train_batch_size": len(rows[0]), "max_steps": len(rows),
        "train_sampling_strategy": "sequential", "learning_rate": rate, "lr_scheduler_type": "linear",
        "warmup_steps": min(section.warmup, len(rows) - 1), "weight_decay": section.weight_decay,
        "max_grad_norm": section.clip, "gradient_checkpointing": False, "bf16": False, "use_cpu": cpu, "report_to": [],
        "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def _say_plain(wrapped: Any) -> None:
    """What came out of a GGUF file is float32 here; transformers still calls it quantised, and its trainer would refuse it."""
    base = wrapped.get_base_model()
    if getattr(base, "is_quantized", False):
        base.is_quantized = False


def _train(trainer: Any, watch: Watch) -> None:
    """Train in silence but for our own progress."""
    import warnings

    from transformers import PrinterCallback, TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]
        """Passes each step on."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            watch.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            watch.end(state.global_step - 1)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Callback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's own use of names that transformers will drop
        trainer.train()
