"""The page of engines shows what the engine tests wrote, and nothing else."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = {"positions": 5, "max_delta_logit": 0.0125, "max_kl": 1e-6, "max_patch_probability": 1e-40, "agree": 1.0}
LLAMA = {
    "engine": "llama.cpp", "version": "xllamacpp 1", "base": "tiny Q4_1", "unpatched": 0.5, "baked": 0.25, "lora": 0.75,
    "lora, unpatched": 0.5, "patch": 4.0, "exports": {"gguf": {"forward of the loaded file": CHECK}},
}  # fmt: skip
VLLM = {"engine": "vllm", "base": "tiny", "way": "lora", "version": "1", "max_delta_logprob": 2e-5, "cached": [32, 64]}


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_engines

    monkeypatch.setattr(make_engines, "FIGURES", tmp_path / "engines.jsonl")
    return make_engines


def test_figures_become_lines(script):
    text = script.table([LLAMA, VLLM])
    assert "| llama.cpp xllamacpp 1 | tiny Q4_1 | baked | 0.25 |" in text
    assert "| check of `--to gguf` | tiny Q4_1 | forward of the loaded file | 0.013 (KL 1e-06, P 1e-40) |" in text
    assert "| vllm 1 | tiny | lora | 2e-05; 32 prompt tokens from its cache |" in text
    assert script.table([]) == "No engine was measured on this version yet."


def test_a_new_run_replaces_its_own_figures_only(script, tmp_path):
    for rows in ([LLAMA, VLLM], [LLAMA | {"baked": 0.125}]):
        new = tmp_path / "new"
        new.write_text("".join(json.dumps(row) + "\n" for row in rows))
        script.take_in(new)
        assert not new.exists()
    kept = [json.loads(line) for line in script.FIGURES.read_text().splitlines()]
    assert [(row["engine"], row.get("baked")) for row in kept] == [("llama.cpp", 0.125), ("vllm", None)]
