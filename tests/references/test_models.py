"""The two references that run a model here, on the bundled SmolLM2."""

import dataclasses
import json

import pytest
import torch

from llmpatch.bases import load_base
from llmpatch.catalogue import locate
from llmpatch.errors import LlmpatchError, ReferenceFailedError
from llmpatch.progress import Silent
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection, ReferenceSection
from llmpatch.references import collect, open_reference
from llmpatch.references.llamacpp import LlamaCppReference
from llmpatch.references.local import TransformersReference

DECODING = DecodingSection(max_new_tokens=8)
PROMPTS = [Prompt("1", "What is the capital of France?", "everyday"), Prompt("2", "Say hello.", "everyday")]


@pytest.mark.real
def test_llama_cpp_answers_silently_and_a_second_run_asks_nothing(tmp_path, capfd, monkeypatch):
    section = ReferenceSection(kind="gguf", model="smollm2", concurrency=2)
    reference = open_reference(section, DECODING)
    answers = collect(reference, PROMPTS, tmp_path, progress=Silent())
    assert answers[0] != answers[1]
    assert "Hello" in answers[1].text
    assert capfd.readouterr() == ("", "")
    identity = reference.identity()
    assert identity["sha256"].startswith("b179c952")
    assert identity["engine"].startswith("xllamacpp ")
    assert json.loads(json.dumps(identity)) == identity
    monkeypatch.setattr(LlamaCppReference, "answer", None)
    assert collect(open_reference(section, DECODING), PROMPTS, tmp_path, progress=Silent()) == answers


@pytest.mark.real
def test_llama_cpp_reports_a_prompt_that_is_too_long_and_keeps_the_others(tmp_path):
    reference = LlamaCppReference(locate("smollm2"), DecodingSection(max_new_tokens=2), slots=1)
    prompts = [*PROMPTS[:1], Prompt("long", "( " * 9000, "everyday")]
    with pytest.raises(ReferenceFailedError, match=r"answered 1 of 2 prompts.*exceeds"):
        collect(reference, prompts, tmp_path, progress=Silent())
    assert "capital of France" in next(tmp_path.glob("*.partial.jsonl")).read_text()


def test_llama_cpp_reports_a_file_it_cannot_load(tmp_path):
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(LlmpatchError, match=r"cannot load .*broken\.gguf"):
        next(LlamaCppReference(broken, DECODING).answer(["hello"]))


@pytest.mark.real
def test_transformers_answers_and_tells_changed_weights_apart(tmp_path):

    base = load_base("smollm2")
    reference = TransformersReference(base, DECODING)
    answers = collect(reference, PROMPTS, tmp_path, progress=Silent())
    assert "Paris" in answers[0].text
    identity = reference.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert TransformersReference(base, DECODING).identity() == identity
    assert dataclasses.replace(reference, system="Be safe.").identity() != identity
    with torch.no_grad():  # what a merged LoRA does: embeddings, and so the fingerprint, stay as they are
        base.model.model.layers[3].mlp.up_proj.weight.mul_(1.01)
    merged = TransformersReference(base, DECODING).identity()
    assert merged["fingerprint"] == identity["fingerprint"]
    assert merged["weights"] != identity["weights"]


def test_what_is_drawn_depends_on_the_prompt_alone(tiny, tmp_path):
    """A run that was killed, or asked for more than another, draws what an uninterrupted one draws."""
    decoding = DecodingSection(max_new_tokens=8, temperature=1.0)
    prompts = [Prompt(str(i), f"Say {i}", "everyday") for i in range(6)]
    whole = collect(TransformersReference(tiny, decoding), prompts, tmp_path / "whole", progress=Silent())
    collect(TransformersReference(tiny, decoding), prompts[:3], tmp_path / "parts", progress=Silent())
    for raw, prefix in ((False, tiny.embed(torch.arange(3))), (True, None)):
        model = TransformersReference(tiny, decoding, raw=raw, prefix=prefix)
        every, some = (
            collect(model, p, tmp_path / f"{raw}{len(p)}", progress=Silent()) for p in (prompts, prompts[2:4])
        )
        assert every[2:4] == some
        assert every != whole
    assert len({answer.text for answer in whole}) == 6
    assert (
        collect(TransformersReference(tiny, decoding), prompts[::-1], tmp_path / "other", progress=Silent())
        == whole[::-1]
    )
