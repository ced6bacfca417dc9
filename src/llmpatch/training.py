"""Training of the prefix: SFT on what should be said, then DPO against what was said. The model stays frozen.

    result = train(base, TrainingSet(head, examples), rows, recipe.training, seed=0, run=Path("runs/refusal"))
    result.rows                                    # [n, hidden_size], the best by validation

In some steps other patches may stand around the prefix, and what a stack does may be kept or learnt (docs/composition.md).
One readable loop. A step depends on the seed and its number only; the state (prefix, AdamW moments, best prefix,
history) is written every ``checkpoint_every`` steps, so an interrupted run resumes exactly where it stood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.batching import Batch, Example, choose, make_batch, shares
from llmpatch.checkpoints import State, load_state, save_rows, save_state
from llmpatch.distributed import ALONE, Split
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import digest_json
from llmpatch.losses import answer_log_probs, dpo_loss, hidden_states, kept_loss, kl_to_base, per_answer
from llmpatch.neighbours import Arrangement, Neighbours, arrange, within
from llmpatch.prefix import check_head
from llmpatch.progress import Progress, Silent
from llmpatch.word_losses import Avoid, Balance, imbalance, said

if TYPE_CHECKING:
    import torch

    from llmpatch.recipe import DPOSection, StageSection, TrainingSection

# (rows) -> metrics with a "score" to maximise; called every ``validate_every`` steps and at each stage's end.
Validate = Callable[["torch.Tensor"], dict[str, float]]
# (examples) -> [len, 2] summed log-probabilities of (chosen, rejected): the DPO reference when it is M' itself.
ReferenceLogProbs = Callable[[list[Example]], "torch.Tensor"]


@dataclass(frozen=True)
class TrainingSet:
    """Examples, and the ids that stand between the prefix and each of them."""

    head: list[int]
    examples: list[Example]

    def digest(self) -> str:
        """Identity of the data, so that a checkpoint of other data is not resumed."""
        rows = [[e.kind, e.prompt, e.chosen, e.rejected, *([e.risk] if e.risk else [])] for e in self.examples]
        return digest_json([self.head, rows])


@dataclass(frozen=True, eq=False)
class Kept:
    """Answers behind a reference prefix, on which the trained one should give the same next words.

    Attributes:
        data: Prompts with the reference's own answers as ``chosen``.
        weight: Of the mean KL per token.
        batch_size: Answers a step.
        answer_tokens: Answers are cut to this many tokens.
        rows: The reference prefix [n, hidden_size]; ``None`` is whatever stands around the trained rows in a step.
        balance: Words that are to be equally likely after some of the prompts, whatever stands around the trained rows.
        balanced: Which prompts: places of their examples in ``data``.
    """

    data: TrainingSet
    weight: float
    batch_size: int
    answer_tokens: int
    rows: torch.Tensor | None = None
    balance: Balance | None = None
    balanced: frozenset[int] = frozenset()

    def digest(self) -> str:
        """Identity, so that a checkpoint of another reference is not resumed."""
        rows = None if self.rows is None else self.rows.double().sum().item()
        words = [asdict(self.balance), sorted(self.balanced)] if self.balance else []
        return digest_json([self.data.digest(), self.weight, self.batch_size, self.answer_tokens, rows, *words])


@dataclass(frozen=True)
class TrainingResult:
    """The best prefix by validation, and how training went."""

    rows: torch.Tensor
    best_at: str
    seconds: float
    history: list[dict[str, Any]]


class Trainer:
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
    ) -> None:
        self.split = split
        self.run_folder, self.balance, self.avoid = run, balance, avoid
        self.neighbours, self.kept = neighbours, kept
        self.base, self.data, self.section, self.seed = base, data, section, seed
        self.validate, self.reference_log_probs = validate, reference_log_probs
        self.progress = progress or Silent()
        self._base_hidden: dict[tuple[int, int], torch.Tensor] = {}
        self._pair_reference: dict[int, torch.Tensor] = {}
        benign = sorted((len(e.prompt), i) for i, e in enumerate(data.examples) if e.kind != "harmful")
        self._groups = [[i for _, i in benign[start : start + 16]] for start in range(0, len(benign), 16)]
        self._group_of = {i: number for number, group in enumerate(self._groups) for i in group}
        if not data.examples:
            raise UsageError(
                "there is nothing to train on: no pair passed the filter", hint="loosen pairs.margin or pairs.winner"
            )
        sizes = [stage.batch_size for stage in (section.sft, section.dpo) if stage.steps]
        if (least := min([*sizes, *(part.batch_size for part in kept)], default=split.count)) < split.count:
            raise UsageError(
                f"{split.count} processes cannot share steps of {least} examples",
                hint="use fewer, or a larger batch_size",
            )
        check_head(base)

    def policy(self, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Hidden states of what is trained, [N, hidden_size]: here the frozen base behind the prefix."""
        return hidden_states(self.base, rows, self.data.head, batch)

    # -- losses of one step --------------------------------------------------------------------------------------

    def sft_loss(
        self,
        rows: torch.Tensor,
        indices: list[int],
        stage: StageSection,
        *,
        kl_weight: float | None = None,
        whole: list[int] | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean over examples: likelihood of the chosen answer where harmful; KL to the base (and likelihood) where not.

        Where ``indices`` are a share of a ``whole`` step, the losses of all shares sum up to that of the step.
        """
        weight = self.section.kl_weight if kl_weight is None else kl_weight
        batch = self._batch(rows, indices, stage.answer_tokens, rejected=False)
        hidden = self.policy(rows, batch)
        return self._supervised(batch, hidden, indices, stage.answer_tokens, weight, whole or indices)

    def dpo_loss(
        self,
        rows: torch.Tensor,
        indices: list[int],
        stage: DPOSection,
        *,
        kl_weight: float | None = None,
        whole: list[int] | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """DPO on every pair, plus the benign terms of :meth:`sft_loss` and ``sft_weight`` of the chosen likelihood."""
        import torch

        batch = self._batch(rows, indices, stage.answer_tokens, rejected=True)
        hidden = self.policy(rows, batch)
        log_probs = answer_log_probs(self.base, hidden, batch.targets)
        policy = per_answer(log_probs, batch.owner, 2 * batch.rows, mean=False).view(-1, 2)
        reference = torch.stack([self._pair_reference[i] for i in indices]).to(policy.device)
        losses = dpo_loss(policy, reference, stage.beta)
        accuracy = float(((policy - reference)[:, 0] > (policy - reference)[:, 1]).float().mean())
        count = len(whole or indices)
        loss = losses.sum() / count
        benign = [r for r, kind in enumerate(batch.kinds) if kind != "harmful"]
        if stage.sft_weight:
            nll = -per_answer(log_probs, batch.owner, 2 * batch.rows, mean=True).view(-1, 2)[:, 0]
            loss = loss + stage.sft_weight * nll.sum() / count
        weight = self.section.kl_weight if kl_weight is None else kl_weight
        if weight and benign:
            kl = self._kl(batch, hidden, indices, stage.answer_tokens, benign)
            loss = loss + weight * kl.sum() / count
        loss = loss + self._words(batch, hidden, whole or indices)
        return loss, {"dpo": float(losses.mean().detach()), "accuracy": accuracy}

    def _supervised(
        self, batch: Batch, hidden: torch.Tensor, indices: list[int], cut: int, kl_weight: float, whole: list[int]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        log_probs = answer_log_probs(self.base, hidden, batch.targets)
        nll = -per_answer(log_probs, batch.owner, 2 * batch.rows, mean=True)[::2]
        harmful = [r for r, kind in enumerate(batch.kinds) if kind == "harmful"]
        benign = [r for r, kind in enumerate(batch.kinds) if kind != "harmful"]
        loss = nll[harmful].sum() + self.section.benign_nll_weight * nll[benign].sum()
        parts = {"nll": float(nll[harmful].mean().detach())} if harmful else {}
        if kl_weight and benign:
            kl = self._kl(batch, hidden, indices, cut, benign)
            loss = loss + kl_weight * kl.sum()
            parts["kl"] = float(kl.mean().detach())
        return loss / len(whole) + self._words(batch, hidden, whole), parts

    def _words(self, batch: Batch, hidden: torch.Tensor, whole: list[int]) -> torch.Tensor:
        """What the losses on single words add; each is a mean over the step's harmful prompts of its risk."""
        total = hidden.new_zeros(())
        every = [(self.data.examples[i].kind, self.data.examples[i].risk) for i in whole]
        mine = list(zip(batch.kinds, batch.risks, strict=True))
        if self.balance is not None:
            share = _share(mine, every, self.balance.risk)
            total = total + share * imbalance(self.base, hidden, batch, self.balance)
        if self.avoid is not None:
            share = _share(mine, every, self.avoid.risk)
            total = total + share * said(self.base, hidden, batch, self.avoid)
        return total

    def _kl(self, batch: Batch, hidden: torch.Tensor, indices: list[int], cut: int, benign: list[int]) -> torch.Tensor:
        """Mean KL per token of each benign row's chosen answer: [len(benign)]."""
        import torch

        where = torch.isin(batch.owner, torch.tensor([2 * r for r in benign]))
        target = torch.cat(self._base_states([indices[r] for r in benign], cut))
        kl = kl_to_base(self.base, hidden[where], target.to(hidden.device))
        order = {2 * r: k for k, r in enumerate(benign)}
        owner = torch.tensor([order[int(o)] for o in batch.owner[where]])
        return per_answer(kl, owner, len(benign), mean=True)

    def _base_states(self, indices: list[int], cut: int) -> list[torch.Tensor]:
        """The un-prefixed base's hidden states behind each example's chosen answer, computed once per run.

        They are computed in fixed groups of similar length, so that a resumed run gets the same bits.
        """
        import torch

        for group in sorted({self._group_of[i] for i in indices if (i, cut) not in self._base_hidden}):
            examples = [self.data.examples[i] for i in self._groups[group]]
            batch = make_batch(examples, past=len(self.data.head), answer_tokens=cut, rejected=False)
            with torch.no_grad():
                hidden = hidden_states(self.base, None, self.data.head, batch)
            counts = [len(e.chosen[:cut]) for e in examples]
            self._base_hidden.update(
                zip([(i, cut) for i in self._groups[group]], torch.split(hidden, counts), strict=True)
            )
        return [self._base_hidden[i, cut] for i in indices]

    def _batch(self, rows: torch.Tensor, indices: list[int], cut: int, *, rejected: bool) -> Batch:
        past = len(rows) + len(self.data.head)
        batch = make_batch([self.data.examples[i] for i in indices], past=past, answer_tokens=cut, rejected=rejected)
        window = getattr(self.base.model.config.get_text_config(), "sliding_window", None)
        if window and past + batch.ids.shape[1] > window:
            raise UsageError(
                f"a training row has {past + batch.ids.shape[1]} tokens, more than the sliding window of {window}",
                hint="use fewer virtual tokens, shorter prompts or a smaller answer_tokens",
            )
        return batch

    # -- the DPO reference -----------------------------------------------------------------------------------------

    def prepare_reference(self, after_sft: torch.Tensor, stage: DPOSection) -> None:
        """Log-probabilities of both answers under the DPO reference policy, once for all steps.

        Always without neighbours: beside them, too, the patch is to do what it does alone.
        """
        import torch

        needed = sorted({i for step in range(stage.steps) for i in self.indices(stage, step, offset=1)})
        missing = [i for i in needed if i not in self._pair_reference]
        if stage.reference == "reference":
            if self.reference_log_probs is None:
                raise UsageError(
                    "training.dpo.reference is `reference`, but this reference gives text only, no likelihoods",
                    hint="use sft or base, or a reference of kind transformers",
                )
            found = self.reference_log_probs([self.data.examples[i] for i in missing])
            self._pair_reference.update(zip(missing, found, strict=True))
            return
        if stage.reference == "none":
            self._pair_reference.update((i, torch.zeros(2)) for i in missing)
            return
        rows = after_sft if stage.reference == "sft" else None
        past = len(self.data.head) + (len(rows) if rows is not None else 0)
        missing.sort(key=lambda i: len(self.data.examples[i].prompt))
        with self.progress.stage("Reference log-probabilities", len(missing)) as advance, torch.no_grad():
            for start in range(0, len(missing), 16):
                part = missing[start : start + 16]
                batch = make_batch(
                    [self.data.examples[i] for i in part], past=past, answer_tokens=stage.answer_tokens, rejected=True
                )
                hidden = hidden_states(self.base, rows, self.data.head, batch)
                sums = per_answer(
                    answer_log_probs(self.base, hidden, batch.targets), batch.owner, 2 * len(part), mean=False
                )
                self._pair_reference.update(zip(part, sums.view(-1, 2).cpu(), strict=True))
                advance(len(part))

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, state: State, save: Callable[[State], None]) -> TrainingResult:
        """Train from ``state`` to the end of both stages, calling ``save`` at checkpoints, on Ctrl-C and at the end."""
        import torch

        stages: tuple[StageSection, ...] = (self.section.sft, self.section.dpo)
        before = torch.get_float32_matmul_precision()
        # A GPU's matrix units take TF32: ten bits of mantissa are enough for a gradient.
        if self.base.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        try:
            while state.stage < len(stages):
                self._stage(state, stages[state.stage], save)
                if state.stage == 0:
                    state.after_sft = state.best.clone() if self.validate else state.rows.clone()
                    state.rows = state.after_sft.clone()
                state.stage, state.step, state.updates, state.stale = state.stage + 1, 0, 0, 0
                state.first.zero_()
                state.second.zero_()
                save(state)
        except KeyboardInterrupt:
            save(state)
            raise
        finally:
            torch.set_float32_matmul_precision(before)
        return TrainingResult(state.best if self.validate else state.rows, state.best_at, state.seconds, state.history)

    def _stage(self, state: State, stage: StageSection, save: Callable[[State], None]) -> None:
        name = ("SFT", "DPO")[state.stage]
        if not stage.steps or state.step >= stage.steps:
            return
        if state.stage == 1:
            self.prepare_reference(state.after_sft, self.section.dpo)
        with self.progress.stage(name, stage.steps) as advance:
            advance(state.step)
            while state.step < stage.steps and state.stale < self.section.patience:
                started = time.perf_counter()
                loss, parts = self._update(state, stage)
                state.step += 1
                state.seconds += time.perf_counter() - started
                state.history.append({"stage": name, "step": state.step, "loss": loss, **parts})
                advance(1, note=f"loss {loss:.3f}")
                if state.step % self.section.validate_every == 0 or state.step == stage.steps:
                    self._validate(state, name)
                if state.step % self.section.checkpoint_every == 0:
                    save(state)

    def indices(self, stage: StageSection, step: int, offset: int) -> list[int]:
        """The examples of one step of SFT (offset 0) or DPO (1)."""
        kinds = sorted({e.kind for e in self.data.examples})
        counts = shares(self.section.mix, stage.batch_size, kinds)
        return choose(self.data.examples, counts, seed=self.seed + 7919 * offset, step=step)

    def arrangement(self, rows: torch.Tensor, step: int, offset: int) -> Arrangement:
        """Who stands around the rows in one step of SFT (offset 0) or DPO (1)."""
        return arrange(self.base, self.neighbours, rows.detach(), seed=self.seed + 7919 * offset, step=step)

    def kept_loss(
        self, rows: torch.Tensor, there: Arrangement, kept: Kept, step: int, offset: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The weighted loss on the step's kept answers: KL from the reference prefix to the trained one where it stands now.

        With ``kept.balance`` also the loss on its words, which has a weight of its own.
        """
        pool = kept.data.examples
        counts = {pool[0].kind: kept.batch_size}  # they are all of one kind
        chosen = choose(pool, counts, seed=self.seed + 7919 * offset + 104_729, step=step)
        reference = there.without() if kept.rows is None else kept.rows
        mine = self.split.mine(chosen)
        kl, hidden, batch = kept_loss(
            self.base, there.around(rows), reference, kept.data.head, [pool[i] for i in mine],
            answer_tokens=kept.answer_tokens,
        )  # fmt: skip
        loss, parts = kept.weight * kl * (len(mine) / len(chosen)), {"kept": float(kl.detach())}
        if kept.balance is not None:
            after = [r for r, i in enumerate(mine) if i in kept.balanced]
            share = len(after) / max(1, sum(i in kept.balanced for i in chosen))
            words = share * imbalance(self.base, hidden, batch, kept.balance, after)
            loss, parts = loss + words, parts | {"kept_words": float(words.detach())}
        return loss, parts

    def _update(self, state: State, stage: StageSection) -> tuple[float, dict[str, float]]:
        """One AdamW step (Loshchilov and Hutter 2019) on the prefix, learning rate decayed linearly to zero."""
        import torch

        from llmpatch.recipe import DPOSection

        rows = state.rows.detach().clone().requires_grad_()
        indices = self.indices(stage, state.step, offset=state.stage)
        there = self.arrangement(state.rows, state.step, offset=state.stage)
        weight = self.neighbours.section.kl_weight if self.neighbours and there.tokens else None
        if self.base.sharded:  # in every process alike, since each runs its part of every layer
            benign = [i for i in indices if self.data.examples[i].kind != "harmful"]
            self._base_states(benign, stage.answer_tokens)
        mine = self.split.mine(indices)
        if isinstance(stage, DPOSection):
            loss, parts = self.dpo_loss(there.around(rows), mine, stage, kl_weight=weight, whole=indices)
        else:
            loss, parts = self.sft_loss(there.around(rows), mine, stage, kl_weight=weight, whole=indices)
        if self.neighbours:
            parts["neighbour_tokens"] = float(there.tokens)
        for kept in self.kept:
            more, told = self.kept_loss(rows, there, kept, state.step, offset=state.stage)
            loss = loss + more
            parts.update({key: parts.get(key, 0.0) + value for key, value in told.items()})
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
        state.first.mul_(0.9).add_(grad, alpha=0.1)
        state.second.mul_(0.999).addcmul_(grad, grad, value=0.001)
        step = (state.first / (1 - 0.9**state.updates)) / ((state.second / (1 - 0.999**state.updates)).sqrt() + 1e-8)
        state.rows = (state.rows * (1 - rate * self.section.weight_decay) - rate * step).detach()
        if self.neighbours:
            state.rows = within(state.rows, self.neighbours.largest)
        return value, {**parts, "gradient": norm, "rate": rate}

    def _validate(self, state: State, name: str) -> None:
        if self.validate is None:
            return
        found = self.validate(state.rows)
        found["score"] = self.split.of_first(found["score"], self.base)
        state.history.append({"stage": name, "step": state.step, "validation": found})
        # For the frontier: a checkpoint that was not the best may suit another taste.
        if self.run_folder and self.split.rank == 0:
            save_rows(self.run_folder / "prefixes" / f"{name.lower()}-{state.step:05d}.safetensors", state.rows)
        state.stale = 0 if found["score"] > state.best_score else state.stale + 1
        # Of equal ones the later: it has had more of what the score does not see.
        if found["score"] >= state.best_score or self.section.keep == "last":
            state.best, state.best_score = state.rows.clone(), found["score"]
            state.best_at = f"{name} step {state.step}"


def train(
    base: Base,
    data: TrainingSet,
    rows: torch.Tensor,
    section: TrainingSection,
    *,
    seed: int,
    run: Path | None = None,
    validate: Validate | None = None,
    reference_log_probs: ReferenceLogProbs | None = None,
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
        run: Folder of the checkpoint; an earlier one of the same data and settings is resumed. Every validated prefix
            stays in its folder ``prefixes``.
        validate: Scores a prefix; the best is returned. Without it the last is.
        reference_log_probs: Needed only for ``dpo.reference = "reference"``.
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
    )  # fmt: skip
    settings: list[Any] = [settings_of(section), seed, list(rows.shape), rows.sum().item()]
    identity = digest_json(
        [data.digest(), *settings, *_word_settings(balance), *_word_settings(avoid), *_company(neighbours, kept)]
    )
    path = run / "training.safetensors" if run else None
    state = load_state(path, identity) if path and path.exists() else None
    if state is None:
        zeros = rows.new_zeros(rows.shape)
        state = State(rows.clone(), zeros.clone(), zeros.clone(), rows.clone(), rows.clone())
    split.wait()
    keeps = path if split.rank == 0 else None
    return trainer.run(state, lambda s: save_state(keeps, s, identity) if keeps else None)


def _share(mine: Sequence[tuple[str, str]], whole: Sequence[tuple[str, str]], risk: str) -> float:
    """Which part of a step's harmful prompts of a risk, or of any, is here; each is (kind, risk)."""
    count = [sum(kind == "harmful" and risk in ("", own) for kind, own in part) for part in (mine, whole)]
    return count[0] / max(1, count[1])


def settings_of(section: TrainingSection) -> dict[str, Any]:
    """A section as its checkpoints know it: keys that came later are left out where they are not used."""
    unused: dict[str, Any] = {key: True for key in ("neighbours", "distil") if getattr(section, key) is None}
    unused |= {"keep": True} if section.keep == "best" else {}
    near, distil = section.neighbours, section.distil
    if near is not None and near.keep is not None and near.keep.balance is None:
        unused["neighbours"] = {"keep": {"balance"}}
    if distil is not None and distil.balance is None:
        unused["distil"] = {"balance"}
    return section.model_dump(mode="json", exclude=unused)


def _word_settings(loss: Balance | Avoid | None) -> list[Any]:
    if loss is None:
        return []
    return [{key: value for key, value in asdict(loss).items() if key != "risk" or value}]


def _company(neighbours: Neighbours | None, kept: Sequence[Kept]) -> list[Any]:
    """Identity of everything that stands beside the data."""
    found: list[Any] = [part.digest() for part in kept]
    if neighbours:
        found.append([[list(rows.shape), rows.double().sum().item()] for rows in neighbours.patches])
        found.append(neighbours.largest)
    return found
