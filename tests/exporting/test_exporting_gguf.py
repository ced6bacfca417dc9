"""GGUF exports, byte for byte and number for number, on a tiny model written here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from exportkit import make_patch, write_tiny_gguf
from llmpatch.bases import load_base
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.exporting import export, read_description, requantise
from llmpatch.exporting.gguf_file import open_gguf, quantise, value_of

TEXT = "Tell me about the sea."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(str(write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")))


@pytest.fixture(scope="module")
def patch(base, tmp_path_factory):
    return make_patch(base, tmp_path_factory.mktemp("patch") / "p")


def tensors(path):
    return {t.name: t for t in GGUFReader(path).tensors}


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_is_the_patched_model_and_nothing_else_changed(tied, tmp_path):
    base = load_base(str(write_tiny_gguf(tmp_path / "tiny.gguf", tied=tied)))
    patch = make_patch(base, tmp_path / "p")
    made = export(base, [patch], "gguf", tmp_path / "out")
    old, new = tensors(tmp_path / "tiny.gguf"), tensors(tmp_path / "out/model.gguf")
    assert set(new) == set(old) | {"output.weight"}
    for name in set(old) - {"token_embd.weight", "output.weight"}:
        assert (new[name].tensor_type, new[name].data.tobytes()) == (old[name].tensor_type, old[name].data.tobytes())
    head = old.get("output.weight", old["token_embd.weight"])
    assert new["output.weight"].tensor_type == head.tensor_type
    assert new["output.weight"].data[: len(head.data)].tobytes() == head.data.tobytes()
    table = dequantize(new["token_embd.weight"].data, new["token_embd.weight"].tensor_type)
    assert np.abs(table[-3:] - patch.embeddings).max() < 1e-2
    reader = open_gguf(tmp_path / "out/model.gguf")
    assert value_of(reader, "tokenizer.ggml.tokens")[-3:] == [f"<|llmpatch_{i}|>" for i in range(3)]
    assert list(value_of(reader, "tokenizer.ggml.token_type")[-3:]) == [3, 3, 3]
    assert value_of(reader, "tokenizer.chat_template").startswith("<|llmpatch_0|><|llmpatch_1|>")
    assert value_of(reader, "tokenizer.ggml.add_bos_token") is False
    assert value_of(reader, "llama.vocab_size") == len(table)
    (check,) = made.checks.values()
    assert 0 < check.max_delta_logit < 0.05  # embeddings rounded to F16
    assert check.max_patch_probability < 1e-9
    assert made.slots.ids == tuple(range(len(table) - 3, len(table)))


def test_a_lora_for_llama_cpp_adds_the_virtual_tokens_to_zeros(base, patch, tmp_path):
    made = export(base, [patch], "lora-gguf", tmp_path / "out")
    a, b = (t.data for t in GGUFReader(tmp_path / "out/adapter.gguf").tensors)
    table = tensors(tmp_path / "out/base.gguf")["token_embd.weight"]
    rows = dequantize(table.data, table.tensor_type) + a.astype(np.float32) @ b.T
    assert np.array_equal(rows[-3:], patch.embeddings)
    assert not a[:-3].any()
    template = value_of(open_gguf(tmp_path / "out/base.gguf"), "tokenizer.chat_template")
    assert template.startswith("{% if llmpatch is defined and llmpatch %}<|llmpatch_0|>")
    assert sorted(made.checks) == ["forward with the adapter", "forward without it"]
    assert max(check.max_delta_logit for check in made.checks.values()) < 0.05
    assert read_description(tmp_path / "out").how["request"]["chat_template_kwargs"] == {"llmpatch": True}


def test_a_wrong_adapter_is_found(base, patch, tmp_path, monkeypatch):
    import llmpatch.exporting.gguf_model as module

    monkeypatch.setattr(module, "table_rows", lambda base, rows: rows * 0)
    with pytest.raises(LlmpatchError, match="LoRA adapter does not do"):
        export(base, [patch], "lora-gguf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_base_without_a_template_is_refused(tmp_path):
    base = load_base(str(write_tiny_gguf(tmp_path / "tiny.gguf", template=None)))
    patch = make_patch(base, tmp_path / "p")
    with pytest.raises(UsageError, match="no chat template"):
        export(base, [patch], "gguf", tmp_path / "out")


def test_an_export_is_no_base_for_another(base, patch, tmp_path):
    export(base, [patch], "gguf", tmp_path / "out")
    again = load_base(str(tmp_path / "out/model.gguf"))
    with pytest.raises(UsageError, match="has patch tokens already"):
        export(again, [make_patch(again, tmp_path / "p")], "gguf", tmp_path / "twice")


def test_q6_k_rows_read_back_as_gguf_py_reads_them():
    """gguf-py reads Q6_K and cannot write it; the heads of K-quantised models are of it."""
    rows = np.random.default_rng(0).normal(0, 1, (4, 512)).astype(np.float32)
    stored = quantise(rows, "Q6_K")
    assert (stored.data.shape, stored.data.dtype) == ((4, 2 * 210), np.uint8)
    found = dequantize(stored.data, GGMLQuantizationType.Q6_K)
    assert np.abs(found - rows).max() < np.abs(rows).max() / 31
    assert np.corrcoef(found.ravel(), rows.ravel())[0, 1] > 0.998
    assert not dequantize(quantise(np.zeros((1, 256), np.float32), "Q6_K").data, GGMLQuantizationType.Q6_K).any()


def test_formats_without_a_quantiser_are_named():
    with pytest.raises(UsageError, match="Q4_K"):
        quantise(np.zeros((1, 256), np.float32), "Q4_K")
    with pytest.raises(UsageError, match="Q8_0"):
        quantise(np.zeros((1, 33), np.float32), "Q8_0")


@pytest.mark.parametrize("kind", ["F16", "Q4_1"])
def test_a_model_is_written_in_another_number_format(kind, base, tmp_path):
    requantise(Path(base.name), tmp_path / "other.gguf", kind)
    kinds = {t.tensor_type.name for t in GGUFReader(tmp_path / "other.gguf").tensors}
    assert kinds == {kind, "F32"}
    other = load_base(str(tmp_path / "other.gguf"))
    assert other.fingerprint.differences(base.fingerprint) == []
    ids = torch.tensor([base.chat_ids(TEXT)])
    with torch.no_grad():
        delta = (other.model(ids).logits - base.model(ids).logits).abs().max()
    assert 0 < delta < (0.05 if kind == "F16" else 20)


def test_an_unknown_format_is_refused(base, tmp_path):
    with pytest.raises(UsageError, match="Q3_K"):
        requantise(Path(base.name), tmp_path / "x.gguf", "Q3_K")
