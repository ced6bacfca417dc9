"""What stands beside a recipe's own pairs in training: frozen neighbours, and prompts on which something is kept or learnt.

    company = open_company(recipe, base, start, run, progress)
    train(..., neighbours=company.neighbours, kept=company.kept)

Reads patches and prompts, and asks stacks for their own answers. What is done with them is in ``neighbours`` and ``training``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmpatch.answers import Answer
from llmpatch.artifact import Patch, input_norm_p999
from llmpatch.artifact import load_patch as load_from_path
from llmpatch.batching import Example
from llmpatch.errors import UsageError
from llmpatch.evals.systems import SystemModel, Titled
from llmpatch.neighbours import Arrangement, Neighbours
from llmpatch.neighbours import together as joined
from llmpatch.prefix import Rows, check_room, check_side_by_side, common_head
from llmpatch.progress import Progress
from llmpatch.prompts import Form, Prompt, load_prompts
from llmpatch.references import collect
from llmpatch.training_data import Kept, TrainingSet
from llmpatch.word_losses import Balance

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base
    from llmpatch.recipe import Recipe
    from llmpatch.training import Validate
    from llmpatch.training_recipe import BalanceSection, KeepSection


@dataclass(frozen=True, eq=False)
class Company:
    """Everything beside the pairs.

    Attributes:
        neighbours: Frozen rows and where they may stand; ``None`` without any.
        kept: Answers on which a stack is kept or learnt.
        together: All published neighbours in the order listed, or side by side; ``None`` without any.
    """

    neighbours: Neighbours | None = None
    kept: tuple[Kept, ...] = ()
    together: Rows | None = None


def open_company(recipe: Recipe, base: Base, start: torch.Tensor, run: Path, progress: Progress) -> Company:
    """Read the neighbours of a recipe and what it learns from, and ask them what they say.

    Args:
        recipe: With ``training.neighbours``, ``training.distil``, both or neither.
        base: The model they must be made for.
        start: The rows that training starts from, [tokens, hidden_size].
        run: The answers are kept in its folder ``answers``.
        progress: Where to show progress.

    Raises:
        WrongBaseError: a patch for another base.
        UsageError: no such patch or prompts, patches that cannot be put together, or too many tokens for the context.
        IntegrityError: a damaged patch.
    """
    check_company(recipe, base)
    section = recipe.training.neighbours
    kept: list[Kept] = []
    neighbours, together = None, None
    if section is not None:
        frozen = _rows_of(section.patches, base)
        together = joined(frozen, parallel=section.parallel)
        largest = section.norm_budget * input_norm_p999(base) if section.norm_budget else None
        neighbours = Neighbours(tuple(frozen), section, largest)
        if section.keep is not None and section.keep.weight:
            kept.append(_kept(recipe, base, section.keep, together, None, run, progress))
    for part in recipe.training.distil:
        if part.weight:
            stack = joined(_rows_of(part.patches, base), parallel=False)
            speaker = {"patches": stack, "base": None, "start": start}[part.answers]
            found = _kept(recipe, base, part, speaker, stack, run, progress)
            there = section.patches if section is not None and part.beside else []
            kept.append(replace(found, beside=tuple(there.index(path) for path in part.patches if part.beside)))
    return Company(neighbours, tuple(kept), together)


def validated_together(recipe: Recipe, company: Company, validate: Validate) -> Validate:
    """A validation by the lower of the scores alone and behind all neighbours, where the recipe asks for it."""
    section = recipe.training.neighbours
    if section is None or not section.validate_together:
        return validate
    others = company.neighbours.patches if company.neighbours else ()

    def both(rows: Rows) -> dict[str, float]:
        trained = cast("torch.Tensor", rows)
        there = Arrangement(tuple(other.to(trained) for other in others), (), section.parallel)
        alone, stacked = validate(rows), validate(there.around(trained))
        return {**alone, **{f"together_{key}": value for key, value in stacked.items()},
                "score": min(alone["score"], stacked["score"])}  # fmt: skip

    return both


def company_files(recipe: Recipe) -> list[str]:
    """Every file that a recipe names for its company: prompts, and the manifest of each patch, which names all others."""
    section, distil = recipe.training.neighbours, recipe.training.distil
    patches = [*(section.patches if section else ()), *(path for part in distil for path in part.patches)]
    found = [path for part in _kept_sections(recipe) for path in [*part.chat, *part.raw]]
    return [*found, *(str(_manifest(load_from_path(path))) for path in dict.fromkeys(patches))]


def check_company(recipe: Recipe, base: Base) -> None:
    """Whether the patches that a recipe names can be used with its base, before anything is asked.

    Raises:
        WrongBaseError: a patch for another base.
        UsageError: no such patch, patches that cannot be put together, words to balance that the vocabulary does not have, or
            too many tokens for the context.
        IntegrityError: a damaged patch.
    """
    section = recipe.training.neighbours
    if section is not None:
        together = joined(_rows_of(section.patches, base), parallel=section.parallel)
        others = (0 if together is None else len(together)) + section.random * section.random_tokens
        check_room(base, recipe.prefix.tokens + others)
        if section.parallel:
            check_side_by_side(base)
    for part in recipe.training.distil:
        if part.weight:
            check_room(base, sum(len(rows) for rows in _rows_of(part.patches, base)))
    for kept in _kept_sections(recipe):
        balance_of(kept.balance, base)


def neighbour_tokens(recipe: Recipe) -> list[int]:
    """The virtual tokens of each published patch that a recipe trains beside (errors as :func:`open_company`)."""
    section = recipe.training.neighbours
    return [load_from_path(path).manifest.prefix.tokens for path in (section.patches if section else ())]


def kept_prompts(recipe: Recipe) -> list[Prompt]:
    """What a recipe's keep and distil sections ask: a training sees it as it sees the prompts of pairs.

    Raises:
        UsageError: a missing or malformed file.
    """
    kept = [part for part in _kept_sections(recipe) if part.weight]
    asked = [(path, part.limit) for part in kept for path in (*part.chat, *part.raw)]
    return [prompt for path, limit in dict.fromkeys(asked) for prompt in load_prompts(Path(path))[:limit]]


def _kept_sections(recipe: Recipe) -> list[KeepSection]:
    """All that name prompts on which something is kept or learnt."""
    section = recipe.training.neighbours
    return [part for part in (section.keep if section else None, *recipe.training.distil) if part is not None]


def _manifest(patch: Patch) -> Path:
    return patch.path / "patch.json" if patch.path.is_dir() else patch.path


def _rows_of(paths: Sequence[str], base: Base) -> list[torch.Tensor]:
    """The rows of patches, each checked against the base and all against each other."""
    import torch

    from llmpatch.store import check_one_base, check_together, facts_of

    patches = [load_from_path(path) for path in paths]
    for patch in patches:
        patch.check_base(base)
    if patches:
        check_one_base(patches)
        check_together([facts_of(patch.manifest, patch.digest) for patch in patches])
    if composed := next((path for path, patch in zip(paths, patches, strict=True) if patch.manifest.arrangement), None):
        raise UsageError(
            f"{composed} holds patches side by side, and training arranges patches itself",
            hint="name the single patches instead",
        )
    return [torch.tensor(patch.embeddings) for patch in patches]


def _kept(
    recipe: Recipe,
    base: Base,
    section: KeepSection,
    speaker: Rows | None,
    reference: Rows | None,
    run: Path,
    progress: Progress,
) -> Kept:
    """Prompts with what ``M`` behind ``speaker`` says to them."""
    examples: list[tuple[Prompt, str, Answer]] = []
    sampled = {"temperature": section.temperature, "top_p": section.top_p, "max_new_tokens": section.answer_tokens}
    stems = [Path(path).stem for path in (*section.chat, *section.raw)]
    for form, paths in (("chat", section.chat), ("raw", section.raw)):
        for path in paths:
            prompts = _short(recipe, base, Path(path), form, section.limit)
            decoding = recipe.decoding.model_copy(update=sampled)
            model = SystemModel(base, decoding, None, form == "raw", speaker)
            found = collect(model, prompts, run / "answers", progress=Titled(progress, f"Answers to go by: {path}"))
            stem = Path(path).stem if stems.count(Path(path).stem) == 1 else f"{form} {path}"  # a share for each file
            examples += [(p, stem, answer) for p, answer in zip(prompts, found, strict=True) if answer.text.strip()]
    if not examples:
        raise UsageError("nothing is said to any of the prompts to keep or to distil", hint="choose other prompts")
    data, balance = _encode(base, examples), balance_of(section.balance, base)
    raw = frozenset(i for i, (prompt, _, _) in enumerate(examples) if prompt.form == "raw" and balance)
    return Kept(data, section.weight, section.batch_size, section.answer_tokens, reference, balance, raw, section.kl)


def balance_of(section: BalanceSection | None, base: Base, risk: str = "") -> Balance | None:
    """The words that a recipe balances, as token ids: the very ones that the eval counts; only after prompts of ``risk``."""
    from llmpatch.evals.gender_bias import pronoun_ids
    from llmpatch.judges.gender_words import PRONOUNS

    if section is None:
        return None
    ids = pronoun_ids(base)
    male, female = (tuple(i for word, i in ids.items() if PRONOUNS[word] == of) for of in ("male", "female"))
    return Balance(section.weight, male, female, risk)


def _short(recipe: Recipe, base: Base, path: Path, form: str, limit: int | None) -> list[Prompt]:
    """The first prompts of a file that are no longer than the recipe's pairs may be."""
    wanted: Form = "raw" if form == "raw" else "chat"
    every = [replace(p, form=wanted) for p in load_prompts(path)][:limit]
    most = recipe.pairs.max_prompt_tokens
    found = [p for p in every if len(base.prompt_ids(p.text, raw=form == "raw")) <= most]
    if not found:
        raise UsageError(f"{path}: all prompts have more than {most} tokens", hint="raise pairs.max_prompt_tokens")
    return found


def _encode(base: Base, examples: Sequence[tuple[Prompt, str, Answer]]) -> TrainingSet:
    """Token ids, an equal share of each batch for each file."""
    prompts = [base.prompt_ids(p.text, raw=p.form == "raw") for p, _, _ in examples]
    head = common_head(prompts)
    end = (base.turn_end,) if base.turn_end is not None else ()
    made = []
    for ids, (prompt, stem, answer) in zip(prompts, examples, strict=True):
        before = prompt.text if prompt.form == "raw" else ""
        said = tuple(base.continuation_ids(before, answer.text))
        ended = end if prompt.form == "chat" and answer.finish == "stop" else ()
        made.append(Example("everyday", tuple(ids[len(head) :]), (*said, *ended), (), stem))
    return TrainingSet(head, made)
