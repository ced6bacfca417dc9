"""Whether rows of an earlier run may stand beside those of this one: they must be measured alike.

wanted = settings("refusal", [open_judge("refusal-head")], limit=None, max_new_tokens=None)
different(json.loads(out.read_text())["settings"], wanted)     # ["limit"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmpatch.evals.prompt_sets import load_suite
from llmpatch.evals.suites import usual_length
from llmpatch.files import digest_json
from llmpatch.judges import Judge, identity


def settings(suite: str, judges: Sequence[Judge], *, limit: int | None, max_new_tokens: int | None) -> dict[str, Any]:
    """What decides a figure beside the model: prompts, their number, the length of answers, builds of judges."""
    asked = [[p.id, p.text] for part in load_suite(suite, limit=limit) for p in part.prompts]
    return {
        "suite": suite,
        "limit": limit,
        "max_new_tokens": max_new_tokens or usual_length(suite),
        "prompts": digest_json({"prompts": asked}),
        "judges": [identity(judge) for judge in judges],
    }


def different(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys that both have and that differ; files of before settings were kept say less."""
    return [key for key in wanted if key in kept and kept[key] != wanted[key]]
