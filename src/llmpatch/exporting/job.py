"""What every exporter is given, and what it gives back.

Knows nothing about formats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.exporting.checking import Measured
from llmpatch.exporting.slots import Slots

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Job:
    """An export to be made.

    Attributes:
        base: The base.
        rows: Virtual tokens [n, hidden_size] float32 of all patches, in order.
        base_id: What others call the base: a hub id, or its name.
        revision: Its commit there.
        dtype: Of saved weights.
    """

    base: Base
    rows: torch.Tensor = field(repr=False)
    base_id: str
    revision: str | None
    dtype: str


@dataclass(frozen=True)
class Made:
    """An export that passed its check.

    Attributes:
        checks: What was measured, by the name of what was compared.
        slots: The tokens that stand for the patch, where there are any.
        how: For an engine's operator and the gateway: plain JSON.
        notes: What a user must know.
    """

    checks: dict[str, Measured]
    slots: Slots | None = None
    how: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
