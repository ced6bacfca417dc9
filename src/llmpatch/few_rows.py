"""Linear layers that read their weights at the speed of memory when they have few rows to do, as in decoding on a CPU.

    read_fast(model)

A few rows cost a layer the time to read its weights. MKL's product of few rows and a matrix reads them at half of that speed or
less; the product of the matrix and as few columns, the same numbers but for rounding, at all of it. One row alone goes through a
still slower path of its own, so it is taken twice. Packed weights are faster still (:mod:`llmpatch.packed`), but copies: this is
for models too large for those. ``benchmarks/layers.py`` measures all ways.
"""

from __future__ import annotations

import platform
from typing import Any

import torch

# With twelve rows both ways took as long where this was measured (2 cores, AVX2, MKL 2024.2).
MOST_ROWS = 8


class FewRowsLinear(torch.nn.Linear):
    """A linear layer that takes the fast way where its input has few rows."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Rows [..., in_features] -> [..., out_features]."""
        rows = input.numel() // self.in_features
        if not 0 < rows <= MOST_ROWS or input.device.type != "cpu" or input.dtype != torch.float32:
            return super().forward(input)
        flat = input.reshape(rows, self.in_features)
        columns = (flat if rows > 1 else flat.repeat(2, 1)).t()
        found = torch.mm(self.weight, columns).t()[:rows].contiguous()
        if self.bias is not None:
            found = found + self.bias
        return found.view(*input.shape[:-1], self.out_features)


def read_fast(model: Any) -> None:
    """Let a model's float32 linear layers take the fast way; weights, names and gradients stay as they are.

    Nothing is done without MKL and on other processors than x86.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = FewRowsLinear


def read_plainly(model: Any) -> None:
    """Undo :func:`read_fast`; for measurements."""
    for module in model.modules():
        if type(module) is FewRowsLinear:
            module.__class__ = torch.nn.Linear  # type: ignore[assignment]
