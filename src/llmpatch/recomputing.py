"""Layers that compute their insides again for the backward pass, in place of keeping them: gradient checkpointing behind a cache.

    with recomputed(base):
        train(...)

A step then keeps one input per layer, and takes a forward pass more. transformers' own checkpointing drops the key-value cache
through which the shared prefix gets its gradient, so each layer is given the keys and values that it had before, and fills the
cache again. The numbers are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.prefix import cache_among, decoder_layers

if TYPE_CHECKING:
    from llmpatch.bases import Base


@contextmanager
def recomputed(base: Base) -> Iterator[None]:
    """While it lasts, gradients through the base cost little memory and a third more time.

    Raises:
        UsageError: the base is spread over processes: its layers come and go by themselves.
    """
    if base.sharded:
        raise UsageError("a base that is spread over processes is not recomputed", hint="leave one of the two out")
    layers = decoder_layers(base.model)
    own = [layer.__dict__.get("forward") for layer in layers]
    for number, layer in enumerate(layers):
        layer.forward = partial(_forward, number, layer.forward)
    try:
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            del layer.forward  # that of its class again
            if before is not None:
                layer.forward = before


def _forward(number: int, forward: Any, hidden: Any, *args: Any, **options: Any) -> Any:
    """A layer's forward, kept as its input where a gradient is wanted."""
    import torch
    from torch.utils.checkpoint import checkpoint

    if not torch.is_grad_enabled():
        return forward(hidden, *args, **options)
    cache = cache_among(args, options)
    held = None if cache is None else cache.layers[number]
    before = {} if held is None else dict(held.__dict__)
    # The head behind prefixes side by side is read into a cache that holds them already.
    stays = getattr(cache, "growing", False)

    def run(hidden: Any, keys: Any, values: Any) -> Any:
        if held is None:
            return forward(hidden, *args, **options)
        held.__dict__.update(before | {"keys": keys, "values": values})
        try:
            return forward(hidden, *args, **options)
        finally:
            # What a row adds behind the shared prefix nobody reads again: it is not to be kept.
            if keys is not None and not stays:
                held.__dict__.update(before)

    # Keys and values stand among the arguments, so that the gradient of the shared prefix finds its way through them.
    return checkpoint(run, hidden, before.get("keys"), before.get("values"), use_reentrant=False)
