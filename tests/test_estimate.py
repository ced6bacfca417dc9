"""Estimates against what transformers really builds and what torch really counts."""

from __future__ import annotations

import json

import pytest

from llmpatch.errors import UsageError
from llmpatch.estimate import SHAPES, _step, estimate, find_shape, measured_rate, read_shape
from llmpatch.prompts import Prompt
from llmpatch.recipe import parse_recipe
from llmpatch.training_recipe import StageSection
from tinymodels import make_tiny

FAMILIES = {
    "meta-llama/Llama-2-7b-chat-hf": ("llama", 6_738_415_616),
    "meta-llama/Meta-Llama-3-8B-Instruct": ("llama", 8_030_261_248),
    "mistralai/Mistral-7B-Instruct-v0.3": ("mistral", 7_248_023_552),
    "google/gemma-2-9b-it": ("gemma2", 9_241_705_984),
    "lmsys/vicuna-13b-v1.5": ("llama", 13_015_864_320),
    "CohereForAI/aya-23-8B": ("cohere", 8_028_033_024),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shape_has_the_published_number_of_parameters(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family, published = FAMILIES[name]
    shape = SHAPES[name]
    assert shape.parameters == pytest.approx(published, rel=1e-3)
    config = AutoConfig.for_model(
        family, vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(published, rel=1e-4)


def test_the_papers_patch_of_llama_2_is_0_003_percent():
    recipe = make_recipe()
    found = estimate(recipe, [prompt(80)], SHAPES["meta-llama/Llama-2-7b-chat-hf"])
    assert found["parameters"] == 204_800
    assert round(100 * found["share"], 3) == 0.003


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
@pytest.mark.parametrize("answers", [1, 2])
def test_a_steps_flops_are_those_that_torch_counts(family, answers, tmp_path):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from llmpatch.batching import Example, make_batch
    from llmpatch.losses import answer_log_probs, hidden_states

    base = make_tiny(family, hidden_size=64, intermediate_size=192, num_hidden_layers=4)
    base.model.save_pretrained(tmp_path)
    examples = [Example("harmful", (3,) * 28, (5,) * 12, (6,) * 12) for _ in range(8)]
    head = [1] * 30
    rows = torch.zeros(50, 64).requires_grad_()
    batch = make_batch(examples, past=80, answer_tokens=12, rejected=answers == 2)
    with FlopCounterMode(display=False) as counter:
        hidden = hidden_states(base, rows, head, batch)
        answer_log_probs(base, hidden, batch.targets).sum().backward()
    stage = StageSection(steps=1, learning_rate=0.1, answer_tokens=12, batch_size=8)
    guess = _step(read_shape(tmp_path / "config.json"), stage, 28, 50, answers=answers)
    assert guess == pytest.approx(counter.get_total_flops(), rel=0.33)


def test_more_steps_cost_more_and_longer_answers_too():
    small = estimate(make_recipe(), [prompt(80)] * 4, SHAPES["smollm2"])
    more = make_recipe(
        training={"sft": {"steps": 600, "learning_rate": 0.01}, "dpo": {"steps": 0, "learning_rate": 0.01}}
    )
    longer = make_recipe(decoding={"max_new_tokens": 96})
    assert estimate(more, [prompt(80)] * 4, SHAPES["smollm2"])["training_flops"] > small["training_flops"]
    assert estimate(longer, [prompt(80)] * 4, SHAPES["smollm2"])["sampling_flops"] > small["sampling_flops"]
    half = estimate(make_recipe(), [prompt(80)] * 4, SHAPES["smollm2"], bytes_per_number=2)
    assert half["memory_bytes"] < small["memory_bytes"]


def test_every_part_is_sampled_as_it_says_itself():
    shape = SHAPES["smollm2"]
    harmful, calm = [Prompt(f"h{n}", "x" * 80, "harmful") for n in range(3)], [prompt(80)] * 2
    other = make_recipe(pairs={"samples": 4}, decoding={"max_new_tokens": 24, "temperature": 1.0})
    found = estimate(make_recipe(), harmful, shape, joint=[(other, calm + harmful)])
    alone = [
        estimate(recipe, own, shape)["sampling_flops"]
        for recipe, own in ((make_recipe(), harmful), (other, calm + harmful))
    ]
    assert found["sampling_flops"] == pytest.approx(sum(alone))
    assert alone[1] > 3 * alone[0]


def test_neighbours_cost_what_they_are_in_a_step_and_room_for_all():
    shape, training = SHAPES["smollm2"], make_recipe().training.model_dump(mode="json", exclude_none=True)

    def cost(**section):
        recipe = make_recipe(training=training | {"neighbours": {"patches": ["a", "b"], **section}})
        return estimate(recipe, [prompt(80)], shape, neighbours=[50, 50])

    plain, all_of_them = estimate(make_recipe(), [prompt(80)], shape), cost(probability=1, subsets=False)
    half, some, random = cost(probability=0.5, subsets=False), cost(probability=1), cost(probability=1, random=1)
    more = all_of_them["training_flops"] - plain["training_flops"]
    steps = sum(training[stage]["steps"] for stage in ("sft", "dpo"))
    assert more == pytest.approx(4.0 * 100 * shape.body * steps)
    assert half["training_flops"] - plain["training_flops"] == pytest.approx(more / 2)
    assert some["training_flops"] - plain["training_flops"] == pytest.approx(
        more * 3 / 4
    )  # one of them as often as both
    assert all_of_them["memory_bytes"] == half["memory_bytes"] > plain["memory_bytes"]
    assert random["memory_bytes"] > all_of_them["memory_bytes"]


def test_what_is_distilled_counts_and_pairs_that_are_not_made_do_not():
    shape, sections = (
        SHAPES["smollm2"],
        {"sft": {"steps": 300, "learning_rate": 0.01, "answer_tokens": 12, "batch_size": 8}},
    )
    distil = {"chat": ["a.jsonl"], "batch_size": 8, "answer_tokens": 12}
    plain = estimate(make_recipe(training=sections), [prompt(80)], shape)
    both = estimate(make_recipe(training=sections | {"distil": [distil, distil]}), [prompt(80)], shape)
    alone = estimate(
        make_recipe(training=sections | {"distil": [distil, distil], "pairs_weight": 0}), [prompt(80)], shape
    )
    assert (plain["sampling_flops"] > 0, alone["sampling_flops"]) == (True, 0)
    step = _step(shape, StageSection(**sections["sft"]), 20 + 8, 50, answers=1)
    assert alone["training_flops"] == pytest.approx(
        300 * 2 * 1.5 * step
    )  # each a forward and a backward pass, and a teacher's
    assert both["training_flops"] > plain["training_flops"] + alone["training_flops"]  # the DPO steps distil as well
    assert both["memory_bytes"] > max(plain["memory_bytes"], alone["memory_bytes"])


def test_a_folder_tells_its_shape_and_a_broken_one_says_so(tmp_path):
    base = make_tiny("llama")
    base.model.save_pretrained(tmp_path)
    shape = find_shape(str(tmp_path))
    assert shape is not None
    total = sum(p.numel() for p in base.model.parameters())
    assert shape.parameters == pytest.approx(total, rel=0.02)
    assert find_shape("somebody/unknown") is None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "hidden_size"}))
    assert find_shape(str(tmp_path)) is None, "as of GPT-2, which calls it n_embd"
    for broken in ("[]", "{", json.dumps(config | {"hidden_size": "many"})):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(UsageError, match="does not tell the size"):
            find_shape(str(tmp_path))


def test_what_a_folder_does_not_say_is_not_guessed(tmp_path):
    """How large the experts of a mixture are; Gemma and Cohere share the table though their files may not say so."""
    sizes = {
        "vocab_size": 100,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 9,
    }
    path = tmp_path / "config.json"
    for told, tied in (
        ({"model_type": "gemma3_text"}, True),
        ({"model_type": "cohere"}, True),
        ({"model_type": "llama"}, False),
    ):
        path.write_text(json.dumps(sizes | told))
        assert find_shape(str(tmp_path)).tied is tied
    path.write_text(json.dumps(sizes | {"model_type": "gemma", "tie_word_embeddings": False, "num_local_experts": 0}))
    assert find_shape(str(tmp_path)).tied is False
    path.write_text(json.dumps(sizes | {"model_type": "mixtral", "num_local_experts": 8}))
    assert find_shape(str(tmp_path)) is None


def test_the_machine_is_measured():
    assert measured_rate(0.05) > 1e8


def prompt(chars):
    return Prompt("a", "x" * chars, "harmful")


def make_recipe(**changes):
    prompts = {"harmful": {"train": ["a.jsonl"], "validation": ["b.jsonl"]}}
    mapping = {
        "name": "acme/tiny", "version": "1.0.0", "summary": "tiny", "prompts": prompts,
        "reference": {"kind": "recorded", "path": "r.jsonl"},
    }  # fmt: skip
    return parse_recipe({**mapping, **changes})
