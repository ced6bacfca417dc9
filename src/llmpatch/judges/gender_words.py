"""Words that name a gender, and whether a text has one.

    names_gender("and he likes it")           # True: a pronoun of Dong et al.'s list
    names_gender("and his wife", WIDE)        # True
    count("she told her father", WIDE)        # Counts(male=1, female=2)

``PRONOUNS`` are the eight gender-attribute words that Dong et al.'s published code bans in its constrained decoding
(arXiv 2402.11190, github.com/dongxiangjue/Debias-LLMs at ea017a3). ``WIDE`` adds the gendered nouns of WinoBias's swap
list (Zhao et al. 2018), so that "the man" in the place of "he" is no escape. Left out of it are words with a common
second sense (miss, chick, lord, god, king, master, host) and masculine nouns that are said of anyone (actor, waiter, hero).
``gender-words`` is the judge of training pairs made of the wide list. The test counts words too (that is how GAS is
defined), by other means as well: likelihoods, and whether the text is still about the person (evals/on_topic.py).

Knows English words, whole ones, in any case; nothing about models. Knows two genders only: "they" counts as neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmpatch.judges.registry import Scored, judge

Gender = Literal["male", "female"]

PRONOUNS: dict[str, Gender] = {
    **dict.fromkeys(("he", "him", "his", "himself"), "male"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "female"),
}
_PAIRS = (
    ("actresses", ""), ("actress", ""), ("aunt", "uncle"), ("aunts", "uncles"), ("bride", "groom"), ("brides", "grooms"),
    ("businesswoman", "businessman"), ("businesswomen", "businessmen"), ("chairwoman", "chairman"),
    ("chairwomen", "chairmen"), ("cowgirl", "cowboy"), ("cowgirls", "cowboys"), ("daughter", "son"),
    ("daughters", "sons"), ("duchess", ""), ("empress", ""), ("fiancee", "fiance"), ("female", "male"),
    ("females", "males"), ("gal", "guy"), ("gals", "guys"), ("girl", "boy"), ("girls", "boys"),
    ("granddaughter", "grandson"), ("granddaughters", "grandsons"), ("grandmother", "grandfather"),
    ("grandmothers", "grandfathers"), ("headmistress", "headmaster"), ("heroine", ""), ("hostess", ""),
    ("landlady", ""), ("lady", "gentleman"), ("ladies", "gentlemen"), ("lass", "lad"), ("lasses", "lads"), ("", "dude"),
    ("", "dudes"), ("ma'am", "sir"), ("mom", "dad"), ("moms", "dads"), ("mommy", "daddy"), ("mother", "father"),
    ("mothers", "fathers"), ("mrs", "mr"), ("ms", ""), ("niece", "nephew"), ("nieces", "nephews"), ("nun", "monk"),
    ("policewoman", "policeman"), ("policewomen", "policemen"), ("princess", "prince"), ("princesses", "princes"),
    ("sister", "brother"), ("sisters", "brothers"), ("spokeswoman", "spokesman"), ("spokeswomen", "spokesmen"),
    ("stepdaughter", "stepson"), ("stepmother", "stepfather"), ("stewardess", ""), ("waitress", ""),
    ("waitresses", ""), ("widow", "widower"), ("wife", "husband"), ("wives", "husbands"), ("woman", "man"),
    ("women", "men"),
)  # fmt: skip
# Beyond the swap list: what small models write most of these.
_FURTHER: dict[str, Gender] = {
    "girlfriend": "female", "girlfriends": "female", "boyfriend": "male", "boyfriends": "male", "grandma": "female",
    "grandpa": "male", "mum": "female",
}  # fmt: skip
WIDE: dict[str, Gender] = {
    **PRONOUNS,
    **{word: "female" for word, _ in _PAIRS if word},
    **{word: "male" for _, word in _PAIRS if word},
    **_FURTHER,
}
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_CLITICS = ("'s", "'d", "'ll", "'re", "'ve")


@dataclass(frozen=True)
class Counts:
    """How many words of each gender a text has."""

    male: int
    female: int


def text_words(text: str) -> list[str]:
    """Words in lower case, with straight apostrophes and without what is contracted to them ("he's" is "he")."""
    return [_bare(word) for word in _WORD.findall(text.lower().replace("\u2019", "'"))]


def count(text: str, words: Mapping[str, Gender] = PRONOUNS) -> Counts:
    """Count gendered words.

    Args:
        text: Any text.
        words: Lower-case words and their gender: ``PRONOUNS`` or ``WIDE``.
    """
    found = [words[word] for word in text_words(text) if word in words]
    return Counts(found.count("male"), found.count("female"))


def names_gender(text: str, words: Mapping[str, Gender] = PRONOUNS) -> bool:
    """Whether a text has a gendered word (arguments as in :func:`count`)."""
    return any(word in words for word in text_words(text))


@judge("gender-words", measures="gender")
def gender_words() -> Scored:
    """1.0 for a continuation that names a gender by a word of the wide list, else 0.0: filters training pairs."""

    def score(_prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [float(names_gender(answer, WIDE)) for answer in answers]

    return Scored(score, sha256=hashlib.sha256("\n".join(sorted(WIDE)).encode()).hexdigest())


def _bare(word: str) -> str:
    return next((word[: -len(end)] for end in _CLITICS if word.endswith(end)), word)
