"""Tiny bases that an export can work on, and patches for them: transformers models and GGUF files written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import patchkit
from llmpatch.artifact import Patch, describe_base, input_norm_p999, write_patch
from llmpatch.bases import Base
from tinymodels import TEMPLATE, make_tiny

ROWS, WIDTH, LAYERS, HEADS = 3, 32, 2, 4


def common_tiny(family: str = "llama", **changes) -> Base:
    """A tiny model whose hidden states share a direction, as those of trained models do."""
    import torch

    base = make_tiny(family, **changes)
    with torch.no_grad():
        base.model.get_input_embeddings().weight[:, 0] += 8.0
        for name, weight in base.model.named_parameters():
            if "down_proj" in name or "o_proj" in name:
                weight *= 0.1
    return base


def make_patch(
    base: Base, folder: Path, seed: int = 0, count: int = ROWS, name: str = "tiny/refusal", noise=0.05
) -> Patch:
    """A patch whose rows are the base's own embeddings with noise."""
    import torch

    ids = torch.randint(base.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))
    change = np.random.default_rng(seed).normal(0, noise, (count, base.hidden_size))
    rows = (base.embed(ids).float().numpy() + change).astype(np.float32)
    fields = patchkit.fields(name=name, base=describe_base(base))
    return write_patch(folder, fields, rows, patchkit.EVIDENCE, base_p999=input_norm_p999(base))


def write_tiny_gguf(path: Path, *, kind: str = "Q8_0", tied: bool = True, template: str | None = TEMPLATE) -> Path:
    """A random two-layer Llama in GGUF, its matrices quantised, with a byte-level tokenizer."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from tokenizers import pre_tokenizers

    from llmpatch.exporting.gguf_file import quantise

    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt"]
    random = np.random.default_rng(0)
    writer = GGUFWriter(None, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(template)

    def add(name: str, *shape: int, scale: float = 0.2, shift: float = 0.0) -> None:
        numbers = random.normal(0, scale, shape).astype(np.float32)
        numbers[..., 0] += shift
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            stored = quantise(numbers, kind)
            writer.add_tensor(name, stored.data, raw_dtype=GGMLQuantizationType[stored.kind])

    add("token_embd.weight", len(tokens), WIDTH, shift=8.0)
    for layer in range(LAYERS):
        for part, shape, scale in (
            ("attn_q", (WIDTH, WIDTH), 0.3), ("attn_k", (WIDTH, WIDTH), 0.3), ("attn_v", (WIDTH, WIDTH), 0.3),
            ("attn_output", (WIDTH, WIDTH), 0.1), ("ffn_gate", (64, WIDTH), 0.3), ("ffn_up", (64, WIDTH), 0.3),
            ("ffn_down", (WIDTH, 64), 0.1), ("attn_norm", (WIDTH,), 0), ("ffn_norm", (WIDTH,), 0),
        ):  # fmt: skip
            add(f"blk.{layer}.{part}.weight", *shape, scale=scale)
    add("output_norm.weight", WIDTH)
    if not tied:
        add("output.weight", len(tokens), WIDTH, shift=1.0)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
