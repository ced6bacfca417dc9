"""Sampling: padding, sharing and batching change no answer; random numbers belong to rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmpatch import generation
from llmpatch.errors import UsageError
from llmpatch.generation import BATCH_POSITIONS, _batches, _decode, _Row, generate
from llmpatch.prefix import common_head, prefix_cache
from llmpatch.recipe import DecodingSection
from llmpatch.roomy_cache import CPU_BYTES, free_bytes, sizes_of
from tinymodels import make_tiny

PROMPTS = ["Hi", "Tell me about the sea and everything in it.", "Why?", "One two three four five"]
GREEDY = DecodingSection(max_new_tokens=12)


def plain_greedy(base, prompt, rows, steps):
    """Greedy decoding by whole unpadded forwards over inputs_embeds, without any cache."""
    ids = base.chat_ids(prompt)
    new: list[int] = []
    for _ in range(steps):
        embeds = base.embed(torch.tensor([*ids, *new]))[None]
        if rows is not None:
            embeds = torch.cat([rows[None], embeds], 1)
        token = int(base.model(inputs_embeds=embeds).logits[0, -1].argmax())
        if token in base.eos_ids:
            return base.decode(new), "stop"
        new.append(token)
    return base.decode(new), "length"


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
@pytest.mark.parametrize("patched", [False, True])
def test_left_padded_batches_with_a_shared_cache_equal_plain_decoding(family, patched):
    base = make_tiny(family)
    rows = torch.randn(7, 32, generator=torch.Generator().manual_seed(3)) if patched else None
    for batch_size in (1, 3, 4):
        found = dict(generate(base, PROMPTS, decoding=GREEDY, prefix=rows, batch_size=batch_size))
        for i, prompt in enumerate(PROMPTS):
            assert (found[i][0].text, found[i][0].finish) == plain_greedy(base, prompt, rows, 12)


@pytest.mark.parametrize(
    ("family", "changes"),
    [("gemma3_text", {"num_hidden_layers": 6, "sliding_window": 64}), ("mistral", {"sliding_window": 60})],
)
def test_a_short_row_beside_one_beyond_a_window_sees_what_it_sees_alone(family, changes):
    """Padding stands between the shared start and a short row's own tokens, and layers with a window count places."""
    base = make_tiny(family, **changes)
    rows = torch.randn(7, 32, generator=torch.Generator().manual_seed(3))
    prompts = ["Hi", "Hi you", "No, " * 30, "No, " * 29 + "yes,"]
    found = dict(generate(base, prompts, decoding=GREEDY, prefix=rows, batch_size=4))
    for i, prompt in enumerate(prompts):
        assert found[i][0].text == plain_greedy(base, prompt, rows, 12)[0]


def test_a_prefix_changes_the_answers(tiny):
    rows = torch.randn(7, 32, generator=torch.Generator().manual_seed(3))
    plain, patched = (dict(generate(tiny, PROMPTS, decoding=GREEDY, prefix=p)) for p in (None, rows))
    assert any(plain[i] != patched[i] for i in range(len(PROMPTS)))


def test_random_samples_depend_on_the_seed_and_not_on_the_batch(tiny):
    def sample(seed, batch_size):
        decoding = DecodingSection(max_new_tokens=8, temperature=1.0, top_p=0.9, seed=seed)
        return dict(generate(tiny, PROMPTS, decoding=decoding, samples=3, batch_size=batch_size))

    assert sample(0, 2) == sample(0, 12)
    assert sample(0, 12) != sample(1, 12)
    assert len({a.text for a in sample(0, 12)[0]}) > 1


def test_samples_of_one_prompt_share_the_reading_of_it(tiny, monkeypatch):
    decoding = DecodingSection(max_new_tokens=3, temperature=1.0)
    apart = {
        i: a for i, p in enumerate(PROMPTS) for _, a in generate(tiny, [p], decoding=decoding, samples=4, keys=[i])
    }
    read = []
    forward = generation._forward
    monkeypatch.setattr(
        generation, "_forward", lambda base, ids, *rest: read.append(len(ids)) or forward(base, ids, *rest)
    )
    assert dict(generate(tiny, PROMPTS, decoding=decoding, samples=4, keys=range(4))) == apart
    assert read[0] == 4
    assert read[1] > 4


def test_raw_text_is_continued_without_the_template(tiny):
    found = dict(generate(tiny, ["abc"], decoding=GREEDY, raw=True))
    ids = torch.tensor([tiny.text_ids("abc")])
    first = int(tiny.model(input_ids=ids).logits[0, -1].argmax())
    assert found[0][0].text.startswith(tiny.decode([first]))


def test_prompts_that_do_not_fit_are_named(tiny):
    with pytest.raises(UsageError, match="prompt 2 has"):
        list(generate(tiny, ["short", "x" * 600], decoding=GREEDY))


def test_a_cache_is_reused_unchanged(tiny, monkeypatch):
    made = []

    def kept(*arguments):
        made.append(prefix_cache(*arguments))
        before.extend(layer.keys.clone() for layer in made[-1].layers)
        return made[-1]

    before: list[torch.Tensor] = []
    monkeypatch.setattr("llmpatch.generation.prefix_cache", kept)
    list(generate(tiny, PROMPTS, decoding=GREEDY, prefix=torch.randn(5, 32), batch_size=1))
    (cache,) = made
    assert cache.get_seq_length() >= 5
    assert all(torch.equal(was, layer.keys) for was, layer in zip(before, cache.layers, strict=True))


def test_common_head_leaves_every_sequence_a_token():
    assert common_head([[1, 2, 3], [1, 2]]) == [1]
    assert common_head([[1, 2, 3], [1, 2, 4]]) == [1, 2]
    assert common_head([[5], [6]]) == []
    assert common_head([]) == []


@pytest.mark.real
def test_the_bundled_model_answers(smollm2):
    found = dict(generate(smollm2, ["What is the capital of France?"], decoding=DecodingSection(max_new_tokens=12)))
    assert found[0][0].text == "The capital of France is Paris."
    assert found[0][0].finish == "stop"


SEVEN_B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 32, "vocab_size": 32000}  # fmt: skip


def test_what_a_batch_takes_is_counted_from_the_configuration():
    from transformers import LlamaConfig

    sizes = sizes_of(LlamaConfig(**SEVEN_B), 2)
    assert sizes.position == 2 * 32 * 32 * 128 * 2 == 512 * 1024
    assert sizes.row == 32000 * 26
    assert sizes.batch(8, 1000) == 8 * (1000 * (sizes.position + sizes.inside) + sizes.row)
    few_heads = sizes_of(LlamaConfig(**SEVEN_B | {"num_key_value_heads": 8, "head_dim": 64}), 4)
    assert few_heads.position == 2 * 32 * 8 * 64 * 4


def test_on_a_gpu_a_batch_takes_a_share_of_the_memory_that_is_free(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (10 << 30, 80 << 30))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 16 << 30)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 14 << 30)
    assert free_bytes(torch.device("cuda")) == int(0.7 * (12 << 30))
    assert free_bytes(torch.device("cpu")) == CPU_BYTES


def test_long_prompts_of_a_large_base_come_a_few_at_a_time():
    """A 7B base on a card with 12 GiB left: 262,144 positions would be 128 GiB of keys and values alone."""
    from transformers import LlamaConfig

    sizes, rows = sizes_of(LlamaConfig(**SEVEN_B), 2), [_Row(i, 0, [5] * 1000, [], None) for i in range(40)]

    def cut(free):
        found = _batches(rows, 256, 24, lambda n, long: n * long <= 262_144 and sizes.batch(n, long) <= free)
        return [len(part) for part in found]

    each = sizes.batch(1, 1024)
    assert cut(int(each * 12.5)) == [12, 12, 12, 4]
    assert cut(CPU_BYTES) == [40]
    assert cut(each // 2) == [1] * 40


def test_answers_are_the_same_where_batches_are_cut_for_memory(tiny, monkeypatch):
    whole = dict(generate(tiny, PROMPTS, decoding=GREEDY))
    made = []
    monkeypatch.setattr("llmpatch.roomy_cache.free_bytes", lambda device: 1)

    def noted(base, part, *rest):
        made.append(part)
        return _decode(base, part, *rest)

    monkeypatch.setattr("llmpatch.generation._decode", noted)
    assert dict(generate(tiny, PROMPTS, decoding=GREEDY)) == whole
    assert [len(part) for part in made] == [1] * len(PROMPTS)


def test_a_base_that_is_spread_over_processes_is_cut_alike_in_each(tiny, monkeypatch):
    """Each process sees other free memory, and all must run the base equally often, or they wait for each other."""
    made = []

    def noted(base, part, *rest):
        made.append(len(part))
        return _decode(base, part, *rest)

    monkeypatch.setattr("llmpatch.generation._decode", noted)
    cuts = []
    for free in (1, CPU_BYTES):
        monkeypatch.setattr("llmpatch.roomy_cache.free_bytes", lambda device, free=free: free)
        made.clear()
        list(generate(dataclasses.replace(tiny, sharded=True), PROMPTS, decoding=GREEDY))
        cuts.append(list(made))
    assert cuts[0] == cuts[1] == [len(PROMPTS)]


def test_no_model_that_answers_on_a_cpu_is_bounded_by_bytes_there():
    from transformers import LlamaConfig

    seventy = SEVEN_B | {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
                         "num_attention_heads": 64, "num_key_value_heads": 8}  # fmt: skip
    for shape in (SEVEN_B, seventy):
        assert sizes_of(LlamaConfig(**shape), 4).batch(32, BATCH_POSITIONS // 32) < CPU_BYTES
