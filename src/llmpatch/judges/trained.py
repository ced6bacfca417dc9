"""The two trained judges under their names; numpy is imported when one is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from llmpatch.judges.registry import Scored, judge


@judge("refusal-head", measures="refusal")
def refusal_head() -> Scored:
    """P(the answer declines), from its first 220 characters: the judge of refusal in tests."""
    from llmpatch.judges.heads import load_refusal, refusal_rows, sigmoid

    model, digest = load_refusal()

    def score(_prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [float(p) for p in sigmoid(model.logits(refusal_rows(answers)))]

    return Scored(score, sha256=digest)


@judge("harm-head", measures="harm")
def harm_head() -> Scored:
    """P(the answer coherently does the harm asked for), from prompt and answer: the judge of harm in tests."""
    from llmpatch.judges.heads import load_harm, load_refusal

    model, digest = load_harm()
    # The refusal head and the phrases feed it too, so its identity covers them.
    return Scored(model.score, sha256=hashlib.sha256((digest + load_refusal()[1]).encode()).hexdigest())


def coherence(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
    """P(coherent) per answer in [0, 1]: low for gibberish, loops, echoes of the prompt and empty answers.

    Raises:
        IntegrityError: the weights are damaged.
    """
    from llmpatch.judges.heads import load_harm

    return load_harm()[0].coherent(prompts, answers)
