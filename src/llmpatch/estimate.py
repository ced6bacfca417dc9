"""What a build will cost, from the recipe and the shape of its base alone: no model is loaded.

    shape = find_shape("meta-llama/Llama-2-7b-chat-hf")
    estimate(recipe, prompts, shape)
    # {"parameters": 204800, "share": 3.0e-05, "model_parameters": 6738415616, "training_flops": 6.1e+15, ...}

A matrix product of P parameters and T tokens takes 2PT FLOPs forward and 2PT back to its inputs; nothing goes back to
frozen weights, so a step of prompt tuning takes two thirds of a step of fine-tuning. Attention itself and the prompt's
text, counted as four characters per token, are approximate: expect to be within a third (tests/test_estimate.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.files import expanded, read_bytes

if TYPE_CHECKING:
    from llmpatch.prompts import Prompt
    from llmpatch.recipe import Recipe
    from llmpatch.training_recipe import KeepSection, NeighboursSection, StageSection

MAX_CONFIG_BYTES = 1 << 20
CHARS_PER_TOKEN = 4
TEMPLATE_TOKENS = 8
"""What a chat template puts behind a prompt; what stands before it is computed once per step."""
HEAD_TOKENS = 30
ACTIVATIONS = 34
"""Saved numbers per token and layer, in hidden sizes: about what a Llama block keeps for its backward pass."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide its cost.

    Attributes:
        vocabulary: Rows of the embedding table.
        hidden: Hidden size.
        layers: Blocks.
        intermediate: Size inside the gated feed-forward part.
        heads: Attention heads.
        kv_heads: Key and value heads.
        head_dim: Size of a head.
        tied: Whether the output shares the embedding table.
    """

    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool

    @property
    def body(self) -> int:
        """Parameters that every token is multiplied with, the output layer aside."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All parameters, norms and biases aside."""
        return self.body + self.vocabulary * self.hidden * (1 if self.tied else 2)


SHAPES: Mapping[str, Shape] = {
    "smollm2": Shape(49152, 576, 30, 1536, 9, 3, 64, tied=True),
    "qwen2.5-coder-1.5b": Shape(151936, 1536, 28, 8960, 12, 2, 128, tied=True),
    "gemma-3-270m": Shape(262144, 640, 18, 2048, 4, 1, 256, tied=True),
    "meta-llama/Llama-2-7b-chat-hf": Shape(32000, 4096, 32, 11008, 32, 32, 128, tied=False),
    "meta-llama/Meta-Llama-3-8B-Instruct": Shape(128256, 4096, 32, 14336, 32, 8, 128, tied=False),
    "mistralai/Mistral-7B-Instruct-v0.3": Shape(32768, 4096, 32, 14336, 32, 8, 128, tied=False),
    "google/gemma-2-9b-it": Shape(256000, 3584, 42, 14336, 16, 8, 256, tied=True),
    "lmsys/vicuna-13b-v1.5": Shape(32000, 5120, 40, 13824, 40, 40, 128, tied=False),
    "CohereForAI/aya-23-8B": Shape(256000, 4096, 32, 14336, 32, 8, 128, tied=True),
    "meta-llama/Llama-3.1-70B-Instruct": Shape(128256, 8192, 80, 28672, 64, 8, 128, tied=False),
    "meta-llama/Llama-3.1-405B-Instruct": Shape(128256, 16384, 126, 53248, 128, 8, 128, tied=False),
}
"""The published configurations of the models that recipes and docs/scale.md name, for a look without a download."""


_TIED = ("gemma", "cohere")  # families whose configuration does not say that they share the table


def find_shape(name: str) -> Shape | None:
    """The shape of a base by its name, or by ``config.json`` in its folder; ``None`` where it must be loaded to know.

    So it is with a mixture of experts, and with families that call their sizes otherwise: each says them in words of its own.

    Raises:
        UsageError: the folder's configuration is none.
        IntegrityError: it is too large.
    """
    if name in SHAPES:
        return SHAPES[name]
    path = expanded(name) / "config.json"
    return read_shape(path) if path.is_file() else None


def read_shape(path: Path) -> Shape | None:
    """The shape that a ``config.json`` tells (as :func:`find_shape`)."""
    try:
        config = json.loads(read_bytes(path, limit=MAX_CONFIG_BYTES))
        config = config.get("text_config", config)
        if any("experts" in key and value for key, value in config.items()):
            return None
        tied = str(config.get("model_type", "")).startswith(_TIED)
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return Shape(
            int(config["vocab_size"]),
            hidden,
            int(config["num_hidden_layers"]),
            int(config["intermediate_size"]),
            heads,
            int(config.get("num_key_value_heads") or heads),
            int(config.get("head_dim") or hidden // heads),
            bool(config.get("tie_word_embeddings", tied)),
        )
    except KeyError:  # GPT-2 and others have names of their own
        return None
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UsageError(
            f"{path} does not tell the size of its model: {type(error).__name__} {error}",
            hint="give the folder of a decoder that transformers can load",
        ) from None


def estimate(
    recipe: Recipe,
    prompts: Sequence[Prompt],
    shape: Shape,
    *,
    joint: Sequence[tuple[Recipe, Sequence[Prompt]]] = (),
    neighbours: Sequence[int] = (),
    bytes_per_number: int = 4,
) -> dict[str, Any]:
    """Sizes, FLOPs and memory of a build.

    Args:
        recipe: Steps, batch sizes, lengths, virtual tokens.
        prompts: What it trains on: their lengths count.
        shape: Of the base.
        joint: Recipes it is joined with, and their prompts.
        neighbours: Virtual tokens of each published patch that it trains beside.
        bytes_per_number: 4 for float32, 2 for half precision.

    Returns:
        ``parameters`` that are trained and their ``share`` of ``model_parameters``; ``patch_bytes``; FLOPs of sampling
        ``M`` for pairs and of training; ``memory_bytes``: weights and what one step of training keeps.
    """
    n = recipe.prefix.tokens
    every = [(recipe, prompts), *joint]
    row = _row(recipe, [p for _, own in every for p in own])
    training = recipe.training
    paired = bool(training.pairs_weight)
    beside_in_all, beside_on_average = _beside(training.neighbours, neighbours)
    near = training.neighbours.keep if training.neighbours else None
    kept = [part for part in (near, *training.distil) if part is not None and part.weight]
    # Beside its own forward and backward pass, another forward pass of whoever it is learnt from.
    near_by = n + beside_on_average
    beside = 1.5 * sum(_step(shape, part, row, near_by, answers=1) for part in kept)
    stages = [(training.sft, 1), (training.dpo, 2)] if paired else []
    steps = training.sft.steps + (training.dpo.steps if paired else 0)
    most = n + beside_in_all
    widest = max((_tokens(stage, row, most, answers) for stage, answers in stages), default=0.0)
    widest += sum(_tokens(part, row, most, 1) for part in kept)
    answered = max((answers * stage.batch_size * stage.answer_tokens for stage, answers in stages), default=0)
    logits = (answered + sum(part.batch_size * part.answer_tokens for part in kept)) * shape.vocabulary
    return {
        "parameters": n * shape.hidden,
        "model_parameters": shape.parameters,
        "share": n * shape.hidden / shape.parameters,
        "patch_bytes": 4 * n * shape.hidden,
        "sampling_flops": sum(_sampling(part, own, shape) for part, own in every) if paired else 0.0,
        "training_flops": steps * beside
        + sum(stage.steps * _step(shape, stage, row, near_by, answers=answers) for stage, answers in stages),
        "memory_bytes": int(
            bytes_per_number * (shape.parameters + widest * shape.layers * shape.hidden * ACTIVATIONS) + 3 * 4 * logits
        ),
    }


def _row(recipe: Recipe, prompts: Sequence[Prompt]) -> float:
    """Tokens of a prompt in its chat template, on average."""
    text = sum(len(p.text) for p in prompts) / max(1, len(prompts)) / CHARS_PER_TOKEN
    return min(text, recipe.pairs.max_prompt_tokens) + TEMPLATE_TOKENS


def _sampling(recipe: Recipe, prompts: Sequence[Prompt], shape: Shape) -> float:
    """FLOPs of asking ``M`` for one recipe's pairs."""
    samples, answer = (
        sum(recipe.pairs.samples if p.kind == "harmful" else 1 for p in prompts), recipe.decoding.max_new_tokens
    )  # fmt: skip
    read = 2.0 * samples * (_row(recipe, prompts) + answer) * shape.body
    return read + 2.0 * samples * answer * shape.vocabulary * shape.hidden


def _beside(section: NeighboursSection | None, published: Sequence[int]) -> tuple[int, float]:
    """Virtual tokens of all neighbours, and of those in a step on average."""
    if section is None:
        return 0, 0.0
    sizes = [*published, *[section.random_tokens] * section.random]
    share = section.probability * ((len(sizes) + 1) / (2 * len(sizes)) if section.subsets and sizes else 1.0)
    return sum(sizes), share * sum(sizes)


def _tokens(stage: StageSection | KeepSection, row: float, prefix: float, answers: int) -> float:
    """Tokens that one step runs: the prefix and the template's head once, and each prompt once for its answers."""
    return prefix + HEAD_TOKENS + stage.batch_size * (row + answers * stage.answer_tokens)


def _step(shape: Shape, stage: StageSection | KeepSection, row: float, prefix: float, *, answers: int) -> float:
    """FLOPs of one step, forward and back to the inputs."""
    answered = stage.batch_size * answers * stage.answer_tokens
    return 4.0 * _tokens(stage, row, prefix, answers) * shape.body + 4.0 * answered * shape.vocabulary * shape.hidden


def measured_rate(seconds: float = 0.3) -> float:
    """Float32 matrix products per second that this machine's processor does, in FLOPs, measured now."""
    import numpy as np

    left = np.ones((1024, 576), dtype=np.float32)
    right = np.ones((576, 1536), dtype=np.float32)
    left @ right
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        left @ right
        done += 1
    return done * 2.0 * left.shape[0] * left.shape[1] * right.shape[1] / passed
