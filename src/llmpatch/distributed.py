"""Training by several processes: each takes its share of a step's examples; the base may be spread over them, the rows never are.

    with joined() as split:                                    # under torchrun; else alone
        result, counts = learn(material, base, run, progress, split=split)

    torchrun --nproc-per-node 8 -m llmpatch train RECIPE --run RUN --shard

Rows, optimiser and validation are the same on every process; what is summed in a step is one gradient of the rows. With ``shard``
the layers of the base are spread over the processes by FSDP2 and gathered one at a time, so that every process must run the base
equally often: embeddings and head stay whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.prefix import cache_among, decoder_layers

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base

T = TypeVar("T")
# One process may ask a reference for hours while the others wait for its pairs.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Split:
    """This process among those that train together.

    Attributes:
        rank: Which one, from 0.
        count: How many there are.
        sharded: Whether the base is to be spread over them.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    def mine(self, items: Sequence[T]) -> list[T]:
        """This process's share of a step's examples."""
        return list(items[self.rank :: self.count])

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of a tensor that each has."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)
        return tensor

    def of_first(self, value: float, base: Base) -> float:
        """The first process's value; others may differ in the last bits, and must not decide otherwise."""
        import torch

        mine = value if self.rank == 0 else 0.0
        return float(self.add_up(torch.tensor(mine, dtype=torch.float64, device=base.device)))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does the block while the others wait, and finds files instead of work; then they do it."""
        if self.rank > 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()

    def shard(self, base: Base) -> None:
        """Spread a base's layers over the processes, where that is wanted; every forward is then one of all of them."""
        if not self.sharded or base.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        from llmpatch.packed import unpack

        unpack(base.model)  # weights come and go, and a copy of each is what is to be saved
        mesh = init_device_mesh(base.device.type, (self.count,))
        for number, layer in enumerate(decoder_layers(base.model)):
            # FSDP gathers a layer for its backward pass when a gradient reaches what its forward returned. Through the shared
            # prefix gradients come in by the cache instead, so for FSDP's own hook, between these two, that is returned, too.
            layer.register_forward_hook(partial(_with_cache, number), with_kwargs=True)
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            layer.register_forward_hook(_without_cache)
        base.sharded = True


def _with_cache(number: int, layer: Any, args: Any, options: dict[str, Any], output: Any) -> Any:
    del layer
    cache = cache_among(args, options)
    return (output, cache.layers[number].keys, cache.layers[number].values) if cache else (output,)


def _without_cache(layer: Any, _: Any, output: Any) -> Any:
    del layer
    return output[0]


ALONE = Split()


@contextmanager
def joined(*, shard: bool = False) -> Iterator[Split]:
    """This process among those that ``torchrun`` started, or alone; on a GPU each, where there are any.

    Args:
        shard: Spread the base over them.

    Raises:
        UsageError: ``shard`` without other processes.
        LlmpatchError: the others cannot be reached, or one of them died.
    """
    import torch

    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        if shard:
            raise UsageError("there is one process, and nothing to spread the base over", hint="start it with torchrun")
        yield ALONE
        return
    backend = "gloo"
    if torch.cuda.is_available() and os.environ.get("LLMPATCH_DEVICE", "").strip() != "cpu":
        backend = "cpu:gloo,cuda:nccl"  # the trained rows and their gradient are on the CPU
        place = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(place)
        os.environ["LLMPATCH_DEVICE"] = f"cuda:{place}"
    try:
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise LlmpatchError(
            f"the {count} processes do not find each other: {reason}", hint="are MASTER_ADDR and MASTER_PORT right?"
        ) from None
    try:
        yield replace(ALONE, rank=torch.distributed.get_rank(), count=count, sharded=shard)
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise LlmpatchError(
            "another process of this training is gone",
            hint="see what it said, and start all of them again: they go on from the last checkpoint",
        ) from error
    finally:
        torch.distributed.destroy_process_group()
