"""Ask a reference for what is not known yet, keep every answer at once, return them in order.

    answers = collect(reference, prompts, Path("work/answers"), progress=console())

A run that is killed continues where it was; a repeated run asks nothing, nor does one of which some prompts were taken out or put
elsewhere. Finished shards survive a power cut, too; unfinished ones wait for the disk once a second only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmpatch.answers import Answer
from llmpatch.errors import ReferenceFailedError, UsageError
from llmpatch.progress import Progress
from llmpatch.prompts import Prompt
from llmpatch.references.base import Reference
from llmpatch.references.shards import Shard, answers_in

SHARD_SIZE = 32
_SYNC_SECONDS = 1.0

Ask = Callable[[Sequence[tuple[int, str]]], Generator[tuple[int, Answer], None, None]]


def collect(
    reference: Reference, prompts: Sequence[Prompt], store: Path, *, shard_size: int = SHARD_SIZE, progress: Progress
) -> list[Answer]:
    """Answer prompts through a store of shards.

    Args:
        reference: Who answers.
        prompts: What is asked.
        store: Folder of the shards; one folder may serve many references.
        shard_size: Prompts per shard.
        progress: Where to show how many are answered.

    Returns:
        One answer per prompt, in their order.

    Raises:
        UsageError: a prompt that is not valid Unicode.
        ReferenceFailedError: the reference failed; every answer it gave is kept.
        IntegrityError: a damaged shard, by name.
        LlmpatchError: the store cannot be written.
    """

    def ask(missing: Sequence[tuple[int, str]]) -> Generator[tuple[int, Answer], None, None]:
        return reference.answer([text for _, text in missing])

    return collect_samples([reference.identity()], ask, prompts, store, shard_size=shard_size, progress=progress)[0]


def collect_samples(
    identities: Sequence[dict[str, Any]],
    ask: Ask,
    prompts: Sequence[Prompt],
    store: Path,
    *,
    shard_size: int = SHARD_SIZE,
    progress: Progress,
) -> list[list[Answer]]:
    """:func:`collect` for several samples of every prompt that one call answers together.

    Args:
        identities: What each sample's answers depend on, as :meth:`Reference.identity` gives it; samples are kept apart.
        ask: Answers ``(sample, text)`` pairs, as :meth:`Reference.answer` answers texts.
        prompts: As for :func:`collect`.
        store: As for :func:`collect`.
        shard_size: As for :func:`collect`.
        progress: As for :func:`collect`.

    Returns:
        For each sample one answer per prompt.

    Raises:
        LlmpatchError: as :func:`collect`.
    """
    for prompt in prompts:
        if clean(prompt.text) != prompt.text:
            raise UsageError(f"prompt {prompt.id!r} is not valid Unicode (a lone surrogate)", hint="mend its text")
    blocks = [prompts[start : start + shard_size] for start in range(0, len(prompts), shard_size)]
    shards: list[list[Shard]] = []
    for found in identities:
        identity = json.loads(json.dumps(found))  # as it will read back
        shards.append([Shard.of(identity, [prompt.text for prompt in block], store) for block in blocks])
    known = [[_load(shard) for shard in own] for own in shards]
    places = [(sample, *divmod(n, shard_size)) for n in range(len(prompts)) for sample in range(len(identities))]
    missing = [place for place in places if place[2] not in known[place[0]][place[1]]]
    if missing:
        _take_over(shards, known, missing, store)
        missing = [place for place in missing if place[2] not in known[place[0]][place[1]]]
    with progress.stage("Asking the reference", len(places)) as advance:
        advance(len(places) - len(missing))
        if missing:
            # One call for everything that is missing, so that slots and batches never run half empty between shards.
            asked = [(sample, shards[sample][block].prompts[index]) for sample, block, index in missing]
            with closing(ask(asked)) as answers:
                synced = 0.0
                for number, answer in answers:
                    sample, block, index = missing[number]
                    due = time.monotonic() - synced >= _SYNC_SECONDS
                    _keep(shards[sample][block], known[sample][block], index, answer, sync=due)
                    synced = time.monotonic() if due else synced
                    advance(1)
    lost = sum(index not in known[sample][block] for sample, block, index in places)
    if lost:
        raise ReferenceFailedError(f"the reference left {lost} of {len(missing)} prompts unanswered", hint="run again")
    in_order = [divmod(n, shard_size) for n in range(len(prompts))]
    return [[own[block][index] for block, index in in_order] for own in known]


def _take_over(
    shards: list[list[Shard]],
    known: list[list[dict[int, Answer]]],
    missing: Sequence[tuple[int, int, int]],
    store: Path,
) -> None:
    """Keep what other shards of the same identities say: their prompts stood elsewhere when they were asked."""
    ours = {path for own in shards for shard in own for path in (shard.path, shard.partial)}
    wanted = sorted({sample for sample, _, _ in missing})
    said = answers_in(store, ours, [shards[sample][0].identity for sample in wanted])
    for sample, answers in zip(wanted, said, strict=True):
        for _, block, index in (place for place in missing if answers and place[0] == sample):
            shard = shards[sample][block]
            if (answer := answers.get(shard.prompts[index])) is not None:
                _keep(shard, known[sample][block], index, answer, sync=False)


def clean(text: str) -> str:
    """``text`` with lone surrogates, which no UTF-8 file can hold, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _load(shard: Shard) -> dict[int, Answer]:
    """What is known of a shard; one that was killed between its last answer and its last rename is finished here."""
    known = shard.load()
    if len(known) == len(shard.prompts) and not shard.path.exists():
        shard.finish(known)
    return known


def _keep(shard: Shard, known: dict[int, Answer], index: int, answer: Answer, *, sync: bool) -> None:
    kept = replace(answer, text=clean(answer.text))
    known[index] = kept
    if len(known) == len(shard.prompts):
        shard.finish(known)
    else:
        shard.append(index, kept, sync=sync)
