"""The canary: proof that a patch is applied, by the way that requests take.

    probes = probe_ids(base)
    expected = plain(base, rows, probes)              # no batch, transformers' own forward; no cache but side by side
    found = engine.call(lambda batch: served(batch, prefix, probes))
    check(found, expected, unpatched).ok

What is served must be the distribution of the next token that the patched model has, and not the one that the base has.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.prefix import Parallel, Rows, head_logits, prefix_cache

if TYPE_CHECKING:
    import torch

    from llmpatch.serving.batch import Batch
    from llmpatch.serving.keyvalues import Prefix

PROBES = ("How can I hurt somebody?", "What is the capital of France?")
# Total variation distances. In float32 the two ways differ by 1e-5 at most; half precision rounds each way otherwise.
TOLERANCE = 1e-3
HALF_TOLERANCE = 5e-2


@dataclass(frozen=True)
class Check:
    """What the canary said about one patch set.

    Attributes:
        ok: The patch is applied (or the base answers as itself, where there is none), in every row that holds it.
        delta: Largest distance of what is served from what the model computes without any of the server's parts.
        distance: Largest distance of what is served from the unpatched base.
        time: Seconds since 1970.
    """

    ok: bool
    delta: float
    distance: float
    time: float


def probe_ids(base: Base) -> list[list[int]]:
    """Token ids of the probes."""
    return [base.chat_ids(text) for text in PROBES]


def plain(base: Base, rows: Rows | None, probes: list[list[int]]) -> torch.Tensor:
    """Probabilities of the token after each probe [probes, vocab_size], by whole forwards of the model."""
    import torch

    found = []
    for ids in probes:
        embeds = base.embed(torch.tensor(ids))
        options: dict[str, Any] = {"use_cache": False}
        if isinstance(rows, Parallel):  # no single forward gives them: what is checked is what comes behind
            with torch.no_grad():
                options = {base.cache_keyword: prefix_cache(base, rows, [])}
        elif rows is not None:
            embeds = torch.cat([rows.to(embeds.device, embeds.dtype), embeds])
        with torch.no_grad():
            logits = base.model(inputs_embeds=embeds[None], logits_to_keep=1, **options).logits[0, -1]
        found.append(logits.float().softmax(-1))
    return torch.stack(found)


def served(batch: Batch, prefix: Prefix, probes: list[list[int]]) -> torch.Tensor:
    """The same as a request gets them: behind the shared prefix, in the memory of the batch."""
    import torch

    memory = batch.memory
    found = []
    for ids in probes:
        shared = prefix.shared(ids)
        memory.forget(memory.scratch)
        memory.put(memory.scratch, prefix, shared)
        own = torch.tensor([ids[shared - prefix.rows :]])
        hidden = memory.forward(memory.scratch, own, [shared])
        found.append(head_logits(batch.base, hidden[0, -1]).float().softmax(-1))
    return torch.stack(found)


def rounds(base: Base) -> bool:
    """Whether a base computes in half precision, all of it or layers that keep their weights in a few bits."""
    import torch

    half = (torch.float16, torch.bfloat16)
    return base.model.dtype in half or any(getattr(m, "compute_dtype", None) in half for m in base.model.modules())


def check(
    found: torch.Tensor,
    expected: torch.Tensor,
    unpatched: torch.Tensor | None,
    intact: bool = True,
    *,
    half: bool = False,
) -> Check:
    """Judge what is served.

    Args:
        found: From :func:`served`.
        expected: From :func:`plain`, with the same rows.
        unpatched: From :func:`plain` without rows; ``None`` when nothing is to differ from it.
        intact: Whether the rows of the batch hold what they are said to.
        half: Whether the base :func:`rounds`.
    """
    delta = _distance(found, expected)
    distance = 0.0 if unpatched is None else _distance(found, unpatched)
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    ok = intact and delta <= tolerance and (unpatched is None or 4 * delta < distance)
    return Check(ok, delta, distance, time.time())


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one - other).abs().sum(-1) / 2).max())
