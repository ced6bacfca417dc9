"""Training of the prefix: SFT on what should be said, then DPO against what was said. The model stays frozen.

    result = train(base, TrainingSet(head, examples), rows, recipe.training, seed=0, run=Path("runs/refusal"))
    result.rows                                    # [n, hidden_size], the best by validation

In some steps other patches may stand around the prefix, and what patches do may be kept or learnt (docs/composition.md): where
nothing is learnt from pairs, one stage is all there is.
One readable loop. A step depends on the seed and its number only; the state (prefix, the optimiser's moments, best prefix,
history) is written every ``checkpoint_every`` steps, so an interrupted run resumes exactly where it stood: what an interrupt
finds half done, a step or a validation, is done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.checkpoints import State, identity_of, load_state, save_rows, save_state
from llmpatch.distributed import ALONE, Split
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import digest_json
from llmpatch.heap import keep_pages
from llmpatch.neighbours import Neighbours, within
from llmpatch.optimizers import OPTIMIZERS
from llmpatch.prefix import prefix_digest
from llmpatch.progress import Progress
from llmpatch.step_losses import ReferenceLogProbs, StepLosses
from llmpatch.training_data import Kept, TrainingSet
from llmpatch.word_losses import Avoid, Balance

if TYPE_CHECKING:
    import torch

    from llmpatch.prefix import Rows
    from llmpatch.training_recipe import StageSection, TrainingSection

REFERENCE = "reference.safetensors"  # the DPO reference's log-probabilities, which may have taken as long

# (rows) -> metrics with a "score" to maximise; called every ``validate_every`` steps and at each stage's end.
Validate = Callable[["Rows"], dict[str, float]]


@dataclass(frozen=True)
class TrainingResult:
    """The best prefix by validation, and how training went."""

    rows: torch.Tensor
    best_at: str
    seconds: float
    history: list[dict[str, Any]]


class Trainer(StepLosses):
    """One run over both stages."""

    def __init__(
        self,
        base: Base,
        data: TrainingSet,
        section: TrainingSection,
        *,
        seed: int,
        validate: Validate | None = None,
        reference_log_probs: ReferenceLogProbs | None = None,
        progress: Progress | None = None,
        run: Path | None = None,
        balance: Balance | None = None,
        avoid: Avoid | None = None,
        neighbours: Neighbours | None = None,
        kept: Sequence[Kept] = (),
        split: Split = ALONE,
        reference_identity: str = "",
    ) -> None:
        super().__init__(
            base, data, section, seed=seed, reference_log_probs=reference_log_probs, progress=progress, balance=balance,
            avoid=avoid, neighbours=neighbours, split=split,
        )  # fmt: skip
        self.validate, self.run_folder, self.kept = validate, run, kept
        self.reference_identity = reference_identity
        if not section.pairs_weight and not kept:
            raise UsageError(
                "there is nothing to train on: pairs_weight is 0, and there are no other answers",
                hint="give what company.open_company finds for the recipe's distil",
            )
        staged = [
            (i, stage) for i, stage in enumerate((section.sft, section.dpo)) if stage.steps and section.pairs_weight
        ]
        sizes = [len(self.indices(stage, 0, offset)) for offset, stage in staged]  # kinds with few pairs give fewer
        sizes += [len(self.kept_indices(part, 0, 0)) for part in kept]
        if (least := min(sizes, default=split.count)) < split.count:
            raise UsageError(
                f"{split.count} processes cannot share steps of {least} examples",
                hint="use fewer, or more pairs and a larger batch_size",
            )

    def run(self, state: State, save: Callable[[State], None]) -> TrainingResult:
        """Train from ``state`` to the end of both stages, calling ``save`` at checkpoints, on Ctrl-C and at the end."""
        import torch

        if self.base.device.type == "cpu":
            keep_pages()
        stages: tuple[StageSection, ...] = (self.section.sft, self.section.dpo)
        before = torch.get_float32_matmul_precision()
        # A GPU's matrix units take TF32: ten bits of mantissa are enough for a gradient.
        if self.base.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        try:
            while state.stage < len(stages):
                self._stage(state, stages[state.stage], save)
                self.end_stage(state.stage)
                with _whole(state):
                    self._next_stage(state)
                save(state)
        except KeyboardInterrupt:
            save(state)
            raise
        finally:
            torch.set_float32_matmul_precision(before)
        return TrainingResult(state.best if self.validate else state.rows, state.best_at, state.seconds, state.history)

    def _next_stage(self, state: State) -> None:
        import torch

        if state.stage == 0:
            state.after_sft = state.best.clone() if self.validate else state.rows.clone()
            state.rows = state.after_sft.clone()
        state.stage, state.step, state.updates, state.stale = state.stage + 1, 0, 0, 0
        state.first, state.second = torch.zeros_like(state.first), torch.zeros_like(state.second)

    def _stage(self, state: State, stage: StageSection, save: Callable[[State], None]) -> None:
        paired = bool(self.section.pairs_weight)
        name = ("SFT", "DPO")[state.stage] if paired else "Distillation"
        if not stage.steps or (state.stage == 1 and not paired):
            return
        self._look(state, stage, name)  # an interrupt may have come before it
        if state.step >= stage.steps:
            return
        if state.stage == 1:
            started = time.perf_counter()
            path = self.run_folder / REFERENCE if self.run_folder and self.reference_identity else None
            self.prepare_reference(state.after_sft, self.section.dpo, path=path, identity=self.reference_identity)
            if not state.step:  # a part of what the training takes; done again where one goes on
                state.seconds += time.perf_counter() - started
        with self.progress.stage(name, stage.steps) as advance:
            advance(state.step)
            while state.step < stage.steps and state.stale < self.section.patience:
                started = time.perf_counter()
                with _whole(state):
                    loss, parts = self._update(state, stage)
                    state.step += 1
                    state.seconds += time.perf_counter() - started
                    state.history = [*state.history, {"stage": name, "step": state.step, "loss": loss, **parts}]
                advance(1, note=f"loss {loss:.3f}")
                self._look(state, stage, name)
                if state.step % self.section.checkpoint_every == 0:
                    save(state)

    def _update(self, state: State, stage: StageSection) -> tuple[float, dict[str, float]]:
        """One step of the section's optimiser on the prefix, learning rate decayed linearly to zero."""
        import torch

        from llmpatch.training_recipe import DPOSection

        rows = state.rows.detach().clone().requires_grad_()
        indices = self.indices(stage, state.step, offset=state.stage)
        there = self.arrangement(state.rows, state.step, offset=state.stage)
        weight = self.neighbours.section.kl_weight if self.neighbours and there.tokens else None
        if self.base.sharded:  # in every process alike, since each runs its part of every layer
            benign = [i for i in indices if self.data.examples[i].kind != "harmful"]
            self._base_states(benign, stage.answer_tokens)
        mine = self.split.mine(indices)
        parts: dict[str, float] = {}
        if not self.section.pairs_weight:
            loss = rows.new_zeros(())
        elif isinstance(stage, DPOSection):
            loss, parts = self.dpo_loss(there.around(rows), mine, stage, kl_weight=weight, whole=indices)
        else:
            loss, parts = self.sft_loss(there.around(rows), mine, stage, kl_weight=weight, whole=indices)
        loss = self.section.pairs_weight * loss
        if self.neighbours:
            parts["neighbour_tokens"] = float(there.tokens)
        if self.kept:
            more, told = self.kept_losses(rows, there, self.kept, state.step, offset=state.stage)
            loss, parts = loss + more, parts | told
        loss.backward()  # type: ignore[no-untyped-call]
        assert rows.grad is not None
        gradient = self.split.add_up(rows.grad)
        value = float(self.split.add_up(loss.detach().clone()))
        if not bool(torch.isfinite(gradient).all()):
            raise LlmpatchError(
                f"the gradient is not finite at step {state.step + 1}",
                hint="lower the learning rate; the last checkpoint is kept",
            )
        norm = float(gradient.norm())
        grad = gradient * min(1.0, self.section.clip / (norm + 1e-12))
        state.updates += 1
        rate = (
            stage.learning_rate * min(1.0, state.updates / max(1, self.section.warmup)) * (1 - state.step / stage.steps)
        )
        step = OPTIMIZERS[self.section.optimizer](state, grad)
        state.rows = (state.rows * (1 - rate * self.section.weight_decay) - rate * step).detach()
        if self.neighbours:
            state.rows = within(state.rows, self.neighbours.largest)
        return value, {**parts, "gradient": norm, "rate": rate}

    def _look(self, state: State, stage: StageSection, name: str) -> None:
        """Validate after a step that asks for it, once."""
        due = state.step and (state.step % self.section.validate_every == 0 or state.step == stage.steps)
        place = (name, state.step)
        if due and not any("validation" in row and (row["stage"], row["step"]) == place for row in state.history):
            with _whole(state):
                self._validate(state, name)

    def _validate(self, state: State, name: str) -> None:
        if self.validate is None:
            return
        found = self.validate(state.rows)
        found["score"] = self.split.of_first(found["score"], self.base)
        state.history = [*state.history, {"stage": name, "step": state.step, "validation": found}]
        # For the frontier: a checkpoint that was not the best may suit another taste.
        if self.run_folder and self.split.rank == 0:
            save_rows(self.run_folder / "prefixes" / f"{name.lower()}-{state.step:05d}.safetensors", state.rows)
        state.stale = 0 if found["score"] > state.best_score else state.stale + 1
        # Of equal ones the later: it has had more of what the score does not see.
        if found["score"] >= state.best_score or self.section.keep == "last":
            state.best, state.best_at = state.rows.clone(), f"{name} step {state.step}"
        state.best_score = max(state.best_score, found["score"])


@contextmanager
def _whole(state: State) -> Iterator[None]:
    """All of a change to a state, or nothing of it; tensors are replaced, never changed in place."""
    before = vars(state).copy()
    try:
        yield
    except BaseException:
        vars(state).update(before)
        raise


def train(
    base: Base,
    data: TrainingSet,
    rows: torch.Tensor,
    section: TrainingSection,
    *,
    seed: int,
    run: Path | None = None,
    validate: Validate | None = None,
    base_weights: str = "",
    validated_by: str = "",
    reference_log_probs: ReferenceLogProbs | None = None,
    reference_identity: str = "",
    progress: Progress | None = None,
    balance: Balance | None = None,
    avoid: Avoid | None = None,
    neighbours: Neighbours | None = None,
    kept: Sequence[Kept] = (),
    split: Split = ALONE,
) -> TrainingResult:
    """Train a prefix.

    Args:
        base: The frozen model.
        data: Examples as token ids.
        rows: [n, hidden_size] to start from.
        section: Stages and weights.
        seed: Decides the batches.
        run: Folder of the checkpoint; an earlier one of the same data and settings is resumed, also where others were tried
            between. Every validated prefix stays in its folder ``prefixes``.
        validate: Scores a prefix; the best is returned. Without it the last is.
        base_weights: Digest of the base's weights, if a checkpoint of another base should not be resumed.
        validated_by: What the scores depend on, as :func:`llmpatch.validation.validated_by` digests it; a checkpoint that
            was chosen by other ones is not resumed.
        reference_log_probs: Needed only for ``dpo.reference = "reference"``.
        reference_identity: Digest of all that those depend on; without it they are not kept in ``run``, as those of the base
            are not without ``base_weights``.
        progress: Where to show progress.
        balance: Words to make equally likely after harmful prompts.
        avoid: Words that answers to harmful prompts should not have.
        neighbours: Other patches that stand around the rows in some steps.
        kept: What should stay, or become, as it is behind a reference prefix.
        split: The processes that train together, each of which calls this; the first writes.

    Raises:
        UsageError: nothing to train on, more processes than examples in a step, or settings that cannot work with this base.
        LlmpatchError: the gradient stopped being finite, or the checkpoint cannot be written.
        IntegrityError: the checkpoint is damaged.
    """
    trainer = Trainer(
        base, data, section, seed=seed, validate=validate, reference_log_probs=reference_log_probs, progress=progress,
        run=run, balance=balance, avoid=avoid, neighbours=neighbours, kept=kept, split=split,
        reference_identity=_reference_identity(base, data, section, base_weights, reference_identity),
    )  # fmt: skip
    settings: list[Any] = [settings_of(section), seed, prefix_digest(rows)]
    settings += [validated_by] if validated_by else []
    settings += [base_weights] if base_weights else []
    identity = digest_json(
        [data.digest(), *settings, *_word_settings(balance), *_word_settings(avoid), *_company(neighbours, kept)]
    )
    path = run / "training.safetensors" if run else None
    here = load_state(path, identity) if path and path.exists() else None
    away = _away_of(path, identity) if path else None
    back = load_state(away, identity) if away and here is None and away.exists() else None
    state = here or back
    if state is None:
        zeros = rows.new_zeros(rows.shape)
        state = State(rows.clone(), zeros.clone(), zeros.clone(), rows.clone(), rows.clone())
    split.wait()  # until all have looked
    if path and away and here is None and split.rank == 0:
        if path.exists():  # of other settings, and maybe of hours
            path.replace(_away_of(path, identity_of(path)))
        if back:
            away.replace(path)
    keeps = path if split.rank == 0 else None
    return trainer.run(state, lambda s: save_state(keeps, s, identity) if keeps else None)


def _away_of(path: Path, identity: str) -> Path:
    """Where the checkpoint of a training lies while another one of the same folder goes on."""
    return path.with_name(f"{path.stem}.{identity[:16]}{path.suffix}")


def _reference_identity(base: Base, data: TrainingSet, section: TrainingSection, weights: str, reference: str) -> str:
    """What the DPO reference's log-probabilities depend on beside a stage and its rows; empty where nobody knows."""
    told = reference if section.dpo.reference == "reference" else weights
    if not told or not section.dpo.steps:
        return ""
    engine = [str(base.model.dtype), base.device.type, base.fingerprint.config]
    return digest_json([data.digest(), told, engine])


def settings_of(section: TrainingSection) -> dict[str, Any]:
    """A section as its checkpoints know it; a key that is left to its default adds nothing, as in a recipe's digest.

    How often a checkpoint is written changes nothing.
    """
    return section.model_dump(mode="json", exclude_defaults=True, exclude={"checkpoint_every"})


def _word_settings(loss: Balance | Avoid | None) -> list[Any]:
    if loss is None:
        return []
    return [{key: value for key, value in asdict(loss).items() if key != "risk" or value}]


def _company(neighbours: Neighbours | None, kept: Sequence[Kept]) -> list[Any]:
    """Identity of everything that stands beside the data."""
    found: list[Any] = [part.digest() for part in kept]
    if neighbours:
        found.append([prefix_digest(rows) for rows in neighbours.patches])
        found.append(neighbours.largest)
    return found
