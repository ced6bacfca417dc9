"""Ask both models, and pair what they say.

    models = open_models(recipe)
    pairs, dropped = sample_pairs(recipe, models, prompts, Path("runs/refusal"), console())

Answers are kept in shards below the run folder: an interrupted run goes on, a repeated one asks nothing. Prompts may be all of a
recipe's or a chunk of them (:mod:`llmpatch.pair_workers`): what is said to a prompt does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.errors import UsageError
from llmpatch.pairs import Dropped, Pair, make_pairs
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt

if TYPE_CHECKING:
    from llmpatch.answers import Answer
    from llmpatch.bases import Base
    from llmpatch.chunks import Dealt
    from llmpatch.judges import Judge
    from llmpatch.recipe import Recipe
    from llmpatch.references import Reference

DEATHS = 3  # of workers over one chunk, before it is called the chunk's fault


# What the judge of a risk's pairs measures.
MEASURES = {"refusal": "refusal", "personal-data": "refusal", "toxicity": "toxicity", "gender-bias": "gender"}


@dataclass(frozen=True, eq=False)
class Models:
    """Who is asked, and who judges.

    Attributes:
        base: ``M``.
        reference: ``M'``; ``None`` where the base is its own.
        judge: Of the pairs.
    """

    base: Base
    reference: Reference | None
    judge: Judge


def check_models(recipe: Recipe) -> None:
    """Find what is wrong about a recipe's judge and reference without loading a model.

    Raises:
        RecipeError: the reference lacks a key, or has one that would be ignored.
        UsageError: the judge is of another risk; a recording, a key or an extra is missing.
    """
    from llmpatch.references import check_reference

    check_judge(recipe)
    check_reference(recipe.reference)
    if recipe.reference.kind in ("recorded", "endpoint"):
        _open_reference(recipe)


def check_judge(recipe: Recipe) -> Judge:
    """The judge of a recipe's pairs and of its validation.

    Raises:
        UsageError: there is none of that name, or it is of another risk.
    """
    from llmpatch.judges import open_judge

    judge, wanted = open_judge(recipe.pairs.judge), MEASURES[recipe.risk]
    if judge.measures != wanted:
        raise UsageError(
            f"pairs.judge {judge.name} measures {judge.measures}, and the pairs of {recipe.risk} need one of {wanted}",
            hint="set pairs.judge; `docs/judges.md` lists them",
        )
    return judge


def _open_reference(recipe: Recipe) -> Reference:
    from llmpatch.references import open_reference

    reference = open_reference(recipe.reference, recipe.decoding)
    reference.identity()  # reads a recording: now rather than an hour into the run
    return reference


def open_models(recipe: Recipe, base: Base | None = None) -> Models:
    """Open what a recipe's pairs need, the base too where none is given.

    Raises:
        LlmpatchError: as :func:`check_models`; or a model cannot be loaded.
    """
    from llmpatch.bases import load_base
    from llmpatch.references import check_reference

    judge = check_judge(recipe)
    check_reference(recipe.reference)
    reference = None if recipe.reference.kind == "self" else _open_reference(recipe)
    return Models(base or load_base(recipe.base.name, recipe.base.revision), reference, judge)


def sample_pairs(
    recipe: Recipe, models: Models, prompts: list[Prompt], run: Path, progress: Progress
) -> tuple[list[Pair], list[Dropped]]:
    """Ask ``M`` everything and ``M'`` the harmful prompts, through shards in ``run``, and pair the answers."""
    from llmpatch.references import collect

    base, limit = models.base, recipe.pairs.max_prompt_tokens
    lengths = [len(base.prompt_ids(p.text, raw=p.form == "raw")) for p in prompts]
    short = [p for p, n in zip(prompts, lengths, strict=True) if n <= limit]
    long = [
        Dropped(p.id, p.kind, p.text, "", "", 0.0, 0.0, f"the prompt has {n} tokens, more than {limit}")
        for p, n in zip(prompts, lengths, strict=True)
        if n > limit
    ]
    own = ask_base(recipe, base, short, run / "answers", progress)
    unfocused: list[Dropped] = []
    if recipe.pairs.focus:
        short, own, unfocused = _focused(recipe, base, short, own, run / "answers", progress)
    told = None
    if models.reference is not None:
        harmful = [p for p in short if p.kind == "harmful"]
        answers = collect(models.reference, harmful, run / "answers", progress=progress)
        told = {p.id: answer for p, answer in zip(harmful, answers, strict=True)}
    pairs, dropped = make_pairs(short, own, told, models.judge, recipe.pairs)
    return pairs, [*dropped, *long, *unfocused]


def _focused(
    recipe: Recipe, base: Base, prompts: list[Prompt], own: list[list[Answer]], store: Path, progress: Progress
) -> tuple[list[Prompt], list[list[Answer]], list[Dropped]]:
    """Turns instead of the harmful prompts, what ``M`` says there now and last what it had said; and those without any."""
    from llmpatch.focusing import find_turns
    from llmpatch.judges import open_judge

    section = recipe.pairs.focus
    assert section is not None
    asked = [i for i, p in enumerate(prompts) if p.kind == "harmful"]
    found = find_turns([prompts[i] for i in asked], [own[i] for i in asked], open_judge(section.judge), section)
    limit = recipe.pairs.max_prompt_tokens
    turns = [turn for turn in found if len(base.prompt_ids(turn.prompt.text, raw=True)) <= limit]
    shorter = recipe.decoding.model_copy(update={"max_new_tokens": section.max_new_tokens})
    fresh = ask_base(
        recipe.model_copy(update={"decoding": shorter}), base, [turn.prompt for turn in turns], store, progress
    )
    kept = [i for i in range(len(prompts)) if prompts[i].kind != "harmful"]
    turned, wrong = {turn.source for turn in turns}, {turn.source for turn in found}
    calm, long = "nothing goes wrong in it, nor in its answers", f"it goes wrong behind more than {limit} tokens"
    left = [
        Dropped(p.id, p.kind, p.text, "", "", 0.0, 0.0, long if p.id in wrong else calm)
        for p in (prompts[i] for i in asked)
        if p.id not in turned
    ]
    return (
        [turn.prompt for turn in turns] + [prompts[i] for i in kept],
        [[*said, turn.rest] for said, turn in zip(fresh, turns, strict=True)] + [own[i] for i in kept],
        left,
    )


def ask_base(recipe: Recipe, base: Base, prompts: list[Prompt], store: Path, progress: Progress) -> list[list[Answer]]:
    """What ``M`` says to each prompt: to a harmful one ``pairs.samples`` times, to a benign one once."""
    from llmpatch.references.collecting import collect_samples
    from llmpatch.references.local import TransformersReference, answer_samples

    found: list[list[Answer]] = [[] for _ in prompts]
    for form, harmful in ((form, harmful) for form in ("chat", "raw") for harmful in (True, False)):
        places = [i for i, p in enumerate(prompts) if p.form == form and (p.kind == "harmful") == harmful]
        if not places:
            continue
        model = TransformersReference(base, recipe.decoding, raw=form == "raw")
        samples = collect_samples(
            [model.identity() | {"sample": number} for number in range(recipe.pairs.samples if harmful else 1)],
            partial(answer_samples, model),
            [prompts[i] for i in places],
            store,
            progress=progress,
        )
        for place, answers in zip(places, zip(*samples, strict=True), strict=True):
            found[place] += answers
    return found


@dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Attributes:
        recipe: Of what.
        dealt: Its prompts.
        answers: Folder of answers on the way, one below it for each chunk.
    """

    recipe: Recipe
    dealt: Dealt
    answers: Path

    def open(self) -> Models:
        """The models that are asked, once for all chunks of a worker (errors as :func:`open_models`)."""
        return open_models(self.recipe)

    def make_chunk(self, models: Models, number: int) -> tuple[list[Pair], list[Dropped]]:
        """Ask, score and pair one chunk.

        Raises:
            LlmpatchError: any stage failed; its answers are kept.
        """
        return sample_pairs(self.recipe, models, self.dealt.read(number), self.answers / f"{number:06d}", Silent())
