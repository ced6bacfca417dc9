"""What ``M'`` itself finds likely: the DPO reference of Eq. 3 (arXiv 2511.08484), where ``M'`` is a model that runs here.

    log_probs = reference_likelihoods(recipe, base, pairs, data)     # None where the recipe's DPO has another reference
    log_probs(examples)                                             # [len(examples), 2]: chosen, rejected

``M'`` may have another tokenizer and another chat template: it reads the same prompt in its own form and the same text of both
answers, cut where training cuts them. It is loaded when it is first asked, and let go after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llmpatch.files import digest_json, sampled
from llmpatch.losses import pair_log_probs
from llmpatch.pairs import encode

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base
    from llmpatch.batching import Example
    from llmpatch.pairs import Pair
    from llmpatch.progress import Progress
    from llmpatch.recipe import Recipe
    from llmpatch.step_losses import ReferenceLogProbs
    from llmpatch.training_data import TrainingSet


def reference_likelihoods(
    recipe: Recipe, base: Base, pairs: Sequence[Pair], data: TrainingSet, progress: Progress
) -> ReferenceLogProbs | None:
    """The log-probabilities of both answers of a pair under ``M'``.

    Args:
        recipe: Names ``M'``, and how far answers are cut.
        base: ``M``, in whose tokens the examples are.
        pairs: All of them.
        data: The same as token ids, in the same order.
        progress: Where to show progress.
    """
    stage = recipe.training.dpo
    if stage.reference != "reference" or not stage.steps:
        return None
    texts = dict(zip(data.examples, pairs, strict=True))

    def log_probs(examples: Sequence[Example]) -> torch.Tensor:
        from llmpatch.bases import load_base

        reference = load_base(recipe.reference.model or "", recipe.reference.revision)
        cut = [_cut(base, texts[example], example, stage.answer_tokens) for example in examples]
        told = encode(reference, cut, system=recipe.reference.system)
        with progress.stage("Likelihoods under M'", len(cut)) as advance:
            longest = max(len(answer) for e in told.examples for answer in (e.chosen, e.rejected))
            return pair_log_probs(reference, None, told.head, told.examples, answer_tokens=longest, advance=advance)

    return log_probs


def reference_identity(recipe: Recipe, base: Base, pairs: Sequence[Pair]) -> str:
    """A digest of all that :func:`reference_likelihoods` depends on: the model's files, its system message, the texts.

    Empty where it is not asked, or comes from a hub without a commit: then nobody knows what will be there next time.
    """
    from llmpatch.catalogue import locate

    section, stage = recipe.reference, recipe.training.dpo
    if stage.reference != "reference" or not stage.steps:
        return ""
    place = locate(section.model or "")
    if place is None and not re.fullmatch("[0-9a-f]{40}", section.revision or ""):
        return ""
    files = sampled(place) if place else [section.model, section.revision]
    asked = [[p.prompt, p.form, p.chosen, p.rejected, p.chosen_ends, p.rejected_ends] for p in pairs]
    return digest_json([files, section.system, stage.answer_tokens, base.fingerprint.tokenizer, asked])


def _cut(base: Base, pair: Pair, example: Example, tokens: int) -> Pair:
    """The pair's answers as far as training reads them; one that was cut does not end there."""
    before = base.text_ids(pair.prompt) if pair.form == "raw" else []

    def text(ids: Sequence[int]) -> str:
        cut = list(ids[:tokens])
        return base.continuation(before, cut) if before else base.decode(cut)

    return replace(
        pair,
        chosen=text(example.chosen),
        rejected=text(example.rejected),
        chosen_ends=pair.chosen_ends and len(example.chosen) <= tokens,
        rejected_ends=pair.rejected_ends and len(example.rejected) <= tokens,
    )
