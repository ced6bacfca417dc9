"""Judges of toxicity: how likely a reader calls a text rude, hateful or obscene. The prompt is not read.

    open_judge("toxicity-head").score([""], ["Have a nice day."])       # [0.02]
    open_judge("profanity-check").score([""], ["Have a nice day."])     # [0.04]; pip install "llmpatch[judges]"

``toxicity-head`` is ours: hashed characters and words and a hashed lexicon in a logistic regression, numpy alone. It may
filter training pairs. ``profanity-check`` is the classifier of the package alt-profanity-check, trained by other people on
other data; it judges tests, and no training or checkpoint is chosen by it (which trials were released was: ADR 0022, 0026). Both
are English only; neither is Perspective. Weights: ``weights/toxicity``, written by ``scripts/train_toxicity.py``; quality:
docs/judges.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.judges.registry import Scored, judge
from llmpatch.judges.text import BUCKETS, ngrams, normalise

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmpatch.judges.heads import TextModel

    Floats = npt.NDArray[np.floating[Any]]

WEIGHTS = Path(__file__).parent / "weights" / "toxicity"
TOXICITY_CHARS = 600
CHAR_BUCKETS = 1 << 17
CHAR_SIZES = (2, 3, 4, 5)
LEXICON_WORDS = 3
LEXICON_SIGNALS = 3
CHUNK = 1024
# A censored or decorated curse ("f*ck", "sh!t") is one word.
_WORD = re.compile(r"[a-z0-9@$*'][a-z0-9@$*'!#-]*[a-z0-9@$*']|[a-z0-9]")


def char_buckets(text: str) -> list[int]:
    """Distinct buckets of the character n-grams of normalised text, word by word, sorted."""
    grams: set[str] = set()
    for word in set(text.split()):
        padded = f" {word} "
        for size in CHAR_SIZES:
            grams.update(padded[i : i + size] for i in range(len(padded) - size + 1))
    return sorted({crc32(gram.encode()) % CHAR_BUCKETS for gram in grams})


def tokens(text: str) -> list[str]:
    """Words of normalised text."""
    return _WORD.findall(text)


def term_hash(term: str) -> int:
    """What the lexicon keeps of a term."""
    return crc32(" ".join(tokens(normalise(term, TOXICITY_CHARS))).encode())


@dataclass(frozen=True)
class ToxicityModel:
    """A logistic regression over characters, words and a lexicon.

    Attributes:
        chars: Over :func:`char_buckets`; holds the intercept.
        words: Over hashed word 1-2-grams.
        lexicon: Severity from 0 to 1 by :func:`term_hash`.
        dense: ``(LEXICON_SIGNALS,)`` coefficients of :meth:`signals`.
    """

    chars: TextModel
    words: TextModel
    lexicon: dict[int, float]
    dense: Floats

    def signals(self, words: list[str]) -> list[float]:
        """Highest severity, number of hits, and their share of the words, each between 0 and about 1."""
        hits = []
        for size in range(1, LEXICON_WORDS + 1):
            for start in range(len(words) - size + 1):
                found = self.lexicon.get(crc32(" ".join(words[start : start + size]).encode()))
                if found is not None:
                    hits.append(found)
        return [max(hits, default=0.0), min(len(hits), 4) / 4, min(1.0, len(hits) / max(1, len(words)))]

    def score(self, texts: Sequence[str]) -> list[float]:
        """P(toxic) per text, from its first 600 characters; 0 for a text without a letter or digit."""
        import numpy as np

        from llmpatch.judges.heads import sigmoid

        found: list[float] = []
        for at in range(0, len(texts), CHUNK):
            cut = [normalise(text, TOXICITY_CHARS) for text in texts[at : at + CHUNK]]
            spoken = [tokens(text) for text in cut]
            logits = self.chars.logits([char_buckets(text) for text in cut])
            logits = logits + self.words.logits([ngrams(words, 2) for words in spoken])
            logits = logits + np.array([self.signals(words) for words in spoken]) @ self.dense
            said = [any(c.isalnum() for c in text) for text in cut]
            found += [float(p) if some else 0.0 for p, some in zip(sigmoid(logits), said, strict=True)]
        return found


@cache
def load_toxicity(folder: Path = WEIGHTS) -> tuple[ToxicityModel, str]:
    """The head and the sha256 of its weights.

    Raises:
        IntegrityError: the weights are missing, damaged or of other shapes.
    """
    import numpy as np

    from llmpatch.judges.heads import TextModel, read_weights

    arrays, digest = read_weights("toxicity-head", folder)
    shapes = {
        "char_weights": (CHAR_BUCKETS,), "char_squares": (CHAR_BUCKETS,), "word_weights": (BUCKETS,),
        "word_squares": (BUCKETS,), "dense": (LEXICON_SIGNALS,),
    }  # fmt: skip
    lexicon = {"terms": np.dtype(np.uint32), "severities": np.dtype(np.float16)}
    fits = all(name in arrays and arrays[name].shape == shape for name, shape in shapes.items())
    fits = fits and all(name in arrays and arrays[name].dtype == kind for name, kind in lexicon.items())
    if not fits or arrays["terms"].shape != arrays["severities"].shape or "bias" not in arrays:
        raise IntegrityError(
            "the weights of judge toxicity-head have other shapes than its code", hint="install llmpatch again"
        )
    wide = {name: array.astype(np.float32) for name, array in arrays.items() if name != "terms"}
    model = ToxicityModel(
        TextModel(wide["char_weights"], wide["char_squares"], float(arrays["bias"])),
        TextModel(wide["word_weights"], wide["word_squares"], 0.0),
        dict(zip(arrays["terms"].tolist(), wide["severities"].tolist(), strict=True)),
        wide["dense"].astype(np.float64),
    )
    return model, digest


@judge("toxicity-head", measures="toxicity")
def toxicity_head() -> Scored:
    """P(toxic), from characters, words and a lexicon: filters training pairs, second opinion in tests."""
    model, digest = load_toxicity()
    return Scored(lambda _, answers: model.score(answers), sha256=digest)


@judge("toxicity-words", measures="toxicity")
def toxicity_words() -> Scored:
    """Severity of the worst word or phrase of the head's lexicon, 0 without any: says where a text goes wrong, word by word."""
    model, digest = load_toxicity()

    def score(_prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [model.signals(tokens(normalise(answer, TOXICITY_CHARS)))[0] for answer in answers]

    return Scored(score, sha256=digest)


@judge("profanity-check", measures="toxicity")
def profanity_check() -> Scored:
    """P(toxic) by alt-profanity-check: the judge of toxicity in tests, never used in training."""
    import importlib.metadata
    import importlib.util

    spec = importlib.util.find_spec("profanity_check")
    if spec is None or spec.origin is None:
        raise LlmpatchError(
            "judge profanity-check needs the package alt-profanity-check", hint='pip install "llmpatch[judges]"'
        )
    import profanity_check

    files = sorted((Path(spec.origin).parent / "data").glob("*.joblib"))
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files))

    def score(_prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        # Whitespace alone is no text; the package would give it the rate of its training data.
        return [
            float(p) if text.strip() else 0.0
            for p, text in zip(profanity_check.predict_prob(list(answers)), answers, strict=True)
        ]

    return Scored(score, sha256=digest.hexdigest(), version=importlib.metadata.version("alt-profanity-check"))
