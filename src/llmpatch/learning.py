"""From a recipe to trained rows: read its prompts, make or take its pairs, train.

    material = gather(recipe)
    result, counts = learn(material, load_base(recipe.base.name), Path("runs/refusal"), console())

:mod:`llmpatch.building` measures the rows and writes the patch; ``llmpatch train`` stops here, on many processes if need be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.batching import shares
from llmpatch.distributed import ALONE, Split
from llmpatch.errors import RecipeError, UsageError
from llmpatch.files import digest_json, read_bytes
from llmpatch.joining import join_pairs, join_validations, parts_of
from llmpatch.pair_shards import PairShards, draw, identity_of
from llmpatch.pairing import check_judge, check_models, open_models, sample_pairs
from llmpatch.pairs import Dropped, Pair, save_pairs, summarise
from llmpatch.progress import Progress
from llmpatch.prompts import KINDS, Kind, Prompt, check_ids, load_prompts

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base
    from llmpatch.recipe import PromptSet, Recipe
    from llmpatch.training import TrainingResult
    from llmpatch.training_recipe import TrainingSection
    from llmpatch.word_losses import Avoid

MOST_PAIRS = 20_000  # of each kind, of pairs that were made before: what a training can see at all
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Prompts:
    """The prompts of a recipe, on both sides of its split."""

    train: list[Prompt]
    validation: list[Prompt]


@dataclass(frozen=True)
class Material:
    """What a training is made of, before any model is loaded.

    Attributes:
        parts: The recipe and those it is joined with, itself first.
        prompts: Of each part; those to train on are empty where pairs were made before.
        before: Pairs that were made before, and of how many they are.
    """

    parts: list[Recipe]
    prompts: list[Prompts]
    before: tuple[list[Pair], Counts] | None = None


def gather(recipe: Recipe, pairs_from: Path | None = None) -> Material:
    """Read a recipe's prompts, and its pairs where they were made before.

    Args:
        recipe: What to train.
        pairs_from: A folder of pairs that were made of this recipe (:mod:`llmpatch.pair_workers`).

    Raises:
        UsageError: a wrong set of prompts or judge, a secret in the recipe, or ``pairs_from`` is not of this recipe.
        RecipeError: the recipe cannot be built as it stands, as one whose training sees a cluster of its validation.
        IntegrityError: ``pairs_from`` is damaged.
    """
    from llmpatch.company import kept_prompts
    from llmpatch.references import check_reference

    parts = parts_of(recipe)
    for part in parts:
        check_reference(part.reference)
        if ":" not in part.pairs.judge:  # else it is a model, which a dry run does not load
            check_judge(part)  # it chooses the checkpoint too, also where no pairs are made
    _check_rows(recipe.training, [kind for kind in KINDS if any(getattr(part.prompts, kind) for part in parts)])
    before = pairs_of(recipe, pairs_from) if pairs_from else None
    prompts = [read_prompts(part, train=not before) for part in parts]
    asked = [*kept_prompts(recipe), *(p for one in prompts for p in one.train)]
    _check_apart(asked, [p for one in prompts for p in one.validation])
    return Material(parts, prompts, before)


def learn(
    material: Material, base: Base, run: Path, progress: Progress, *, split: Split = ALONE, recompute: bool = False
) -> tuple[TrainingResult, Counts]:
    """Make the pairs, where they are not made yet, and train.

    Args:
        material: Of what.
        base: ``M``.
        run: Folder of answers, pairs and the checkpoint.
        progress: Where to show progress.
        split: The processes that train together; every one of them calls this.
        recompute: Keep one input per layer in a step, and compute the rest again (:mod:`llmpatch.recomputing`).

    Returns:
        The trained rows, and how many pairs of each kind were kept and dropped.

    Raises:
        UsageError: nothing to learn from, or nothing about a risk; a validation prompt that does not fit the context.
        LlmpatchError: any stage failed; what was done stays in ``run``.
    """
    from llmpatch.company import balance_of, check_company, neighbour_tokens
    from llmpatch.validation import check_fits

    first = material.parts[0]
    check_company(first, base)
    start_rows(first, base)
    for part in material.parts:
        avoided(part, base)
        balance_of(part.balance, base)
    near = first.training.neighbours
    others = sum(neighbour_tokens(first)) if near is not None and near.validate_together else 0
    if near is not None and near.parallel and others:
        others -= len(near.patches)  # side by side all share one first position
    for part, found in zip(material.parts, material.prompts, strict=True):
        check_fits(part, base, found.validation, first.prefix.tokens + others)
    with split.first_alone():
        paired = bool(material.parts[0].training.pairs_weight)
        if material.before:
            made: list[tuple[list[Pair], list[Dropped]]] = [(material.before[0], [])]
        elif paired:
            for part in material.parts[1:]:  # before the first one asks for an hour
                check_models(part)
            asked = zip(material.parts, material.prompts, strict=True)
            made = [sample_pairs(part, open_models(part, base), p.train, run, progress) for part, p in asked]
        else:
            made = [([], []) for _ in material.parts]
        pairs, dropped = [pair for own, _ in made for pair in own], [lost for _, own in made for lost in own]
        counts = material.before[1] if material.before else summarise(pairs, dropped)
        if paired and split.rank == 0:
            save_pairs(run, pairs, dropped)
    if paired:
        for part, (own, lost) in zip(material.parts, made, strict=True):
            _check_teaches(part, own, lost)
    joint = [
        (part, own, p.validation) for part, (own, _), p in zip(material.parts, made, material.prompts, strict=True)
    ]
    recipe, own, validation = joint[0]
    result = train_prefix(
        recipe, base, own, validation, run, progress, joint=joint[1:], split=split, recompute=recompute
    )
    return result, counts


def _check_teaches(recipe: Recipe, pairs: Sequence[Pair], dropped: Sequence[Dropped]) -> None:
    """Hours of training on harmless prompts alone would teach nothing about the risk.

    Raises:
        UsageError: no harmful pair is left.
    """
    if any(pair.kind == "harmful" for pair in pairs):
        return
    reasons = Counter(lost.reason for lost in dropped if lost.kind == "harmful").most_common(1)
    why = f": {reasons[0][1]} times because {reasons[0][0]}" if reasons else ""
    if recipe.pairs.focus:
        raise UsageError(
            f"{recipe.pairs.focus.judge} finds nothing wrong in any answer, or nothing said instead is better{why}",
            hint="lower pairs.focus.threshold, raise pairs.max_prompt_tokens, or add prompts",
        )
    raise UsageError(
        f"{recipe.name}: no pair of a harmful prompt passed the filter by {recipe.pairs.judge}{why}",
        hint="use a reference that handles such prompts right, the judge of this risk, or a lower pairs.margin and pairs.winner",
    )


def pairs_of(recipe: Recipe, folder: Path) -> tuple[list[Pair], Counts]:
    """Pairs that were made of a recipe before, at most ``MOST_PAIRS`` of each kind, and of how many they are.

    Raises:
        UsageError: they are of another recipe, or not all made yet; the recipe is joined with others.
        IntegrityError: the folder is damaged.
    """
    if recipe.joint:
        raise UsageError("pairs made before go with a recipe of one risk", hint="build joined recipes without them")
    shards = PairShards.load(folder)
    if shards.identity != identity_of(recipe):
        raise UsageError(
            f"{folder} was not made of this recipe: its base, reference, decoding, prompts or pairs differ, or their files",
            hint="run `llmpatch pairs` for this recipe, into another folder where it asks for other answers",
        )
    return draw(shards, MOST_PAIRS, recipe.seed)


def read_prompts(recipe: Recipe, *, train: bool = True) -> Prompts:
    """All prompt sets of a recipe; without ``train`` those for validation only.

    Raises:
        UsageError: a missing, empty or malformed set.
        RecipeError: a cluster that is on both sides of the split.
    """
    asked: list[Prompt] = []
    validation: list[Prompt] = []
    for kind in KINDS:
        section: PromptSet | None = getattr(recipe.prompts, kind)
        if section is None:
            continue
        if train:
            asked += _read(section, section.train, kind, section.limit)
        validation += _read(section, section.validation, kind, section.validation_limit)
    _check_apart(asked, validation)
    return Prompts(asked, validation)


def _check_apart(asked: Sequence[Prompt], validation: Sequence[Prompt]) -> None:
    shared = {p.cluster for p in asked} & {p.cluster for p in validation}
    if shared:
        raise RecipeError(
            f"{len(shared)} clusters are in both training and validation prompts, e.g. {sorted(shared)[0]}",
            hint="split by `cluster`, never by row",
        )


def _check_rows(training: TrainingSection, kinds: Sequence[Kind]) -> None:
    """Whether every kind of prompts that has a share of the mix has a row in each step.

    Raises:
        RecipeError: names the kind, and the stage whose batches are too small.
    """
    for name, stage in (("sft", training.sft), ("dpo", training.dpo)):
        if not training.pairs_weight or not stage.steps:
            continue
        for kind, rows in shares(training.mix, stage.batch_size, kinds).items():
            if not rows and getattr(training.mix, kind):
                raise RecipeError(
                    f"training.{name}.batch_size {stage.batch_size} leaves no row for {kind} prompts, "
                    f"whose share of training.mix is {getattr(training.mix, kind):g}: they would never be learnt from",
                    hint=f"raise it, or mix.{kind}" + ("" if kind == "harmful" else f"; or set mix.{kind} to 0"),
                )


def _read(section: PromptSet, paths: Sequence[str], kind: Kind, limit: int | None) -> list[Prompt]:
    found = [replace(p, kind=kind, form=section.form) for path in paths for p in load_prompts(Path(path), kind)]
    check_ids(found, f"the {kind} prompts of {', '.join(paths)}")
    return found[:limit]


def train_prefix(
    recipe: Recipe,
    base: Base,
    pairs: list[Pair],
    validation: list[Prompt],
    run: Path,
    progress: Progress,
    *,
    joint: Sequence[tuple[Recipe, list[Pair], list[Prompt]]] = (),
    split: Split = ALONE,
    recompute: bool = False,
) -> TrainingResult:
    """Train the prefix on pairs, choosing the checkpoint on the validation prompts; ``joint`` are those of further risks."""
    from llmpatch.company import balance_of, open_company, validated_together
    from llmpatch.recomputing import recomputed
    from llmpatch.reference_likelihoods import reference_identity, reference_likelihoods
    from llmpatch.training import train
    from llmpatch.validation import make_validate, validated_by
    from llmpatch.weights import weights_digest

    start = start_rows(recipe, base)
    with split.first_alone():  # it may ask the base, into files
        company = open_company(recipe, base, start, run, progress)
    weights = weights_digest(base)
    split.shard(base)
    parts = [recipe, *(part for part, _, _ in joint)]
    prompts = [validation, *(found for _, _, found in joint)]
    checks = [make_validate(part, base, found) for part, found in zip(parts, prompts, strict=True)]
    balancing = next((part for part in parts if part.balance is not None), recipe)
    avoiding = next((part for part in parts if part.avoid is not None), recipe)
    data = join_pairs(base, parts, [pairs, *(own for _, own, _ in joint)])
    with recomputed(base) if recompute else nullcontext():
        return train(
            base,
            data,
            start,
            recipe.training,
            seed=recipe.seed,
            run=run,
            validate=validated_together(recipe, company, join_validations(parts, checks)),
            reference_log_probs=reference_likelihoods(recipe, base, pairs, data, progress),
            reference_identity=reference_identity(recipe, base, pairs),
            base_weights=weights,
            validated_by=digest_json([validated_by(part, found) for part, found in zip(parts, prompts, strict=True)]),
            progress=progress,
            balance=balance_of(balancing.balance, base, balancing.risk if joint else ""),
            avoid=avoided(avoiding, base, avoiding.risk if joint else ""),
            neighbours=company.neighbours,
            kept=company.kept,
            split=split,
        )


def start_rows(recipe: Recipe, base: Base) -> torch.Tensor:
    """The rows that training starts from, float32 [tokens, hidden_size].

    Raises:
        UsageError: no such file of earlier rows, or rows that do not fit this base or ``prefix.tokens``.
        IntegrityError: the file is not one finite tensor of rows.
    """
    import torch

    from llmpatch.artifact.tensors import MAX_TENSOR_BYTES, decode_tensor
    from llmpatch.prefix import init_prefix

    section = recipe.prefix
    if section.path is None:
        return init_prefix(base, section, recipe.seed)
    earlier = decode_tensor(read_bytes(Path(section.path), limit=MAX_TENSOR_BYTES), where=section.path).embeddings
    wanted = (section.tokens, base.hidden_size)
    if earlier.shape != wanted:
        raise UsageError(
            f"{section.path} has rows of shape {list(earlier.shape)}; {base.name} with prefix.tokens "
            f"{section.tokens} needs {list(wanted)}",
            hint="start from a patch of the same base, with as many tokens",
        )
    return torch.from_numpy(earlier.copy())


def avoided(recipe: Recipe, base: Base, risk: str = "") -> Avoid | None:
    """The words that a recipe avoids, as token ids; only after prompts of ``risk``, if one is named.

    Raises:
        UsageError: the base's vocabulary has none of them.
    """
    from llmpatch.judges.gender_words import WIDE
    from llmpatch.vocabulary import word_tokens
    from llmpatch.word_losses import Avoid

    section = recipe.avoid
    if section is None:
        return None
    ids = word_tokens(base, WIDE)
    if not ids:
        raise UsageError(
            f"the tokenizer of {base.name} has no single token for any of the words of avoid", hint="leave avoid out"
        )
    return Avoid(section.weight, ids, risk)
