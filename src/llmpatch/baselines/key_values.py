"""Prefix-tuning (Li and Liang 2021) at inference: learnt keys and values before the first token, in every layer.

    tuned = behind_key_values(base, keys, values)      # [layers, kv_heads, n, head_dim] each

PEFT's own ``generate`` feeds the prefix again at every step on transformers >= 5.24, so a hook on the backbone does it here:
it fills an empty cache with the learnt rows and moves positions and masks on by n. Every eval then works as on a plain model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmpatch.baselines.copies import share
from llmpatch.bases import Base

if TYPE_CHECKING:
    import torch


def behind_key_values(base: Base, keys: torch.Tensor, values: torch.Tensor) -> Base:
    """A base that attends to learnt rows before everything else; the given one is not changed.

    Args:
        base: The model.
        keys: [layers, kv_heads, n, head_dim], rotated for the positions 0 to n - 1 already.
        values: Of the same shape.
    """
    model = share(base.model)
    # As buffers they are part of the model's state, so kept answers can tell this model from others.
    model.register_buffer("prefix_keys", keys.detach().clone())
    model.register_buffer("prefix_values", values.detach().clone())
    keyword, config, count = base.cache_keyword, model.config, keys.shape[2]

    def before(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = options.get("inputs_embeds")
        given = given if given is not None else options.get("input_ids", *arguments[:1])
        cache = _filled(options.get(keyword), config, model.prefix_keys, model.prefix_values, len(given))
        moved = {**options, keyword: cache, "use_cache": True}
        if options.get("position_ids") is not None:
            moved["position_ids"] = options["position_ids"] + count
        if options.get("attention_mask") is not None:
            moved["attention_mask"] = _widened(options["attention_mask"], count)
        return arguments, moved

    model.base_model.register_forward_pre_hook(before, with_kwargs=True)
    return replace(base, name=f"{base.name}+{count} keys and values", model=model)


def _filled(cache: Any, config: Any, keys: torch.Tensor, values: torch.Tensor, batch: int) -> Any:
    """The cache, with the learnt rows in it if it was empty."""
    from transformers import DynamicCache

    cache = DynamicCache(config=config) if cache is None else cache
    if cache.get_seq_length() == 0:
        for layer, (k, v) in enumerate(zip(keys, values, strict=True)):
            cache.update(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1), layer)
    return cache


def _widened(mask: torch.Tensor, count: int) -> torch.Tensor:
    """A mask, [B, length] or [B, 1, T, length], that lets every query look at the learnt rows, too."""
    import torch

    seen = 1 if mask.dim() == 2 or mask.dtype == torch.bool else 0  # a float mask of four dimensions is added to scores
    front = torch.full((*mask.shape[:-1], count), seen, dtype=mask.dtype, device=mask.device)
    return torch.cat([front, mask], -1)
