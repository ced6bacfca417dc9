"""What a prompt and an answer look like in numbers, beside their words: length, loops, echoes, known words.

    signals(seen, prompt_words, answer_words, answer_text)   # len(SIGNALS) floats

A looping, random or parroted answer shows here whatever its words are. English only: text in another language looks
like unknown words.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
import numpy.typing as npt

SEEN_BITS = 20

SIGNALS = (
    "log_words",
    "distinct_trigrams",
    "distinct_words",
    "known_words",
    "known_bigrams",
    "plain_characters",
    "echoed_trigrams",
    "new_words",
    "function_words",
    "word_length",
    "top_word",
    "marks",
    "distinct_characters",
    "repeated_fourgram",
    "prompt_covered",
)

_FUNCTION = frozenset(
    """a an the and or but if of to in on at by for with from as is are was were be been it its this that these those i
    you he she they we my your his her their our not no do does did have has had can could will would should may might
    there here so""".split()  # noqa: SIM905 - reads better as words
)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789 .,;:!?'\"()-*#/\n&%$")
_MARKS = frozenset('.!?:"')


@dataclass(frozen=True)
class Seen:
    """Words and word pairs of ordinary English answers, as a bitmap of their hashes.

    Attributes:
        bits: Boolean array of 2**SEEN_BITS.
    """

    bits: npt.NDArray[np.bool_]

    def share(self, runs: list[str]) -> float:
        """The share of ``runs`` that is known, 0 where there are none."""
        if not runs:
            return 0.0
        mask = (1 << SEEN_BITS) - 1
        return float(self.bits[[crc32(run.encode()) & mask for run in runs]].mean())


def remember(texts: list[list[str]]) -> Seen:
    """A bitmap of all words that occur twice, and all word pairs, of tokenised texts."""
    counts = Counter(word for text in texts for word in text)
    runs = {word for word, count in counts.items() if count > 1}
    for text in texts:
        runs.update(pairs(text))
    bits = np.zeros(1 << SEEN_BITS, dtype=np.bool_)
    bits[[crc32(run.encode()) & ((1 << SEEN_BITS) - 1) for run in sorted(runs)]] = True
    return Seen(bits)


def pairs(words: list[str]) -> list[str]:
    """Neighbouring words, joined by a space."""
    return [f"{a} {b}" for a, b in pairwise(words)]


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def signals(seen: Seen, prompt: list[str], answer: list[str], text: str) -> list[float]:
    """The numbers named in ``SIGNALS``.

    Args:
        seen: Known words and pairs.
        prompt: Words of the prompt.
        answer: Words of the answer.
        text: The answer, normalised.
    """
    spoken = [word for word in answer if word not in _MARKS]
    count = max(len(spoken), 1)
    threes, fours = _grams(spoken, 3), _grams(spoken, 4)
    asked, asked_threes = set(prompt), set(_grams([w for w in prompt if w not in _MARKS], 3))
    distinct = set(spoken)
    sixes = {text[i : i + 6] for i in range(max(len(text) - 5, 0))}
    plain = sum(map(text.count, _PLAIN))
    return [
        math.log1p(len(spoken)) / 4,
        len(set(threes)) / len(threes) if threes else 1.0,
        len(distinct) / count,
        seen.share(spoken),
        seen.share(pairs(answer)),
        plain / max(len(text), 1),
        sum(three in asked_threes for three in threes) / len(threes) if threes else 0.0,
        math.log1p(len(distinct - asked)) / 4,
        sum(word in _FUNCTION for word in spoken) / count,
        min(sum(map(len, spoken)) / count, 15.0) / 10,
        max(Counter(spoken).values(), default=0) / count,
        (len(answer) - len(spoken)) / count,
        len(sixes) / max(len(text) - 5, 1),
        (max(Counter(fours).values(), default=1) - 1) / max(len(fours), 1),
        len(asked_threes & set(threes)) / len(asked_threes) if asked_threes else 0.0,
    ]
