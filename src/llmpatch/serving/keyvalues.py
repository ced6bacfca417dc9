"""Keys and values of a batch whose rows stand at different positions and join and leave at any step.

    memory = KeyValues(base, rows=8, context=2048)
    hidden = memory.forward(0, ids, starts=[70, 12])     # rows 0 and 1, each continued where it is

A row is written from its first position on, without padding: what stands where is said by positions and a mask of each
row's own. So a row that joins disturbs no other, and rows behind different patch sets share one forward. Knows nothing
about requests; that a model's layers are served rightly is proved by the canary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.prefix import Parallel, Rows, backbone, prefix_cache

if TYPE_CHECKING:
    import torch

FIRST_POSITIONS = 256


@dataclass(frozen=True, eq=False)
class Prefix:
    """What requests behind one patch set share: the keys and values of its rows and of the chat head.

    Attributes:
        rows: Number of virtual tokens; they are the first positions.
        head: Token ids that follow them.
        keys: One tensor [heads, rows + len(head), dim] a layer.
        values: The same for values.
    """

    rows: int
    head: tuple[int, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def shared(self, ids: Sequence[int]) -> int:
        """How many leading positions a prompt can take over; it keeps at least one token of its own."""
        limit = min(len(ids) - 1, len(self.head))
        same = 0
        while same < limit and ids[same] == self.head[same]:
            same += 1
        return self.rows + same


@dataclass
class _Step:
    """Where the current forward writes, for all layers."""

    first: int = 0
    starts: Sequence[int] = ()
    lengths: Sequence[int] = ()
    width: int = 0
    rows_index: Any = None
    starts_index: Any = None


class KeyValues:
    """Memory for ``rows`` rows and one more, ``scratch``, of up to ``context`` positions; it grows as rows do.

    Raises:
        UsageError: a model with layers that keep something else than keys and values.
    """

    def __init__(self, base: Base, rows: int, context: int) -> None:
        from transformers import Cache

        self.base, self.scratch, self.context = base, rows, context
        self.windows = base.windows
        self._step = _Step()
        self._capacity = min(FIRST_POSITIONS, context)
        self._layers = [_make_layer(rows + 1, self._step) for _ in self.windows]
        for layer in self._layers:
            layer.capacity = self._capacity
        self._cache = Cache(layers=self._layers)
        self._holds: list[Prefix | None] = [None] * (rows + 1)
        self._clean = [0] * (rows + 1)

    def forward(
        self, first: int, inputs: torch.Tensor, starts: Sequence[int], lengths: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Run new positions of neighbouring rows.

        Args:
            first: The first row.
            inputs: Token ids [B, T], or embeddings [B, T, hidden_size]; filled up on the right where a row has fewer.
            starts: How many positions each row has already.
            lengths: How many of the T are each row's own; all by default.

        Returns:
            Hidden states [B, T, hidden_size]; what lies behind a row's length means nothing.
        """
        import torch

        width = inputs.shape[1]
        lengths = [width] * len(starts) if lengths is None else lengths
        self._reserve(max(start + length for start, length in zip(starts, lengths, strict=True)))
        step, device = self._step, self.base.device
        step.first, step.starts, step.lengths = first, starts, lengths
        step.width = max(start + length for start, length in zip(starts, lengths, strict=True))
        step.rows_index = torch.arange(first, first + len(starts), device=device)
        step.starts_index = torch.tensor(starts, device=device)
        positions = step.starts_index[:, None] + torch.arange(width, device=device)
        # What fills a row up stays where the row ends: beyond the context a model may have no position.
        ends = step.starts_index + torch.tensor(lengths, device=device) - 1
        positions = torch.minimum(positions, ends[:, None])
        inputs = inputs.to(device)
        name = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
        with torch.no_grad():
            output = backbone(self.base)(
                attention_mask=self._mask(positions, step.width), position_ids=positions, use_cache=True,
                **{name: inputs, self.base.cache_keyword: self._cache},
            )  # fmt: skip
        return output.last_hidden_state  # type: ignore[no-any-return]

    def _mask(self, positions: torch.Tensor, width: int) -> Any:
        """An additive mask [B, 1, T, width]; one a kind of layer where a model has two."""
        import torch

        columns = torch.arange(width, device=positions.device)
        seen = columns <= positions[:, :, None]
        dtype = self.base.model.dtype

        def additive(allowed: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

        kinds = {
            window: additive(seen if window is None else seen & (columns > positions[:, :, None] - window))
            for window in set(self.windows)
        }
        if len(kinds) == 1:
            return next(iter(kinds.values()))
        return {"full_attention" if window is None else "sliding_attention": mask for window, mask in kinds.items()}

    def _reserve(self, positions: int) -> None:
        if positions <= self._capacity:
            return
        while self._capacity < positions:
            self._capacity = min(2 * self._capacity, self.context)
            if self._capacity == self.context < positions:
                raise ValueError(f"{positions} positions in a memory of {self.context}")
        for layer in self._layers:
            layer.grow(self._capacity)

    def shrink(self) -> None:
        """Give back what long rows took. Only when no row is in use."""
        if self._capacity > FIRST_POSITIONS:
            self._capacity = min(FIRST_POSITIONS, self.context)
            self._holds = [None] * len(self._holds)
            for layer in self._layers:
                layer.clear(self._capacity)

    def put(self, row: int, prefix: Prefix, shared: int) -> None:
        """Make the first ``shared`` positions of a row those of a prefix. Costs nothing where they still are."""
        self._reserve(shared)
        clean = self._clean[row] if self._holds[row] is prefix else 0
        if clean < shared:
            for layer, keys, values in zip(self._layers, prefix.keys, prefix.values, strict=True):
                layer.write(row, clean, keys[:, clean:shared], values[:, clean:shared])
        self._holds[row], self._clean[row] = prefix, shared

    def forget(self, row: int) -> None:
        """Copy a prefix to a row at its next use, whatever it holds."""
        self._holds[row] = None

    def intact(self, prefix: Prefix) -> bool:
        """Whether every row that is said to hold a prefix holds it, bit by bit."""
        if not prefix.keys:  # no rows, and prompts that start with nothing in common
            return True
        held = [row for row, found in enumerate(self._holds) if found is prefix and self._clean[row]]
        return all(
            layer.keys[row, :, : self._clean[row]].equal(keys[:, : self._clean[row]])
            and layer.values[row, :, : self._clean[row]].equal(values[:, : self._clean[row]])
            for layer, keys, values in zip(self._layers, prefix.keys, prefix.values, strict=True)
            for row in held
        )

    def move(self, source: int, target: int, prefix: Prefix, shared: int, length: int) -> None:
        """Copy a row of ``length`` positions, of which the first ``shared`` are a prefix's; the source stays."""
        self.put(target, prefix, shared)
        for layer in self._layers:
            layer.write(target, shared, layer.keys[source, :, shared:length], layer.values[source, :, shared:length])

    def make_prefix(self, rows: Rows | None, head: Sequence[int]) -> Prefix:
        """Compute what all requests behind ``rows`` [n, hidden_size] share."""
        import torch

        if isinstance(rows, Parallel):
            with torch.no_grad():
                layers = prefix_cache(self.base, rows, list(head)).layers
            keys = tuple(layer.keys[0].clone() for layer in layers)
            return Prefix(len(rows), tuple(head), keys, tuple(layer.values[0].clone() for layer in layers))
        parts = [] if rows is None else [rows.to(self.base.device, self.base.model.dtype)]
        if head:
            parts.append(self.base.embed(torch.tensor(list(head))))
        if not parts:
            return Prefix(0, (), (), ())
        embeds = torch.cat(parts)[None]
        self.forget(self.scratch)
        self.forward(self.scratch, embeds, [0])
        keys = tuple(layer.keys[self.scratch, :, : embeds.shape[1]].clone() for layer in self._layers)
        values = tuple(layer.values[self.scratch, :, : embeds.shape[1]].clone() for layer in self._layers)
        return Prefix(0 if rows is None else len(rows), tuple(head), keys, values)


def _make_layer(rows: int, step: _Step) -> Any:
    """A layer of a transformers cache over one buffer. Made late, since its base class is transformers'."""
    from transformers.cache_utils import CacheLayerMixin

    class Layer(CacheLayerMixin):  # type: ignore[misc]
        capacity = 0

        def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
            def buffer(states: torch.Tensor) -> torch.Tensor:
                # Zeros, since what is masked is still multiplied by zero, and zero times NaN is NaN.
                return states.new_zeros(rows, states.shape[1], self.capacity, states.shape[-1])

            self.keys, self.values, self.is_initialized = buffer(key_states), buffer(value_states), True

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            last = step.first + len(step.starts)
            if key_states.shape[-2] == 1:
                self.keys[step.rows_index, :, step.starts_index] = key_states[:, :, 0]
                self.values[step.rows_index, :, step.starts_index] = value_states[:, :, 0]
            else:
                for i, (start, length) in enumerate(zip(step.starts, step.lengths, strict=True)):
                    self.write(step.first + i, start, key_states[i, :, :length], value_states[i, :, :length])
            return (self.keys[step.first : last, :, : step.width], self.values[step.first : last, :, : step.width])

        def write(self, row: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
            if not self.is_initialized:
                self.lazy_initialization(keys[None], values[None])
            self.keys[row, :, start : start + keys.shape[1]] = keys
            self.values[row, :, start : start + values.shape[1]] = values

        def grow(self, capacity: int) -> None:
            self.capacity = capacity
            if not self.is_initialized:
                return
            old_keys, old_values = self.keys, self.values
            self.lazy_initialization(old_keys, old_values)
            self.keys[:, :, : old_keys.shape[2]] = old_keys
            self.values[:, :, : old_values.shape[2]] = old_values

        def clear(self, capacity: int) -> None:
            self.capacity = capacity
            if self.is_initialized:
                del self.keys, self.values
            self.is_initialized = False

        def get_seq_length(self) -> int:
            return 0

        def get_max_length(self) -> int:
            return -1

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - transformers' signature
            return step.width, 0

    return Layer()
