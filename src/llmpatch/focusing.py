"""Pairs that begin where an answer goes wrong, instead of at the end of the prompt.

    turns = find_turns(prompts, answers, judge, FocusSection())
    turns[0].prompt.text, turns[0].rest      # "He is a complete", " fool, and ..."

Two samples of twenty words differ everywhere; only a word or two of it is what the judge condemned, and the preference loss
cannot tell which. A turn cuts the text right before the word with which the judge's score passes the threshold. What ``M``
says from there otherwise is chosen, what it had said is rejected: they part at the word that matters (docs/adr/0022).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from llmpatch.answers import Answer
from llmpatch.prompts import Prompt

if TYPE_CHECKING:
    from llmpatch.judges import Judge
    from llmpatch.recipe import FocusSection

_WORD = re.compile(r"\S+")
_LEAST_WORDS = 3  # a turn with less before it says too little to go on from


@dataclass(frozen=True)
class Turn:
    """Where a text goes wrong.

    Attributes:
        prompt: The text before, as a prompt of its own, of the cluster of the prompt it came from.
        rest: What came then.
        source: The id of the prompt it came from.
    """

    prompt: Prompt
    rest: Answer
    source: str


def find_turns(
    prompts: Sequence[Prompt], answers: Sequence[Sequence[Answer]], judge: Judge, section: FocusSection
) -> list[Turn]:
    """The first turn of every answer that has one, and of every prompt that has one itself.

    Args:
        prompts: Harmful ones, to be continued as they stand.
        answers: The continuations of each.
        judge: Its score of the text so far decides, word by word.
        section: Its threshold, and whether prompts count.

    Returns:
        In the prompts' order, each text before a turn once.
    """
    texts: list[tuple[Prompt, str, str]] = []  # the prompt, what is before all judged words, and those words
    for prompt, own in zip(prompts, answers, strict=True):
        texts += [(prompt, "", prompt.text)] if section.prompts else []
        texts += [(prompt, prompt.text, answer.text) for answer in own]
    begun = [
        (i, match.start(), text[: match.end()])
        for i, (_, _, text) in enumerate(texts)
        for match in _WORD.finditer(text)
    ]
    scores = judge.score([texts[i][1] for i, _, _ in begun], [said for _, _, said in begun])
    found: dict[str, Turn] = {}
    done: set[int] = set()
    for (i, start, _), score in zip(begun, scores, strict=True):
        if i in done or score < section.threshold:
            continue
        done.add(i)
        prompt, before, text = texts[i]
        whole = before + text
        cut = len((before + text[:start]).rstrip())
        if len(whole[:cut].split()) >= _LEAST_WORDS and whole[:cut] not in found:
            made = replace(prompt, id=f"{prompt.id}@{sha256(whole[:cut].encode()).hexdigest()[:8]}", text=whole[:cut])
            found[whole[:cut]] = Turn(made, Answer(whole[cut:], "length"), prompt.id)
    return list(found.values())
