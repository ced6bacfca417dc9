"""Evals: what a patch gained and what it costs, as JSON evidence in which every rate has n and an interval.

    systems = [System("M"), System("M+", prefix=rows), System("safe prompt", system_message=SAFE_PROMPT)]
    evidence = evaluate(base, systems, suite="refusal", store=Path("work/answers"))

Knows bases, prefixes, prompts and judges. Knows nothing about recipes, patch files or thresholds.
"""

from __future__ import annotations

from llmpatch.evals.prompt_sets import SUITES
from llmpatch.evals.suites import SAFE_PROMPT, evaluate, usual_systems
from llmpatch.evals.systems import System, load_recorded, load_samples

__all__ = ["SAFE_PROMPT", "SUITES", "System", "evaluate", "load_recorded", "load_samples", "usual_systems"]
