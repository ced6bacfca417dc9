"""Linear layers over weights that oneDNN has packed for this processor: the same products, faster for every number of rows.

    pack(model)        # by load_base, on CPUs
    unpack(model)      # torch's own layers again, for measurements and for what moves weights around

What MKL reads of a weight as it lies, row by row, oneDNN reads in blocks of the size of its registers. They are made once, at the
first product, and a second time, turned, at the first gradient; the weights themselves stay where they are, so a packed model
takes two or three times the memory of its weights. One or two rows, and models larger than ``MOST_BYTES``, go the way of
:mod:`llmpatch.few_rows`. From three rows on a row came out the same, to the bit, whatever was multiplied beside it, on two cores;
oneDNN does not promise it.
"""

from __future__ import annotations

import math
import platform
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from llmpatch.few_rows import FewRowsLinear, read_fast, read_plainly

MOST_BYTES = 2 << 30  # of float32 weights in linear layers: half a billion numbers
LEAST_ROWS = 3  # the few-rows way takes one or two by a tenth to a quarter faster (benchmarks/layers.py)
_SAMPLES = 16


class PackedLinear(FewRowsLinear):
    """A linear layer that multiplies with a packed copy of its weight, where it has the rows for it."""

    packs: Packs

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Rows [..., in_features] -> [..., out_features]."""
        own = self._parameters  # by a module's own lookup each of the two would cost as much as the rest of this
        weight, bias = own["weight"], own["bias"]
        assert weight is not None
        few = input.numel() < LEAST_ROWS * self.in_features
        if few or not input.is_cpu or input.dtype is not torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        if torch.is_grad_enabled():
            if weight.requires_grad or (bias is not None and bias.requires_grad):
                return super().forward(input)
            if input.requires_grad and self.packs.fit(weight):
                found: torch.Tensor = _Product.apply(input, self.packs, weight, bias)  # type: ignore[no-untyped-call]
                return found
        if not self.packs.fit(weight):
            return super().forward(input)
        return _multiply(input.contiguous(), self.packs.there(weight), bias)


class Packs:
    """A weight's packed copies, for as long as it is what it was when they were made."""

    def __init__(self) -> None:
        self._there: torch.Tensor | None = None
        self._back: torch.Tensor | None = None
        self._place = (-1, -1)
        self._look: Any = bytes
        self._seen = b""
        self._fit = False

    def __reduce__(self) -> Any:  # copies and pickles of a layer pack for themselves
        return (Packs, ())

    def fit(self, weight: torch.Tensor) -> bool:
        """Whether the weight can be packed. Copies are dropped if somebody has put another in its place, or written into it.

        What is written through ``.data`` no version counts, as PEFT does when it merges; a few of the numbers are looked at.
        """
        place = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if place != self._place or self._look() != self._seen:
            self._there = self._back = None
            self._place = place
            self._fit = weight.is_cpu and weight.dtype is torch.float32
            if self._fit:
                flat = weight.detach().reshape(-1).numpy()
                stride = len(flat) // _SAMPLES + weight.shape[-1] // _SAMPLES + 1  # through rows and columns
                self._look = flat[::stride].tobytes
                self._seen = self._look()
        return self._fit

    def there(self, weight: torch.Tensor) -> torch.Tensor:
        """Packed for rows [..., in_features]."""
        found = self._there  # another thread may drop it meanwhile
        if found is None:
            found = self._there = _packed(weight.detach())
        return found

    def back(self, weight: torch.Tensor) -> torch.Tensor:
        """Packed for gradients [..., out_features]."""
        found = self._back
        if found is None:
            found = self._back = _packed(weight.detach().t().contiguous())
        return found


class _Product(torch.autograd.Function):
    """A packed product with the gradient of its rows; the weight is frozen."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, packs: Packs, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.packs, ctx.weight = packs, weight
        return _multiply(rows.contiguous(), packs.there(weight), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        ctx.packs.fit(ctx.weight)
        return _multiply(gradient.contiguous(), ctx.packs.back(ctx.weight), None), None, None, None


def _packed(weight: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return found


def _multiply(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, packed, bias, "none", [], "")
    return found


if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(rows: Any, weight: Any, *_: Any, **__: Any) -> int:
        """Two for each row and number of the weight, as for a product of torch's own."""
        return 2 * int(math.prod(rows)) * int(weight[0])


def pack(model: Any) -> None:
    """Let a model's frozen float32 linear layers multiply packed weights; names, weights and gradients stay as they are.

    A model that is too large for copies is read as :func:`llmpatch.few_rows.read_fast` does. Nothing is done on other
    processors than x86.
    """
    layers = [m for m in model.modules() if type(m) is torch.nn.Linear and m.weight.dtype == torch.float32]
    there = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or sum(layer.weight.nbytes for layer in layers) > MOST_BYTES:
        read_fast(model)
        return
    for layer in layers:
        layer.__class__ = PackedLinear
        layer.packs = Packs()  # type: ignore[assignment]


def unpack(model: Any) -> None:
    """Undo :func:`pack`."""
    read_plainly(model)
    for module in model.modules():
        if type(module) is PackedLinear:
            del module.packs
            module.__class__ = torch.nn.Linear  # type: ignore[assignment]
