"""One forward pass of full rows behind a cache, for measurements. Knows models; nothing about prompts or scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.prefix import backbone

if TYPE_CHECKING:
    import torch


def run_behind(base: Base, ids: torch.Tensor, cache: Any, past: int) -> tuple[torch.Tensor, Any]:
    """Hidden states of unpadded rows.

    Args:
        base: The model.
        ids: [B, T].
        cache: Of batch size B holding ``past`` positions; it grows. ``None`` for a fresh one.
        past: Positions before the rows.

    Returns:
        Hidden states [B, T, hidden_size] and the cache.
    """
    import torch
    from transformers import DynamicCache

    if cache is None:
        cache = DynamicCache(config=base.model.config)
    rows, length = ids.shape
    output = backbone(base)(
        input_ids=ids.to(base.device),
        attention_mask=torch.ones(rows, past + length, dtype=torch.long, device=base.device),
        position_ids=torch.arange(past, past + length, device=base.device)[None].expand(rows, -1),
        use_cache=True,
        **{base.cache_keyword: cache},
    )
    return output.last_hidden_state, cache
