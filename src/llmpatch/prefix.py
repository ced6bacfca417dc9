"""The soft prefix: ``n`` virtual tokens before everything else, and the key-value cache that applies them.

    rows = init_prefix(base, PrefixSection(tokens=50), seed=0)   # [50, hidden_size]
    cache = prefix_cache(base, rows, head=[1, 9690])             # computed once, reused by every request
    cache = prefix_cache(base, parallel([one, other]), head)     # several, none of which reads another

Rows are input embeddings as the model's table gives them, *after* any scaling it applies (Gemma), and stand before the BOS
token (Lester et al. 2021; placing them first keeps utility, arXiv 2507.07974). Knows nothing about training or files.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from llmpatch.bases import Base
from llmpatch.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from llmpatch.recipe import PrefixSection

Rows: TypeAlias = "torch.Tensor | Parallel"  # virtual tokens [n, hidden_size], or several such prefixes side by side
CONTEXT_SHARE = 4  # all virtual tokens together take at most a quarter of a context, as those of one patch do


@dataclass(frozen=True, eq=False)
class Parallel:
    """Prefixes side by side: each reads itself alone, and all end where the request begins (ADR 0035).

    So each has the keys, values and distances to a request that it has by itself. Their first positions, to which a model
    attends where nothing else matters (the attention sink, arXiv 2309.17453), become one, their mean: several would draw
    attention from the request. Make it by :func:`parallel`.

    Attributes:
        parts: At least two, each [n, hidden_size].
    """

    parts: tuple[torch.Tensor, ...]

    def __len__(self) -> int:
        """How many positions they take."""
        return sum(len(part) for part in self.parts) - len(self.parts) + 1


def parallel(parts: Sequence[torch.Tensor]) -> Parallel:
    """Prefixes side by side, in an order of their own: whatever order they are given in, the result is the same.

    Raises:
        UsageError: fewer than two.
    """
    if len(parts) < 2:
        raise UsageError("one patch stands beside nothing", hint="name two or more")
    return Parallel(tuple(sorted(parts, key=prefix_digest)))


def prefix_digest(rows: Rows | npt.NDArray[np.float32]) -> str:
    """The sha256 by which evidence names virtual tokens [n, hidden_size]: their shape and little-endian float32 bytes.

    Of prefixes side by side it is that of their digests, a line each.
    """
    import numpy as np

    if isinstance(rows, Parallel):
        return hashlib.sha256("".join(f"parallel {prefix_digest(part)}\n" for part in rows.parts).encode()).hexdigest()
    found = rows if isinstance(rows, np.ndarray) else rows.detach().float().contiguous().cpu().numpy()
    return hashlib.sha256(f"{found.shape}".encode() + found.astype("<f4").tobytes()).hexdigest()


def init_prefix(base: Base, section: PrefixSection, seed: int) -> torch.Tensor:
    """Rows to start training from.

    Args:
        base: The model whose embeddings are used.
        section: Number of tokens and kind of start. ``text`` repeats or cuts the text's tokens to that number.
        seed: Decides the random kinds.

    Returns:
        Float32 tensor [tokens, hidden_size], detached.

    Raises:
        UsageError: the text has no tokens, or the prefix would fill a quarter of the model's context.
    """
    import torch

    n = section.tokens
    if n * 4 > base.context:
        raise UsageError(
            f"{n} virtual tokens are too many for a context of {base.context}", hint="use at most a quarter of it"
        )
    generator = torch.Generator().manual_seed(seed)
    if section.init == "random":
        table = base.embed(torch.randint(base.vocab_size, (512,), generator=generator))
        return torch.randn(n, base.hidden_size, generator=generator) * table.std().item()
    if section.init == "vocabulary":
        ids = torch.randint(base.vocab_size, (n,), generator=generator)
    else:
        text = base.tokenizer.encode(section.text, add_special_tokens=False)
        if not text:
            raise UsageError(
                "the prefix's init text has no tokens", hint="write a short safety instruction in prefix.text"
            )
        ids = torch.tensor((text * (n // len(text) + 1))[:n])
    return base.embed(ids).float().cpu().clone()


def check_room(base: Base, tokens: int) -> None:
    """Refuse more virtual tokens than a quarter of a base's context.

    Raises:
        UsageError: says how many there are and how many fit.
    """
    if tokens * CONTEXT_SHARE > base.context:
        raise UsageError(
            f"{tokens} virtual tokens are too many for the context of {base.name}, {base.context}: at most "
            f"{base.context // CONTEXT_SHARE} leave enough room",
            hint="leave one out, or train one cumulative patch for all of them (docs/composition.md)",
        )


def check_side_by_side(base: Base) -> None:
    """Refuse prefixes side by side on a model with layers that see only the latest tokens: their masks go by places.

    Raises:
        UsageError: it is one.
    """
    from transformers import DynamicCache

    if any(layer.is_sliding for layer in DynamicCache(config=base.model.config).layers):
        raise UsageError(
            f"{base.name} has layers that see only the latest tokens: patches cannot stand side by side there",
            hint="put them one after another, or use a cumulative patch (docs/composition.md)",
        )


def prefix_cache(base: Base, rows: Rows | None, head: list[int]) -> Any:
    """The key-value cache of the prefix and of the token ids that follow it in every request.

    Gradients flow to ``rows`` when they require them; wrap in ``torch.no_grad()`` for inference.

    Args:
        base: The model.
        rows: [n, hidden_size], several such side by side, or ``None`` for the base alone.
        head: Token ids shared by all requests (the constant start of the chat template); may be empty.

    Returns:
        A ``DynamicCache`` of batch size 1 holding ``len(rows) + len(head)`` positions, or ``None`` when that is zero.

    Raises:
        UsageError: prefixes side by side, and a model with layers that see only the latest tokens.
    """
    import torch
    from transformers import DynamicCache

    if isinstance(rows, Parallel):
        cache = _side_by_side(base, rows)
        if head:
            cache.growing = True  # for recomputing: what is read now stays
            _read(base, base.embed(torch.tensor(head)), len(rows), cache)
            cache.growing = False
        return cache
    parts = [] if rows is None else [rows.to(base.device, base.model.dtype)]
    if head:
        parts.append(base.embed(torch.tensor(head)))
    if not parts:
        return None
    cache = DynamicCache(config=base.model.config)
    _read(base, torch.cat(parts), 0, cache)
    return cache


def _read(base: Base, embeds: torch.Tensor, start: int, cache: Any) -> None:
    """Put embeddings [n, hidden_size] into a cache, at positions from ``start`` on."""
    import torch

    positions = torch.arange(start, start + len(embeds), device=embeds.device)[None]
    backbone(base)(inputs_embeds=embeds[None], position_ids=positions, use_cache=True, **{base.cache_keyword: cache})


def _side_by_side(base: Base, rows: Parallel) -> Any:
    """The cache of prefixes that do not read each other: one first position, the mean of theirs, then the rest of each."""
    import torch
    from transformers import DynamicCache

    check_side_by_side(base)
    found = []
    for part in rows.parts:
        found.append(DynamicCache(config=base.model.config))
        _read(base, part.to(base.device, base.model.dtype), len(rows) - len(part), found[-1])
    cache = DynamicCache(config=base.model.config)
    for number, layers in enumerate(zip(*(one.layers for one in found), strict=True)):
        joined = []
        for states in ([layer.keys for layer in layers], [layer.values for layer in layers]):
            first = torch.stack([one[:, :, :1] for one in states]).mean(0)
            joined.append(torch.cat([first, *(one[:, :, 1:] for one in states)], dim=2))
        cache.update(*joined, number)
    return cache


def repeat_cache(cache: Any, batch: int) -> Any:
    """A cache for ``batch`` rows; the original stays as it is, and no gradient flows."""
    if cache is None:
        return None
    fresh = copy.deepcopy(cache)
    fresh.batch_repeat_interleave(batch)
    return fresh


def expand_cache(base: Base, cache: Any, batch: int) -> Any:
    """A cache of ``batch`` rows that views a batch-1 cache, with gradients: the prefix's keys are computed once."""
    from transformers import DynamicCache

    wide = DynamicCache(config=base.model.config)
    for source, target in zip(cache.layers, wide.layers, strict=True):
        target.__dict__.update(source.__dict__)
        target.keys = source.keys.expand(batch, -1, -1, -1)
        target.values = source.values.expand(batch, -1, -1, -1)
    return wide


def backbone(base: Base) -> Any:
    """The model without its vocabulary head: its output is hidden states, so that logits are computed on demand."""
    return base.model.base_model


def decoder_layers(model: Any) -> list[Any]:
    """The blocks of a model, first to last: the longest of its lists of modules.

    Raises:
        UsageError: it has no such list.
    """
    import torch

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    if not lists:
        raise UsageError(
            f"the blocks of a {model.config.model_type} model are of an unknown kind", hint="report the architecture"
        )
    return list(sorted(lists, key=len)[-1])


def cache_among(args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The key-value cache among the arguments of a layer, by position or by whatever name; ``None`` where there is none."""
    return next((value for value in (*args, *options.values()) if hasattr(value, "layers")), None)


def head_logits(base: Base, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of final hidden states [..., hidden_size] -> [..., vocab_size], as the model's own forward gives them.

    Covers the soft cap of Gemma 2 and the scales of Granite and Cohere; :func:`check_head` proves it for a model.
    """
    config = base.model.config.get_text_config()
    logits: torch.Tensor = base.model.get_output_embeddings()(hidden)
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = (logits / cap).tanh() * cap
    return logits


def check_head(base: Base) -> None:
    """Prove that :func:`head_logits` equals the model's own forward, and that the model takes positions (MPT and Bloom do not).

    Raises:
        UsageError: they differ: this architecture's head is not known here; or it takes none.
    """
    import torch

    if "position_ids" not in inspect.signature(backbone(base).forward).parameters:
        raise UsageError(
            f"{base.name} ({base.model.config.model_type}) takes no positions: two answers to one prompt cannot stand in a row",
            hint="choose another base; this architecture cannot be trained on",
        )
    with torch.no_grad():
        ids = torch.tensor([base.text_ids("The head of a model is checked before it is trusted.")], device=base.device)
        own = base.model(input_ids=ids).logits
        ours = head_logits(base, backbone(base)(input_ids=ids).last_hidden_state)
    if own.shape != ours.shape or not torch.allclose(own, ours, atol=1e-3, rtol=1e-3):
        raise UsageError(
            f"the vocabulary head of {base.name} ({base.model.config.model_type}) is of an unknown kind",
            hint="please report this architecture; training on it would be wrong",
        )


def common_head(sequences: list[list[int]]) -> list[int]:
    """The longest start shared by all token sequences that still leaves each at least one token."""
    if not sequences:
        return []
    shortest, longest = min(sequences), max(sequences)
    limit = min(len(s) for s in sequences) - 1
    length = 0
    while length < limit and shortest[length] == longest[length]:
        length += 1
    return shortest[:length]
