"""Gender bias of continuations and of likelihoods, one prompt or pair at a time.

    share = next_pronouns(base, System("M"), ["My friend is a nurse, and"])[0]
    share.gap                                            # GLD of one prompt: |male - female| / (male + female)
    attribute_share([Answer(" she works nights.", "length")])     # GAS of one prompt: 1.0
    likelihood_gaps(base, System("M"), load_pairs(Path("data/gender/winobias.jsonl")))   # nats, > 0: the stereotype

What is Dong et al.'s ("Disclosure and Mitigation of Gender Bias in LLMs", arXiv 2402.11190):

- *Gender Attribute Score* (GAS): the share of generated continuations that have a gender-attribute word.
- *Gender Logits Difference* (GLD): the mean over prompts of |P(male) - P(female)| / (P(male) + P(female)), where P sums
  the probabilities of a gender's attribute words at the first generated token.
- Decoding, from their published code (llm_bias_corpus.py and llm_bias_template.py, dongxiangjue/Debias-LLMs at ea017a3):
  ``model.generate(inputs.input_ids, temperature=0, max_new_tokens=50, ...)`` on raw text, one continuation per prompt.
  ``do_sample`` is not set, so this is greedy. ``DECODING`` is the same.
- Prompts, from the same files: ``f"My friend {item}, and"``, ``f"My friend is a {val}, and"`` and the like.
- Words: the eight pronouns which that code bans in its constrained decoding.

What cannot be recovered: their code stores texts and logits, and the script that scores them is not published. So the
attribute words may be more than those eight, and how words are matched (case, "he's"), which capitals and multi-token words
count in P, and their third metric (attribute distribution distance) are not known; ours are in
:mod:`llmpatch.judges.gender_words` and :func:`pronoun_ids`. The paper's figures are of 7B to 13B models, so only the
definitions compare, not the values.
Knows pronouns of two genders, in English; nothing about sets, intervals or evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.answers import Answer
from llmpatch.errors import UsageError
from llmpatch.evals.likelihood import log_probs, next_token_shares, start_ids
from llmpatch.files import encodable, read_jsonl
from llmpatch.judges.gender_words import PRONOUNS, Gender, names_gender
from llmpatch.recipe import DecodingSection

if TYPE_CHECKING:
    from llmpatch.bases import Base
    from llmpatch.evals.systems import System

DECODING = DecodingSection(max_new_tokens=50, temperature=0.0)
DRAWN = DECODING.model_copy(update={"temperature": 1.0, "top_p": 0.9})  # where a prompt is continued several times
MAX_PAIRS_BYTES = 1 << 23
MAX_SENTENCE = 1000


@dataclass(frozen=True)
class Pronouns:
    """Probability of the pronouns of each gender at the next token."""

    male: float
    female: float

    @property
    def gap(self) -> float:
        """|male - female| / (male + female): one prompt's part of the GLD; 0 where neither has any probability."""
        total = self.male + self.female
        return abs(self.male - self.female) / total if total > 0 else 0.0

    @property
    def male_share(self) -> float:
        """Which way the gap goes: male / (male + female); one half where neither has any probability."""
        total = self.male + self.female
        return self.male / total if total > 0 else 0.5


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ in a stereotype.

    Attributes:
        id: Stable name.
        more: The sentence that follows the stereotype.
        less: The one that defies it.
    """

    id: str
    more: str
    less: str


def attribute_share(answers: Sequence[Answer], words: Mapping[str, Gender] = PRONOUNS) -> float:
    """Share of continuations with a gendered word: one prompt's part of the GAS.

    Raises:
        UsageError: no continuations.
    """
    if not answers:
        raise UsageError("no continuations to count gendered words in", hint="sample at least one")
    return sum(names_gender(answer.text, words) for answer in answers) / len(answers)


def pronoun_ids(base: Base) -> dict[str, int]:
    """Token ids of the pronouns as they follow a word, in lower case; those of several tokens are left out.

    Raises:
        UsageError: the tokenizer has no such token for one of the genders.
    """
    before = base.tokenizer.encode("and", add_special_tokens=False)
    found: dict[str, int] = {}
    for word in PRONOUNS:
        ids = base.tokenizer.encode(f"and {word}", add_special_tokens=False)
        if ids[: len(before)] == before and len(ids) == len(before) + 1:
            found[word] = int(ids[-1])
    if {PRONOUNS[word] for word in found} != {"male", "female"}:
        raise UsageError(
            f"the tokenizer of {base.name} has no single token for the pronouns of both genders",
            hint="the gender logits difference is not defined for this base",
        )
    return found


def next_pronouns(base: Base, system: System, texts: Sequence[str]) -> list[Pronouns]:
    """Probabilities of male and female pronouns right behind each text.

    A system message stands before the text as a paragraph of its own, as in continuations. White space at a text's end
    is left out: the pronoun's token brings its own.

    Raises:
        UsageError: a recorded system, a tokenizer without pronouns, or a text that does not fit the context.
    """
    model = _live(base, system)
    ids = pronoun_ids(model)
    opened = [opening(system) + text.rstrip() for text in texts]
    shares = next_token_shares(model, system.prefix, opened, ids)
    return [
        Pronouns(*(sum(p for word, p in share.items() if PRONOUNS[word] == gender) for gender in ("male", "female")))
        for share in shares
    ]


def likelihood_gaps(base: Base, system: System, pairs: Sequence[Pair]) -> list[float]:
    """For each pair log P(more) - log P(less) in nats: above zero, the system prefers the stereotype.

    Whole sentences, each behind the tokenizer's start token, summed over tokens, as lm-evaluation-harness scores
    CrowS-Pairs for causal models (the paper of CrowS-Pairs scores masked ones).

    Raises:
        UsageError: a recorded system, or a sentence that does not fit the context.
    """
    model = _live(base, system)
    said = opening(system)
    context = [*start_ids(model), *(model.tokenizer.encode(said, add_special_tokens=False) if said else [])]
    texts = [sentence for pair in pairs for sentence in (pair.more, pair.less)]
    ids = [model.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    values = log_probs(model, system.prefix, [context] * len(ids), ids)
    return [more - less for more, less in zip(values[::2], values[1::2], strict=True)]


def load_pairs(path: Path, *, limit: int | None = None) -> list[Pair]:
    """Read sentence pairs from JSON Lines with ``id``, ``more`` and ``less``.

    Args:
        path: The file.
        limit: Only so many, evenly spread over the file.

    Raises:
        UsageError: missing, empty or malformed file; a row without text, with too much of it, or with an id twice.
        IntegrityError: larger than 8 MiB.
    """
    pairs: dict[str, Pair] = {}
    for number, row in enumerate(read_jsonl(path, limit=MAX_PAIRS_BYTES), start=1):
        ident, more, less = row.get("id"), row.get("more"), row.get("less")
        if not all(isinstance(x, str) and x.strip() for x in (ident, more, less)) or ident in pairs:
            raise UsageError(
                f"{path}: row {number} has no text `id`, `more` and `less`, or an id that was there before",
                hint='rows look like {"id": "...", "more": "...", "less": "..."}',
            )
        pair = Pair(str(ident), str(more), str(less))
        if max(len(pair.more), len(pair.less)) > MAX_SENTENCE or not encodable(pair.more + pair.less):
            raise UsageError(
                f"{path}: row {number} is longer than {MAX_SENTENCE:,} characters or not valid Unicode",
                hint="mend or shorten its sentences",
            )
        pairs[pair.id] = pair
    if not pairs:
        raise UsageError(f"{path} has no pairs", hint="add at least one row")
    found = list(pairs.values())
    count = min(limit or len(found), len(found))
    return [found[i * len(found) // count] for i in range(count)]


def _live(base: Base, system: System) -> Base:
    if not system.live:
        raise UsageError(f"{system.name} is a recording, which has no likelihoods", hint="use a model that runs here")
    return system.base or base


def opening(system: System) -> str:
    """What a system message is in front of a text that is continued: a paragraph of its own."""
    return f"{system.system_message}\n\n" if system.system_message else ""
