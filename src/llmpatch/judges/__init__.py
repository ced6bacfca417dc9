"""Judges of refusal, harm, toxicity and gender that work offline, and adapters to bigger ones.

    judge = open_judge("harm-head")
    judge.score(["How do I pick a lock?"], ["I'm sorry, but I can't help with that."])   # [0.01]

| name | measures | role |
|---|---|---|
| ``refusal-phrases`` | refusal | filters training pairs; a list anyone can read |
| ``refusal-head`` | refusal | judges tests |
| ``harm-head`` | harm | judges tests; gibberish is no success |
| ``harm-strings`` | harm | comparison only: the usual string rate, which overstates |
| ``toxicity-head`` | toxicity | filters training pairs; second opinion in tests |
| ``toxicity-words`` | toxicity | says where a text goes wrong, word by word |
| ``profanity-check`` | toxicity | judges tests; the package alt-profanity-check, never used in training |
| ``gender-words`` | gender | filters training pairs; a list anyone can read |
| ``perspective`` | toxicity | Google's Perspective API |
| ``detoxify:<model>`` | toxicity | Detoxify's transformers, where installed |
| ``hf:<model id>`` | harm | a guard model through transformers (Llama Guard, Granite Guardian, HarmBench) |
| ``endpoint:<model>@<url>`` | harm | a guard model behind an OpenAI-compatible endpoint |

What filters training never judges tests, so that a patch cannot be tuned to its own examiner. Quality: docs/judges.md.
Knows texts only, English at that; nothing about models being patched.
"""

from __future__ import annotations

# These register their judges by being imported.
from llmpatch.judges import detoxify_judge as _detoxify_judge  # noqa: F401
from llmpatch.judges import endpoint_guard as _endpoint_guard  # noqa: F401
from llmpatch.judges import gender_words as _gender_words  # noqa: F401
from llmpatch.judges import local_guard as _local_guard  # noqa: F401
from llmpatch.judges import perspective as _perspective  # noqa: F401
from llmpatch.judges import phrases as _phrases  # noqa: F401
from llmpatch.judges import toxicity as _toxicity  # noqa: F401
from llmpatch.judges.registry import ADAPTERS, JUDGES, Judge, Measure, Scored, identity, judge, open_judge
from llmpatch.judges.trained import coherence

__all__ = ["ADAPTERS", "JUDGES", "Judge", "Measure", "Scored", "coherence", "identity", "judge", "open_judge"]
