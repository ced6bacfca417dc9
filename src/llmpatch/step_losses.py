"""The losses of one step: likelihood, DPO, KL to the base on benign answers, single words, answers that are kept.

    losses = StepLosses(base, TrainingSet(head, examples), recipe.training, seed=0)
    loss, parts = losses.sft_loss(rows, losses.indices(section.sft, step=3, offset=0), section.sft)

Which examples a step has depends on the seed and its number only. What the base and the DPO reference give is computed once per
run. Knows no optimiser and no state of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.bases import Base
from llmpatch.batching import Batch, Example, Walks, choose, groups_by_length, make_batch, shares
from llmpatch.checkpoints import load_log_probs, save_log_probs
from llmpatch.distributed import ALONE, Split
from llmpatch.errors import UsageError
from llmpatch.files import digest_json
from llmpatch.losses import (
    answer_log_probs,
    dpo_loss,
    hidden_states,
    kept_losses,
    kl_to_base,
    pair_log_probs,
    per_answer,
)
from llmpatch.neighbours import Arrangement, Neighbours, arrange
from llmpatch.prefix import Rows, check_head, prefix_digest
from llmpatch.progress import Progress, Silent
from llmpatch.training_data import Kept, TrainingSet
from llmpatch.word_losses import Avoid, Balance, imbalance, said

if TYPE_CHECKING:
    import torch

    from llmpatch.training_recipe import DPOSection, StageSection, TrainingSection

# (examples) -> [len, 2] summed log-probabilities of (chosen, rejected): the DPO reference when it is M' itself.
ReferenceLogProbs = Callable[[list[Example]], "torch.Tensor"]


class StepLosses:
    """What one run computes in each of its steps."""

    def __init__(
        self,
        base: Base,
        data: TrainingSet,
        section: TrainingSection,
        *,
        seed: int,
        reference_log_probs: ReferenceLogProbs | None = None,
        progress: Progress | None = None,
        balance: Balance | None = None,
        avoid: Avoid | None = None,
        neighbours: Neighbours | None = None,
        split: Split = ALONE,
    ) -> None:
        if section.pairs_weight and not data.examples:
            raise UsageError(
                "there is nothing to train on: no pair passed the filter", hint="loosen pairs.margin or pairs.winner"
            )
        check_head(base)
        self.base, self.data, self.section, self.seed, self.split = base, data, section, seed, split
        self.balance, self.avoid, self.neighbours = balance, avoid, neighbours
        self.reference_log_probs, self.progress = reference_log_probs, progress or Silent()
        self._base_hidden: dict[tuple[int, int], torch.Tensor] = {}
        self._pair_reference: dict[int, torch.Tensor] = {}
        self._walks = Walks(data.examples)
        self._asked: dict[int, frozenset[int]] = {}
        self._groups: dict[int, dict[int, list[int]]] = {}

    def indices(self, stage: StageSection, step: int, offset: int) -> list[int]:
        """The examples of one step of SFT (offset 0) or DPO (1)."""
        counts = shares(self.section.mix, stage.batch_size, self._walks.kinds)
        return self._walks.choose(counts, seed=self.seed + 7919 * offset, step=step)

    def policy(self, rows: Rows, batch: Batch) -> torch.Tensor:
        """Hidden states of what is trained, [N, hidden_size]: here the frozen base behind the prefix."""
        return hidden_states(self.base, rows, self.data.head, batch)

    def sft_loss(
        self,
        rows: Rows,
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
        rows: Rows,
        indices: list[int],
        stage: DPOSection,
        *,
        kl_weight: float | None = None,
        whole: list[int] | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """DPO on every pair, plus the benign KL of :meth:`sft_loss` and ``sft_weight`` of the chosen likelihood.

        ``benign_nll_weight`` is of SFT alone: published runs were trained so.
        """
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

    def computed_with(self, index: int, cut: int) -> list[int]:
        """The examples of which everything that is computed once is computed when it is for this one."""
        return self._group_of(cut).get(index, [index])

    def end_stage(self, offset: int) -> None:
        """Let go of the base's states that no stage after SFT (offset 0) or DPO (1) asks for."""
        cuts = {cut for _, cut in self._base_hidden}  # none where no KL is taken: then nothing is walked for it
        later = {(i, cut) for cut in cuts for i in self._asked_of(cut, after=offset)}
        # States of one group are views of one tensor, and a single view would hold all of it.
        self._base_hidden = {key: states.clone() for key, states in self._base_hidden.items() if key in later}

    def _asked_of(self, cut: int, *, after: int = -1) -> frozenset[int]:
        """The benign examples of all steps whose answers are cut there, in stages after a number."""
        found: frozenset[int] = frozenset()
        for offset, stage in enumerate((self.section.sft, self.section.dpo)):
            if offset <= after or stage.answer_tokens != cut:
                continue
            if offset not in self._asked:
                every = {i for step in range(stage.steps) for i in self.indices(stage, step, offset)}
                self._asked[offset] = frozenset(i for i in every if self.data.examples[i].kind != "harmful")
            found |= self._asked[offset]
        return found

    def _group_of(self, cut: int) -> dict[int, list[int]]:
        """The group of each benign example: of data, settings and seed alone, so that a resumed run has the same."""
        if cut not in self._groups:
            groups = groups_by_length(self.data.examples, self._asked_of(cut))
            self._groups[cut] = {i: group for group in groups for i in group}
        return self._groups[cut]

    def _base_states(self, indices: list[int], cut: int) -> list[torch.Tensor]:
        """The un-prefixed base's hidden states behind each example's chosen answer, computed once per run.

        They are computed in fixed groups of similar length, so that a resumed run gets the same bits; first of all of what the
        run's steps ask for, which may be few of many examples.
        """
        import torch

        missing = {tuple(self._group_of(cut)[i]) for i in indices if (i, cut) not in self._base_hidden}
        for group in sorted(missing):
            examples = [self.data.examples[i] for i in group]
            batch = make_batch(examples, past=len(self.data.head), answer_tokens=cut, rejected=False)
            with torch.no_grad():
                hidden = hidden_states(self.base, None, self.data.head, batch)
            counts = [len(e.chosen[:cut]) for e in examples]
            self._base_hidden.update(zip([(i, cut) for i in group], torch.split(hidden, counts), strict=True))
        return [self._base_hidden[i, cut] for i in indices]

    def _batch(self, rows: Rows, indices: list[int], cut: int, *, rejected: bool) -> Batch:
        past = len(rows) + len(self.data.head)
        return make_batch([self.data.examples[i] for i in indices], past=past, answer_tokens=cut, rejected=rejected)

    def prepare_reference(
        self, after_sft: torch.Tensor, stage: DPOSection, *, path: Path | None = None, identity: str = ""
    ) -> None:
        """Log-probabilities of both answers under the DPO reference policy, once for all steps.

        Always without neighbours: beside them, too, the patch is to do what it does alone.

        Args:
            after_sft: The rows that DPO begins with.
            stage: Which reference, and which pairs its steps ask for.
            path: Where they are kept; what lies there of another run, or damaged, is replaced.
            identity: What they depend on beside these, as a digest.
        """
        import torch

        needed = sorted({i for step in range(stage.steps) for i in self.indices(stage, step, offset=1)})
        missing = [i for i in needed if i not in self._pair_reference]
        if stage.reference == "none":
            self._pair_reference.update((i, torch.zeros(2)) for i in missing)
            return
        rows = after_sft if stage.reference == "sft" else None
        policy = "" if rows is None else prefix_digest(rows)
        key = digest_json([identity, stage.reference, stage.answer_tokens, policy, missing])
        found = load_log_probs(path, key, len(missing)) if path else None
        # All of the processes compute them or none does: a base that is spread over them runs in all at once.
        if self.split.add_up(torch.tensor(float(found is None))) or found is None:
            found = self._reference_of(missing, rows, stage)
            if path and self.split.rank == 0:
                save_log_probs(path, found, key)
        self._pair_reference.update(zip(missing, found, strict=True))

    def _reference_of(self, indices: list[int], rows: torch.Tensor | None, stage: DPOSection) -> torch.Tensor:
        """[len(indices), 2], of ``M'`` itself or of the base behind rows."""
        examples = [self.data.examples[i] for i in indices]
        if stage.reference == "reference":
            if self.reference_log_probs is None:
                raise UsageError(
                    "training.dpo.reference is `reference`, but this reference gives text only, no likelihoods",
                    hint="use sft or base, or a reference of kind transformers",
                )
            return self.reference_log_probs(examples)
        with self.progress.stage("Reference log-probabilities", len(indices)) as advance:
            return pair_log_probs(
                self.base, rows, self.data.head, examples, answer_tokens=stage.answer_tokens, advance=advance
            )

    def arrangement(self, rows: torch.Tensor, step: int, offset: int) -> Arrangement:
        """Who stands around the rows in one step of SFT (offset 0) or DPO (1)."""
        return arrange(self.base, self.neighbours, rows.detach(), seed=self.seed + 7919 * offset, step=step)

    def kept_indices(self, part: Kept, step: int, offset: int) -> list[int]:
        """The kept answers of one step: each file gives an equal share of what it has."""
        pool = part.data.examples
        counts = {pool[0].kind: part.batch_size}  # they are all of one kind
        return choose(pool, counts, seed=self.seed + 7919 * offset + 104_729, step=step)

    def kept_losses(
        self, rows: torch.Tensor, there: Arrangement, kept: Sequence[Kept], step: int, offset: int
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The weighted losses on the step's kept answers: KL from the reference prefixes to the trained one where it stands now.

        With ``Kept.balance`` also the loss on its words, which has a weight of its own. Answers behind one head run together;
        those of ``Kept.beside`` only where its neighbours stand.
        """
        import torch

        groups: dict[tuple[tuple[int, ...], int], list[tuple[Kept, list[int], list[int]]]] = {}
        told = dict.fromkeys(["kept", *["kept_words" for part in kept if part.balance]], 0.0)
        if not (kept := [part for part in kept if there.who.issuperset(part.beside)]):
            return (0.0 * rows).sum(), told  # a step has a gradient, whoever stands there
        for part in kept:
            chosen = self.kept_indices(part, step, offset)
            group = groups.setdefault((tuple(part.data.head), part.answer_tokens), [])
            group.append((part, chosen, self.split.mine(chosen)))
        losses: list[torch.Tensor] = []
        for (head, cut), members in groups.items():
            asked = [
                (there.without() if part.rows is None else part.rows, [part.data.examples[i] for i in mine], part.kl)
                for part, _, mine in members
            ]
            kls, hidden, batch = kept_losses(self.base, there.around(rows), asked, list(head), answer_tokens=cut)
            first = 0
            for kl, (part, chosen, mine) in zip(kls, members, strict=True):
                losses.append(part.weight * kl * (len(mine) / len(chosen)))
                told["kept"] += float(kl.detach())
                if part.balance is not None:
                    after = [first + r for r, i in enumerate(mine) if i in part.balanced]
                    share = len(after) / max(1, sum(i in part.balanced for i in chosen))
                    losses.append(share * imbalance(self.base, hidden, batch, part.balance, after))
                    told["kept_words"] += float(losses[-1].detach())
                first += len(mine)
        return torch.stack(losses).sum(), told


def _share(mine: Sequence[tuple[str, str]], whole: Sequence[tuple[str, str]], risk: str) -> float:
    """Which part of a step's harmful prompts of a risk, or of any, is here; each is (kind, risk)."""
    count = [sum(kind == "harmful" and risk in ("", own) for kind, own in part) for part in (mine, whole)]
    return count[0] / max(1, count[1])
