"""The generated card: metadata of the hub, figures with n and interval, nothing foreign that is live."""

from __future__ import annotations

import yaml

from llmpatch.artifact import render_patch
from patchkit import EVIDENCE, contents, embeddings, fields


def card(evidence=EVIDENCE, **changes) -> str:
    return render_patch(fields(**changes), embeddings(), evidence, base_p999=2.0)["README.md"].decode()


def metadata(text: str) -> dict:
    _, front, _ = text.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_hub_finds_its_metadata():
    assert metadata(card()) == {
        "library_name": "peft",
        "base_model": "example/Tiny-Llama",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["prompt-tuning", "safety-patch", "llmpatch"],
    }


def test_a_base_that_is_no_hub_id_and_a_licence_the_hub_does_not_know():
    base = {key: value for key, value in fields()["base"].items() if key != "purl"} | {"name": "smollm2"}
    found = metadata(card(base=base, license="LicenseRef-Ours"))
    assert "base_model" not in found
    assert (found["license"], found["license_name"]) == ("other", "licenseref-ours")


def test_results_come_with_n_and_interval():
    text = card()
    assert "| metric | n | base | patched |" in text
    assert "| HarmBench refusals | 200 | 0.04 [0.02, 0.08] | 0.93 [0.89, 0.96] |" in text
    assert "| everyday \\| over-refusal | 1,250 | – | 0.016 [0.004, 0.03] |" in text
    assert "| refusal: HarmBench refusals | 200 | 0.04 | 0.93 |" in card(evidence={})


def test_usage_warns_of_peft_generate():
    text = card()
    assert "llmpatch.load_patch" in text
    assert "PeftModel.from_pretrained" in text
    assert "silently wrong" in text
    assert "## Limitations" in text


def test_foreign_text_cannot_become_markup():
    text = card(
        summary="<script>alert(1)</script> [x](javascript:alert) ![y](http://z) | a",
        evidence={"results": [{"name": "a\n# b | c <img>", "n": "many", "<b>": {"value": 1, "low": "x"}}]},
    )
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "[x]" not in text
    assert "\n# b" not in text
    assert "<img>" not in text.replace("\\<img\\>", "")
    assert "| a \\# b \\| c \\<img\\> | – | 1 |" in text


def test_odd_evidence_does_not_break_the_card():
    for odd in ({"results": 3}, {"results": [1, None, {}]}, {"results": [{"name": None, "x": {"value": True}}]}):
        assert "## Results" in card(evidence=odd)


def test_the_files_are_the_five_of_the_format():
    assert sorted(contents()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "evidence.json",
        "patch.json",
    ]
