"""Ask both models, and pair what they say.

    pairs, dropped = sample_pairs(recipe, base, prompts, Path("runs/refusal"), console())

Answers are kept in shards below the run folder: an interrupted run goes on, a repeated one asks nothing. Prompts may be all of a
recipe's or a chunk of them (:mod:`llmpatch.pair_workers`): what is said to a prompt does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.pairs import Dropped, Pair, make_pairs
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt

if TYPE_CHECKING:
    from llmpatch.answers import Answer
    from llmpatch.bases import Base
    from llmpatch.chunks import Dealt
    from llmpatch.recipe import Recipe

DEATHS = 3  # of workers over one chunk, before it is called the chunk's fault


def sample_pairs(
    recipe: Recipe, base: Base, prompts: list[Prompt], run: Path, progress: Progress
) -> tuple[list[Pair], list[Dropped]]:
    """Ask ``M`` everything and ``M'`` the harmful prompts, through shards in ``run``, and pair the answers."""
    from llmpatch.judges import open_judge

    judge = open_judge(recipe.pairs.judge)
    limit = recipe.pairs.max_prompt_tokens
    lengths = [len(base.prompt_ids(p.text, raw=p.form == "raw")) for p in prompts]
    short = [p for p, n in zip(prompts, lengths, strict=True) if n <= limit]
    long = [
        Dropped(p.id, p.kind, p.text, "", "", 0.0, 0.0, f"the prompt has {n} tokens, more than {limit}")
        for p, n in zip(prompts, lengths, strict=True)
        if n > limit
    ]
    own = ask_base(recipe, base, short, run / "answers", progress)
    calm: list[Dropped] = []
    if recipe.pairs.focus:
        short, own, calm = _focused(recipe, base, short, own, run / "answers", progress)
    reference = None
    if recipe.reference.kind != "self":
        reference = _ask_reference(recipe, [p for p in short if p.kind == "harmful"], run / "answers", progress)
    pairs, dropped = make_pairs(short, own, reference, judge, recipe.pairs)
    return pairs, [*dropped, *long, *calm]


def _focused(
    recipe: Recipe, base: Base, prompts: list[Prompt], own: list[list[Answer]], store: Path, progress: Progress
) -> tuple[list[Prompt], list[list[Answer]], list[Dropped]]:
    """Turns instead of the harmful prompts, what ``M`` says there now and last what it had said; and prompts without any."""
    from llmpatch.focusing import find_turns
    from llmpatch.judges import open_judge

    section = recipe.pairs.focus
    assert section is not None
    asked = [i for i, p in enumerate(prompts) if p.kind == "harmful"]
    turns = find_turns([prompts[i] for i in asked], [own[i] for i in asked], open_judge(section.judge), section)
    limit = recipe.pairs.max_prompt_tokens
    turns = [turn for turn in turns if len(base.prompt_ids(turn.prompt.text, raw=True)) <= limit]
    shorter = recipe.decoding.model_copy(update={"max_new_tokens": section.max_new_tokens})
    fresh = ask_base(
        recipe.model_copy(update={"decoding": shorter}), base, [turn.prompt for turn in turns], store, progress
    )
    kept = [i for i in range(len(prompts)) if prompts[i].kind != "harmful"]
    turned = {turn.source for turn in turns}
    calm = [
        Dropped(p.id, p.kind, p.text, "", "", 0.0, 0.0, "nothing goes wrong in it, nor in its answers")
        for p in (prompts[i] for i in asked)
        if p.id not in turned
    ]
    return (
        [turn.prompt for turn in turns] + [prompts[i] for i in kept],
        [[*said, turn.rest] for said, turn in zip(fresh, turns, strict=True)] + [own[i] for i in kept],
        calm,
    )


def _ask_reference(recipe: Recipe, prompts: list[Prompt], store: Path, progress: Progress) -> dict[str, Answer]:
    """What ``M'`` says to each prompt, by prompt id."""
    from llmpatch.references import collect, open_reference

    told = collect(open_reference(recipe.reference, recipe.decoding), prompts, store, progress=progress)
    return {p.id: answer for p, answer in zip(prompts, told, strict=True)}


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

    def load_base(self) -> Base:
        """The base that is asked."""
        from llmpatch.bases import load_base

        return load_base(self.recipe.base.name, self.recipe.base.revision)

    def make_chunk(self, base: Base, number: int) -> tuple[list[Pair], list[Dropped]]:
        """Ask, score and pair one chunk.

        Raises:
            LlmpatchError: any stage failed; its answers are kept.
        """
        return sample_pairs(self.recipe, base, self.dealt.read(number), self.answers / f"{number:06d}", Silent())
