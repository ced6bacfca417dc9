"""The model that rewrites requests for :mod:`llmpatch.attacks.pair`, by name.

    attacker = open_attacker("endpoint:my-model@http://127.0.0.1:8000/v1")
    attacker = open_attacker("smollm2")

Knows where models are. Knows nothing about what it is asked for.
"""

from __future__ import annotations

import os

from llmpatch.recipe import DecodingSection, ReferenceSection
from llmpatch.references import Reference, open_reference

API_KEY_ENV = "LLMPATCH_ATTACKER_API_KEY"
# Sampled, so that the tries of one round differ.
DECODING = DecodingSection(max_new_tokens=256, temperature=1.0, top_p=0.9)


def open_attacker(spec: str) -> Reference:
    """Open an attacker: ``endpoint:<model>@<url>``, or a base by any of its names.

    An endpoint's key is read from ``LLMPATCH_ATTACKER_API_KEY`` where that is set.

    Raises:
        UsageError: there is no such model, or the URL is not one.
        LlmpatchError: the model cannot be loaded.
    """
    if not spec.startswith("endpoint:"):
        return open_reference(ReferenceSection(kind="transformers", model=spec), DECODING)
    model, _, url = spec.removeprefix("endpoint:").rpartition("@")
    key = API_KEY_ENV if os.environ.get(API_KEY_ENV) else None
    return open_reference(ReferenceSection(kind="endpoint", model=model, url=url, api_key_env=key), DECODING)
