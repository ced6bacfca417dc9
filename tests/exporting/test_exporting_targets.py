"""Every export of a transformers base, against the base's own forward behind the rows, by code of its own."""

import json
import runpy

import numpy as np
import pytest
import torch

from exportkit import common_tiny, make_patch
from llmpatch.bases import Base, load_base
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.exporting import export, read_description
from llmpatch.exporting.slots import table_rows
from tinymodels import make_tiny, make_tokenizer, save_in_four_bits

TEXT = "Tell me about the sea."


@pytest.fixture(scope="module")
def base():
    return common_tiny()


@pytest.fixture(scope="module")
def patch(base, tmp_path_factory):
    return make_patch(base, tmp_path_factory.mktemp("patch") / "p")


def wanted(base, patch, ids):
    """Logits [tokens, vocabulary] of the model's own forward behind the rows."""
    embeds = torch.cat([torch.tensor(patch.embeddings), base.embed(torch.tensor(ids))])[None]
    with torch.no_grad():
        return base.model(inputs_embeds=embeds).logits[0, -len(ids) :]


def logits(model, ids, keep):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -keep:]


@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_a_head_that_engines_do_not_read_is_refused(family, tmp_path):
    base = common_tiny(family, tie_word_embeddings=True)
    for target in ("checkpoint", "gguf", "lora-gguf"):
        with pytest.raises(UsageError, match=f"engines read one table of a {family} model"):
            export(base, [make_patch(base, tmp_path / target)], target, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("gemma3_text", {"tie_word_embeddings": True}),
        ("qwen2", {"vocab_size": 288, "tie_word_embeddings": True}),  # padded: the tokenizer has 259
    ],
    ids=["llama", "tied", "gemma", "padded"],
)
def test_a_checkpoint_is_the_patched_model(family, changes, tmp_path):
    base = common_tiny(family, **changes)
    patch = make_patch(base, tmp_path / "p")
    made = export(base, [patch], "checkpoint", tmp_path / "out")
    found = load_base(str(tmp_path / "out"))
    own, ids = base.chat_ids(TEXT), found.chat_ids(TEXT)
    assert ids == [*made.slots.ids, *own]
    assert found.text_ids(TEXT) == [*made.slots.ids, *base.text_ids(TEXT)]
    theirs = logits(found.model, ids, len(own))
    assert found.vocab_size == max(base.vocab_size, 259 + 3)
    kept = [i for i in range(base.vocab_size) if i not in made.slots.ids]
    exact = 0 if family != "gemma3_text" else 2e-5  # p / sqrt(d) * sqrt(d) is rounded
    assert (theirs[:, kept] - wanted(base, patch, own)[:, kept]).abs().max() <= exact
    assert theirs.softmax(-1)[:, list(made.slots.ids)].max() < 1e-9
    (check,) = made.checks.values()
    assert (check.max_delta_logit <= exact, check.agree, check.positions > 300) == (True, 1.0, True)
    assert base.vocab_size == changes.get("vocab_size", 259)  # the base in memory is as it was
    assert found.decode(list(made.slots.ids)) == ""


def test_gemma_rows_are_unscaled():
    base = common_tiny("gemma3_text")
    rows = base.embed(torch.tensor([5, 9]))
    assert torch.allclose(table_rows(base, rows), base.model.get_input_embeddings().weight[[5, 9]], atol=1e-6)


def test_half_precision_is_stored_and_checked(base, patch, tmp_path):
    from safetensors import safe_open

    made = export(base, [patch], "checkpoint", tmp_path / "out", dtype="bfloat16")
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    (check,) = made.checks.values()
    assert 0 < check.max_delta_logit < 1


def test_peft_loads_the_adapter_and_its_forward_is_equal(base, patch, tmp_path):
    from peft import PeftModel

    made = export(base, [patch], "peft", tmp_path / "out")
    assert made.checks["forward through peft"].max_delta_logit <= 1e-5
    fresh = common_tiny()
    model = PeftModel.from_pretrained(fresh.model, str(tmp_path / "out")).eval()
    ids = base.chat_ids(TEXT)
    found = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0, -len(ids) :]
    assert (found - wanted(base, patch, ids)).abs().max() <= 1e-5


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("llama", True), ("gemma3_text", True)])
def test_a_lora_turns_silent_tokens_into_the_patch(family, tied, tmp_path):
    from peft import PeftModel

    base = common_tiny(family, tie_word_embeddings=tied)
    patch = make_patch(base, tmp_path / "p")
    made = export(base, [patch], "lora", tmp_path / "out")
    stock = load_base(str(tmp_path / "out/base"))
    own = base.chat_ids(TEXT)
    text = stock.tokenizer.apply_chat_template(
        [{"role": "user", "content": TEXT}], tokenize=False, add_generation_prompt=True, llmpatch=True
    )
    ids = stock.tokenizer.encode(text, add_special_tokens=False)
    assert ids == [*made.slots.ids, *own]
    assert stock.chat_ids(TEXT) == own
    unpatched = logits(stock.model, own, len(own))[:, :259]
    assert (unpatched - logits(base.model, own, len(own))).abs().max() < 1e-5
    model = PeftModel.from_pretrained(stock.model, str(tmp_path / "out/adapter")).eval()
    found = logits(model, ids, len(own))
    assert (found[:, :259] - wanted(base, patch, own)).abs().max() < 1e-3
    assert found.softmax(-1)[:, list(made.slots.ids)].max() < 1e-9
    assert sorted(made.checks) == ["forward with the adapter", "forward without it"]
    assert stock.model.config.tie_word_embeddings is tied


def test_prompt_embeds_are_rows_then_ids(base, patch, tmp_path):
    export(base, [patch], "vllm-embeds", tmp_path / "out")
    names = runpy.run_path(str(tmp_path / "out/patched_prompt.py"))
    rows = names["load_rows"](tmp_path / "out/prompt_embeds.safetensors")
    assert np.array_equal(rows.numpy(), patch.embeddings)
    prompt = names["patched_prompt"](rows, [7, 8])
    assert prompt["prompt_token_ids"][-2:] == [7, 8]
    assert prompt["prompt_is_token_ids"] == [False] * 3 + [True] * 2
    assert prompt["prompt_embeds"].shape == (5, 32)


def test_several_patches_are_one_after_another(base, patch, tmp_path):
    second = make_patch(base, tmp_path / "p2", seed=5, count=2, name="tiny/toxicity")
    export(base, [patch, second], "peft", tmp_path / "out")
    found = read_description(tmp_path / "out")
    assert (found.tokens, found.level) == (5, "tiny/refusal 1.2.0-rc.1, tiny/toxicity 1.2.0-rc.1")
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["num_virtual_tokens"] == 5


def test_what_would_say_patch_tokens_is_not_written(tmp_path):
    """A random model's hidden states share no direction, so no row of the head is never said."""
    base = make_tiny()
    patch = make_patch(base, tmp_path / "p")
    with pytest.raises(LlmpatchError, match="patch tokens have a probability of"):
        export(base, [patch], "checkpoint", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_wrong_export_is_found(base, patch, tmp_path, monkeypatch):
    """Were the rows written as they are, without the model's scaling, the check would say so."""
    import llmpatch.exporting.checkpoint as module

    monkeypatch.setattr(module, "table_rows", lambda base, rows: rows * 1.02)
    with pytest.raises(LlmpatchError, match="a logit differs by"):
        export(base, [patch], "checkpoint", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bos_stays_behind_the_patch(tmp_path):
    from tokenizers import processors

    base = common_tiny()
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    base = Base("tiny-bos", base.model, tokenizer)
    assert base.text_ids("a")[0] == 1
    patch = make_patch(base, tmp_path / "p")
    made = export(base, [patch], "checkpoint", tmp_path / "out")
    found = load_base(str(tmp_path / "out"))
    assert found.text_ids("a") == [*made.slots.ids, *base.text_ids("a")]
    export(base, [patch], "lora", tmp_path / "lora")
    assert read_description(tmp_path / "lora").slots.bos == "<s>"


def test_refusals(base, patch, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no export called"):
        export(base, [patch], "onnx", out)
    with pytest.raises(UsageError, match="no patch"):
        export(base, [], "peft", out)
    with pytest.raises(UsageError, match="does not store bfloat16"):
        export(base, [patch], "peft", out, dtype="bfloat16")
    with pytest.raises(UsageError, match="not a GGUF file"):
        export(base, [patch], "gguf", out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("kept")
    with pytest.raises(UsageError, match="exists already"):
        export(base, [patch], "peft", out)
    assert (out / "mine").read_text() == "kept"


def test_layers_in_four_bits_are_not_written_anew(tmp_path):
    save_in_four_bits(tmp_path / "four")
    base = load_base(str(tmp_path / "four"))
    patch = make_patch(base, tmp_path / "patch")
    for target in ("checkpoint", "lora"):
        with pytest.raises(UsageError, match="keeps its layers in bitsandbytes:nf4") as error:
            export(base, [patch], target, tmp_path / "out")
        assert "--to peft" in error.value.hint
        assert not (tmp_path / "out").exists()
    export(base, [patch], "vllm-embeds", tmp_path / "out")


def test_a_damaged_description_is_one_error(base, patch, tmp_path):
    export(base, [patch], "peft", tmp_path / "out")
    path = tmp_path / "out/export.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"more": 1}))
    with pytest.raises(IntegrityError, match="more"):
        read_description(tmp_path / "out")
    path.write_text("{")
    with pytest.raises(IntegrityError):
        read_description(tmp_path / "out")
    with pytest.raises(UsageError, match="no such file"):
        read_description(tmp_path)
