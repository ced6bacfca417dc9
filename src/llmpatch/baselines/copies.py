"""Copies of a model that share its weights: modules of their own, to hook and to wrap, at no cost in memory.

model = share(base.model)    # model is not base.model; model.lm_head.weight is base.model.lm_head.weight
"""

from __future__ import annotations

import copy
from typing import Any

from llmpatch.packed import PackedLinear


def share(model: Any) -> Any:
    """A copy of a model's modules around the same parameters, buffers and packed weights. Nothing may be written into those."""
    packs = [module.packs for module in model.modules() if isinstance(module, PackedLinear)]
    return copy.deepcopy(model, {id(kept): kept for kept in (*model.parameters(), *model.buffers(), *packs)})
