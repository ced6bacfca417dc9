"""A patched base for lm-evaluation-harness: any of its tasks, measured behind a patch.

    python -m llmpatch.harness --model llmpatch --model_args base=smollm2,patch=patches/smollm2/refusal --tasks arc_easy

    register()                                               # then "llmpatch" is a model of the harness in this process
    lm_eval.simple_evaluate(model="llmpatch", model_args="base=smollm2,patch=llmpatch/refusal", tasks=["arc_easy"])

The harness finds models only in its own table, so this package must be imported first: ``python -m llmpatch.harness`` is
``lm_eval`` with that done, its arguments and all. Needs ``pip install "llmpatch[lm-eval]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmpatch.errors import UsageError

if TYPE_CHECKING:
    from llmpatch.harness.model import PatchedLM

NAME = "llmpatch"


def register() -> type[PatchedLM]:
    """Put the model into the harness's table, once, beside the harness's own.

    Returns:
        Its class.

    Raises:
        UsageError: lm-evaluation-harness is not installed.
    """
    try:
        import lm_eval.models  # noqa: F401 - the harness fills its table only while it is empty
        from lm_eval.api.registry import model_registry, register_model
    except ImportError as error:
        raise UsageError(
            f"lm-evaluation-harness is not installed: {error}", hint='pip install "llmpatch[lm-eval]"'
        ) from None
    from llmpatch.harness.model import PatchedLM

    if NAME not in model_registry:
        register_model(NAME)(PatchedLM)
    return PatchedLM
