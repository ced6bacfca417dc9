"""Tiny random models of any family, with a real byte-level tokenizer and a chat template."""

from __future__ import annotations

import tempfile
from pathlib import Path

from llmpatch.bases import Base

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<s>system You are tiny.</s>{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)


def make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    made.chat_template = TEMPLATE
    return made


def make_spaced_tokenizer():
    """As SentencePiece has them: a space before every text, and none before a text that begins with one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = [chr(i) for i in range(33, 127)]
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "▁", *signs])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def make_tiny(family: str = "llama", seed: int = 0, **changes) -> Base:
    """A random two-layer model of a family, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer()
    settings = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.3,
    } | changes  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    return Base(f"tiny-{family}", model.eval().requires_grad_(False), tokenizer)


def make_tiny_with(words: list[str], **changes) -> Base:
    """A tiny model that has a token for each of these words."""
    base = make_tiny(vocab_size=len(make_tokenizer()) + len(words), **changes)
    base.tokenizer.add_tokens(words)
    return base


def save_in_four_bits(folder: Path) -> Base:
    """A tiny base, and in a folder the same with layers that bitsandbytes keeps in 4 bits, wide enough for its packing."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny = make_tiny(hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    with tempfile.TemporaryDirectory() as whole:
        tiny.model.save_pretrained(whole)
        model = AutoModelForCausalLM.from_pretrained(whole, quantization_config=four, dtype=torch.float32)
    model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return tiny
