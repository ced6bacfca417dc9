"""Bases from a folder and a GGUF; what a fingerprint sees; what cannot be loaded."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.metadata import requires

import pytest
import torch

from llmpatch.bases import default_device, load_base
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.pairs import Pair, encode
from tinymodels import TEMPLATE, make_spaced_tokenizer, make_tiny


@pytest.fixture
def folder(tmp_path):
    base = make_tiny()
    base.model.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_loads_frozen_in_float32_with_a_stable_fingerprint(folder):
    first, again = load_base(str(folder)), load_base(str(folder))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint.quantisation == "none"
    assert not any(p.requires_grad for p in first.model.parameters())
    assert first.model.dtype == torch.float32
    assert first.chat_ids("Hi") == make_tiny().chat_ids("Hi")


def test_a_changed_template_table_or_config_is_seen(folder):
    base, reference = load_base(str(folder)), load_base(str(folder)).fingerprint
    base.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert reference.differences(base.fingerprint) == ["chat_template"]
    other = load_base(str(folder))
    other.model.get_input_embeddings().weight.data[0, 0] += 1
    assert reference.differences(other.fingerprint) == ["embeddings"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert reference.differences(load_base(str(folder)).fingerprint) == ["config"]


def test_another_quantisation_is_not_another_base():
    one = make_tiny().fingerprint
    two = dataclasses.replace(one, embeddings="0" * 64, quantisation="gguf:Q8_0:abc")
    assert one.differences(two) == []


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model.gguf", "no-such-name", "a/b/c"])
def test_names_that_are_nothing(name):
    with pytest.raises(UsageError):
        load_base(name)


def test_an_unreachable_hub_id_is_one_clear_line():
    with pytest.raises(LlmpatchError, match="cannot load nobody/nothing-here"):
        load_base("nobody/nothing-here")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"not a model at all"])
def test_broken_gguf_files(tmp_path, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(LlmpatchError, match=r"broken\.gguf"):
        load_base(str(path))


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(LlmpatchError, match="cannot load"):
        load_base(str(tmp_path))


def test_a_revision_goes_with_a_hub_id_only(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="revision"):
        load_base(str(tmp_path / "x.gguf"), revision="main")


def test_a_revision_does_not_go_with_a_folder(folder):
    with pytest.raises(UsageError, match=r"a revision \(main\) goes with a hub id"):
        load_base(str(folder), "main")


def test_a_template_that_takes_no_system_message_says_so():
    base = make_tiny()
    assert base.takes_system
    strict = make_tiny()
    strict.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    assert not strict.takes_system
    assert strict.chat_ids("Hello")
    with pytest.raises(UsageError, match="does not take a system message: System role not supported"):
        strict.chat_ids("Hello", "Be brief.")
    deaf = make_tiny()
    deaf.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    assert not deaf.takes_system, "it leaves the message out: a safe prompt would be the base itself"


def test_what_reads_a_gguf_comes_with_the_package():
    """transformers asks for accelerate only when it reads one: a container without the extras could not load the bundled base."""
    needed = {re.split(r"\W", line)[0] for line in requires("llmpatch") or () if "extra ==" not in line}
    assert {"gguf", "accelerate", "transformers", "torch"} <= needed


@pytest.mark.real
def test_the_bundled_gguf(smollm2):
    assert (smollm2.hidden_size, smollm2.vocab_size) == (576, 49152)
    assert smollm2.fingerprint.quantisation.startswith("gguf:Q4_1:")
    assert smollm2.decode(smollm2.chat_ids("Hello")).endswith("user\nHello\nassistant\n")


def test_a_device_that_is_not_here_is_one_clear_line(monkeypatch, folder):
    monkeypatch.setenv("LLMPATCH_DEVICE", "nowhere:7")
    with pytest.raises(UsageError, match="LLMPATCH_DEVICE='nowhere:7' cannot be used"):
        load_base(str(folder))


def test_weights_in_half_the_memory_are_asked_for_by_name(monkeypatch, folder):
    monkeypatch.setenv("LLMPATCH_DTYPE", "bfloat16")
    half = load_base(str(folder))
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    monkeypatch.setenv("LLMPATCH_DTYPE", "int3")
    with pytest.raises(UsageError, match="LLMPATCH_DTYPE='int3' is not known") as error:
        load_base(str(folder))
    assert "bfloat16" in error.value.hint


def test_a_gpu_that_is_seen_and_does_not_work_is_said_so(monkeypatch):
    def broken(*size, device):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", broken)
    monkeypatch.delenv("LLMPATCH_DEVICE", raising=False)
    with pytest.raises(UsageError, match="torch sees a GPU that cannot be used: no kernel image") as error:
        default_device()
    assert "LLMPATCH_DEVICE=cpu" in error.value.hint


def test_a_gpu_is_used_unless_another_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.delenv("LLMPATCH_DEVICE", raising=False)
    assert default_device() == "cuda"
    monkeypatch.setenv("LLMPATCH_DEVICE", "cpu")
    assert default_device() == "cpu"


def test_a_turn_ends_as_the_template_ends_it_not_as_the_tokenizer_says():
    base = make_tiny()
    assert base.turn_end == base.tokenizer.eos_token_id
    other = make_tiny()
    marker = other.tokenizer.encode("~", add_special_tokens=False)[0]
    other.tokenizer.chat_template = "{% for m in messages %}<{{ m['content'] }}>~{% endfor %}"
    assert other.turn_end == other.tokenizer.eos_token_id  # nothing says that it ends an answer
    third = make_tiny()
    third.tokenizer.chat_template = other.tokenizer.chat_template
    third.model.generation_config.eos_token_id = [third.tokenizer.eos_token_id, marker]
    assert third.turn_end == marker
    pairs = [Pair("1", "harmful", "Hi", "Ho", "No", True, True, 1.0, 0.0, "1", form) for form in ("chat", "raw")]
    chat, raw = encode(third, pairs).examples
    assert (chat.chosen[-1], raw.chosen[-1]) == (marker, third.tokenizer.eos_token_id)
    strict = make_tiny()
    strict.tokenizer.chat_template = "{{ raise_exception('no answers here') }}"
    assert strict.turn_end == strict.tokenizer.eos_token_id


def test_a_special_token_that_ends_turns_ends_answers_where_the_model_names_another():
    """As in a GGUF file of Gemma 2 or Phi-3, which names the end of texts."""
    base = make_tiny(vocab_size=261)
    base.tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    base.tokenizer.add_tokens(["<plain>"])
    end, plain = base.tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<plain>"])
    base.tokenizer.chat_template = TEMPLATE.replace("}}</s>", "}}<end_of_turn>\n")
    assert base.eos_ids == [2, end]
    assert base.turn_end == end
    other = make_tiny(vocab_size=261)
    other.tokenizer = base.tokenizer
    other.tokenizer.chat_template = TEMPLATE.replace("}}</s>", "}}<plain>\n")
    assert other.eos_ids == [2]
    assert plain not in other.eos_ids


def test_a_continuation_keeps_the_space_that_some_tokenizers_hide():
    plain, spaced = make_tiny(), make_tiny()
    spaced.tokenizer = make_spaced_tokenizer()
    assert (plain.hides_spaces, spaced.hides_spaces) == (False, True)
    for base in (plain, spaced):
        for prompt, text in (("He is a", " fool."), ("He is a", ", and"), ("He is ", "a fool"), ("Foo", "bar")):
            ids = base.continuation_ids(prompt, text)
            assert [*base.text_ids(prompt), *ids] == base.text_ids(prompt + text)
            assert base.continuation(base.text_ids(prompt), ids) == text
    assert spaced.decode(spaced.continuation_ids("He is a", " fool.")) == "fool."  # which is what it looks like alone
    raw = Pair("1", "harmful", "He is a", " fool.", ", and", False, False, 1.0, 0.0, "1", "raw")
    (example,) = encode(spaced, [raw]).examples
    assert spaced.tokenizer.convert_ids_to_tokens(list(example.rejected)) == [",", "▁", "a", "n", "d"]


def test_what_goes_on_is_generated_with_its_space(monkeypatch):
    from llmpatch import generation
    from llmpatch.recipe import DecodingSection

    base = make_tiny()
    base.tokenizer = make_spaced_tokenizer()
    said = {}
    for raw in (True, False):
        tokens = iter(base.continuation_ids("He is a", " fool"))
        monkeypatch.setattr(generation, "_choose", lambda *_, tokens=tokens: [next(tokens)])
        found = dict(generation.generate(base, ["He is a"], decoding=DecodingSection(max_new_tokens=5), raw=raw))
        said[raw] = found[0][0].text
    assert said == {True: " fool", False: "fool"}
