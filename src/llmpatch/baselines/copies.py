"""Copies of a model that share its weights: modules of their own, to hook and to wrap, at no cost in memory.

model = share(base.model)    # model is not base.model; model.lm_head.weight is base.model.lm_head.weight
"""

from __future__ import annotations

import copy
from typing import Any


def share(model: Any) -> Any:
    """A copy of a model's modules around the same parameters and buffers. Nothing may be written into those."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
