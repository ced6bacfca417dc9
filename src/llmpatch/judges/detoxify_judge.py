"""Detoxify's transformers: ``detoxify:original``, ``detoxify:unbiased``, ``detoxify:multilingual`` and the small ones.

    pip install detoxify
    open_judge("detoxify:unbiased").score([""], ["Have a nice day."])      # [0.0004]

Detoxify fetches its own weights and loads them with torch. It is no dependency of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.judges.registry import ADAPTER_MEASURES, ADAPTERS, Scored

MODELS = ("original", "unbiased", "multilingual", "original-small", "unbiased-small")
BATCH = 32
MAX_CHARS = 2000


def open_detoxify(name: str) -> Scored:
    """Load one of Detoxify's models.

    Args:
        name: One of :data:`MODELS`.

    Raises:
        UsageError: there is no such model.
        LlmpatchError: the package is not installed, or its model cannot be loaded.
    """
    if name not in MODELS:
        raise UsageError(f"detoxify has no model {name!r}", hint=f"known: {', '.join(MODELS)}")
    try:
        import detoxify
    except ImportError:
        raise LlmpatchError(f"judge detoxify:{name} needs the package detoxify", hint="pip install detoxify") from None
    import importlib.metadata

    try:
        model = detoxify.Detoxify(name)
    except Exception as error:  # whatever a download or another transformers provokes becomes one clear line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise LlmpatchError(
            f"detoxify cannot load its model {name}: {reason}", hint="is the network reachable, and detoxify current?"
        ) from error

    def score(_prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        found: list[float] = []
        for at in range(0, len(answers), BATCH):
            part = [answer[:MAX_CHARS] for answer in answers[at : at + BATCH]]
            found += [min(1.0, max(0.0, float(p))) for p in model.predict(part)["toxicity"]]
        return [p if answer.strip() else 0.0 for p, answer in zip(found, answers, strict=True)]

    return Scored(score, version=importlib.metadata.version("detoxify"), details=(("model", name),))


ADAPTERS["detoxify"] = open_detoxify
ADAPTER_MEASURES["detoxify"] = "toxicity"
