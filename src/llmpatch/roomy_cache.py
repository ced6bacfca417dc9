"""A key-value cache that has room for the answer: a new token is written behind the others, which are not copied for it.

    cache = with_room(repeat_cache(shared, 32), 48)     # then as any DynamicCache
    sizes_of(base.model.config, 2).batch(rows=32, positions=1024) <= free_bytes(base.device)     # whether a batch has room

transformers' own layers make a new tensor of everything they hold for each token: a fifth of the time of answers of 12 tokens
behind 50 virtual ones, and more of longer ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    import torch

FREE_SHARE = 0.7  # of a GPU's free memory: kernels have workspaces, and an allocator gaps
# Without a GPU, where nothing is to be bounded by it: 32,768 positions take 38 GiB in a 7B model, and 35 in one of 70B.
CPU_BYTES = 1 << 37


@dataclass(frozen=True)
class Sizes:
    """What a batch that is answered takes, in bytes.

    Attributes:
        position: Keys and values of one position in all layers.
        inside: What one layer makes of a position while prompts are read.
        row: The logits of one row, as the model gives them, as float32, and sorted to draw from.
    """

    position: int
    inside: int
    row: int

    def batch(self, rows: int, positions: int) -> int:
        """Of ``rows`` rows that hold ``positions`` each, prompt and answer."""
        return rows * (positions * (self.position + self.inside) + self.row)


def sizes_of(config: Any, bytes_each: int) -> Sizes:
    """Sizes from a model's configuration, where a number of its weights' type takes ``bytes_each``."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    between = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    between = max(between) if isinstance(between, (list, tuple)) else between  # a layer each
    return Sizes(
        position=2 * config.num_hidden_layers * kv_heads * head_dim * bytes_each,
        inside=(4 * config.hidden_size + 3 * between) * bytes_each,
        row=config.vocab_size * (bytes_each + 4 * 6),
    )


def free_bytes(device: torch.device) -> int:
    """How many bytes a batch may take on a device, now."""
    import torch

    if device.type != "cuda":
        return CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for whoever asks next
    return int(FREE_SHARE * (free + held))


def with_room(cache: Any, room: int) -> Any:
    """Give the layers of a ``DynamicCache`` room for ``room`` positions more than the first pass brings.

    Layers that look at a window only stay as they are: they forget what stands before it.

    Args:
        cache: Changed in place.
        room: Positions.

    Returns:
        The cache.
    """
    cache.layers = [RoomyLayer(layer, room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, [batch, heads, positions, size]: views of blocks that are longer than what they hold."""

    def __init__(self, layer: DynamicLayer, room: int) -> None:
        super().__init__()
        self.__dict__.update(layer.__dict__)
        self.room = room
        self._blocks: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states behind those that are held; all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held, more = self.get_seq_length(), key_states.shape[-2]
        if self._blocks is None or self._stale(key_states, held + more):
            self._blocks = (self._block(key_states, self.keys), self._block(value_states, self.values))
        for block, states in zip(self._blocks, (key_states, value_states), strict=True):
            block[:, :, held : held + more] = states
        self._look(held + more)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only keep these rows, with their room."""
        if self._blocks is None or self._stale(self.keys, 0):
            super().batch_select_indices(indices)
            return
        held = self.get_seq_length()
        self._blocks = (self._blocks[0][indices], self._blocks[1][indices])
        self._look(held)

    def _look(self, length: int) -> None:
        assert self._blocks is not None
        self.keys, self.values = (block[:, :, :length] for block in self._blocks)

    def _stale(self, states: torch.Tensor, length: int) -> bool:
        """Whether the blocks are too small, or somebody has put other keys in their place."""
        assert self._blocks is not None
        block = self._blocks[0]
        same = self.keys.data_ptr() == block.data_ptr() and self.keys.shape[0] == block.shape[0] == states.shape[0]
        return not same or block.shape[-2] < length

    def _block(self, states: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        batch, heads, more, size = states.shape
        length = held.shape[-2] if held.numel() else 0
        block = states.new_empty(batch, heads, length + more + self.room, size)
        if length:
            block[:, :, :length] = held
        return block
