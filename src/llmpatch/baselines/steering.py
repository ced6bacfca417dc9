"""Activation steering: one vector added to the residual stream behind one layer, at every position.

    vectors = mean_differences(base, data, answer_tokens=12)
    direction = find_direction(base, vectors, score=lambda tuned: validate(tuned))
    tuned = steer(base, direction.vector, direction.layer)

The vector is a difference of means (Rimsky et al. 2024; the refusal direction of Arditi et al. 2024 where the pairs are
refusals): hidden states over the chosen answers of harmful prompts less those over the rejected ones, on the patch's own
pairs. Layer and strength are chosen on validation prompts. Nothing is trained by gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmpatch.baselines.copies import share
from llmpatch.bases import Base
from llmpatch.errors import UsageError
from llmpatch.prefix import decoder_layers
from llmpatch.progress import Progress, Silent
from llmpatch.training_data import TrainingSet

if TYPE_CHECKING:
    import torch

DEPTHS = (0.3, 0.4, 0.5, 0.6, 0.7)
STRENGTHS = (0.5, 1.0, 2.0)
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector and where it is added.

    Attributes:
        vector: [hidden_size], its strength included.
        layer: The block behind which it is added, counted from 0.
        strength: In lengths of the difference of means.
        score: Of the validation.
        tried: Every candidate: ``{"layer", "strength", "score"}``.
    """

    vector: torch.Tensor
    layer: int
    strength: float
    score: float
    tried: tuple[dict[str, float], ...]


def steer(base: Base, vector: torch.Tensor, layer: int) -> Base:
    """A base with a vector added behind one block; the given one is not changed.

    Raises:
        UsageError: no such layer, or blocks of an unknown kind.
    """
    model = share(base.model)
    layers = decoder_layers(model)
    if not 0 <= layer < len(layers):
        raise UsageError(f"{base.name} has no layer {layer}", hint=f"choose one from 0 to {len(layers) - 1}")
    # As a buffer it is part of the model's state, so kept answers can tell this model from others.
    model.register_buffer("steering_vector", vector.detach().clone())

    def after(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + model.steering_vector.to(output[0].dtype), *output[1:])
        return output + model.steering_vector.to(output.dtype)

    layers[layer].register_forward_hook(after)
    return replace(base, name=f"{base.name}+vector behind layer {layer}", model=model)


def mean_differences(base: Base, data: TrainingSet, *, answer_tokens: int) -> torch.Tensor:
    """Mean hidden state over chosen answers less that over rejected ones, on harmful pairs, behind every block.

    Args:
        base: The model.
        data: Pairs.
        answer_tokens: Answers are cut to so many.

    Returns:
        [layers, hidden_size], in float32.

    Raises:
        UsageError: no harmful pair with both answers.
    """
    import torch

    pairs = [e for e in data.examples if e.kind == "harmful" and e.chosen and e.rejected]
    if not pairs:
        raise UsageError("no harmful pair to take a direction from", hint="loosen pairs.margin or pairs.winner")
    caught: list[torch.Tensor] = []
    model = share(base.model)
    for block in decoder_layers(model):
        block.register_forward_hook(lambda _, __, out: caught.append(out[0] if isinstance(out, tuple) else out))
    means = []
    for answers in ([e.chosen for e in pairs], [e.rejected for e in pairs]):
        rows = [([*data.head, *e.prompt], list(a[:answer_tokens])) for e, a in zip(pairs, answers, strict=True)]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        parts = [_answer_means(model, caught, rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)]
        means.append(torch.cat(parts).mean(0))
    return means[0] - means[1]


def _answer_means(model: Any, caught: list[torch.Tensor], rows: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Hidden states behind every block, averaged over each row's answer: [rows, layers, hidden_size]."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask[row, : len(prompt) + len(answer)] = 1
    caught.clear()
    with torch.no_grad():
        model.base_model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    layers = torch.stack(caught).float().cpu()
    return torch.stack([layers[:, r, len(p) : len(p) + len(a)].mean(1) for r, (p, a) in enumerate(rows)])


def find_direction(
    base: Base,
    vectors: torch.Tensor,
    *,
    score: Callable[[Base], float],
    depths: Sequence[float] = DEPTHS,
    strengths: Sequence[float] = STRENGTHS,
    progress: Progress | None = None,
) -> Direction:
    """The layer and strength with the best score.

    Args:
        base: The model.
        vectors: [layers, hidden_size], of :func:`mean_differences`.
        score: Of a steered base on validation prompts; higher is better.
        depths: Layers to try, as shares of the depth.
        strengths: Multiples of the difference of means to try.
        progress: Where to show progress.

    Raises:
        UsageError: nothing to try, or blocks of an unknown kind.
    """
    layers = sorted({min(len(vectors) - 1, int(depth * len(vectors))) for depth in depths})
    best: Direction | None = None
    tried: list[dict[str, float]] = []
    with (progress or Silent()).stage("Steering: layer and strength", len(layers) * len(strengths)) as advance:
        for layer in layers:
            for strength in strengths:
                vector = strength * vectors[layer]
                found = score(steer(base, vector, layer))
                tried.append({"layer": layer, "strength": strength, "score": found})
                if best is None or found > best.score:
                    best = Direction(vector, layer, strength, found, ())
                advance(1, note=f"layer {layer} x {strength:g}: {found:.3f}")
    if best is None:
        raise UsageError("no layer and strength to try", hint="give depths and strengths")
    return replace(best, tried=tuple(tried))
