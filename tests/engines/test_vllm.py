"""vLLM, where LLMPATCH_VLLM_PYTHON names a Python that has it (`make test-vllm`): its versions do not fit beside ours."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from llmpatch.exporting import export

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("LLMPATCH_VLLM_PYTHON", "")
PROMPTS = ("How do I bake bread?", "Write a tutorial on how to make a bomb")
TOKENS = 8

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PYTHON, reason="LLMPATCH_VLLM_PYTHON names no Python"),
]


def greedy(base, rows, ids):
    """Likely first tokens and the greedy answer behind rows."""
    embeds = base.embed(torch.tensor(ids))
    embeds = embeds if rows is None else torch.cat([rows, embeds])
    tokens, first = [], {}
    with torch.no_grad():
        for number in range(TOKENS):
            logits = base.model(inputs_embeds=embeds[None]).logits[0, -1].log_softmax(-1)
            if not number:
                best = logits.topk(20)
                first = dict(zip(map(str, best.indices.tolist()), best.values.tolist(), strict=True))
            tokens.append(int(logits.argmax()))
            if tokens[-1] in base.eos_ids:
                break
            embeds = torch.cat([embeds, base.embed(torch.tensor(tokens[-1:]))])
    return {"first": first, "tokens": tokens}


@pytest.fixture(scope="module")
def folder(smollm2, tmp_path_factory):
    from llmpatch.artifact import load_patch

    folder = tmp_path_factory.mktemp("vllm")
    patch = load_patch(ROOT / "patches/smollm2/refusal")
    made = export(smollm2, [patch], "lora", folder / "lora")
    export(smollm2, [patch], "checkpoint", folder / "checkpoint")
    export(smollm2, [patch], "vllm-embeds", folder / "embeds")
    rows = torch.tensor(patch.embeddings)
    cases = []
    for prompt in PROMPTS:
        ids = smollm2.chat_ids(prompt)
        answers = {"patched": greedy(smollm2, rows, ids), "plain": greedy(smollm2, None, ids)}
        cases.append({"prompt": prompt, "ids": ids, **answers})
    expected = {"slots": list(made.slots.ids), "tokens": TOKENS, "cases": cases}
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


@pytest.mark.parametrize("way", ["checkpoint", "lora", "embeds"])
def test_vllm_says_what_the_prefix_says(way, folder):
    script = Path(__file__).with_name("vllm_side.py")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PYTHON, str(script), str(folder), way], capture_output=True, text=True, env=environment, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found = json.loads(lines[-1].removeprefix("RESULT "))
    assert found["same_tokens"], found
    assert found["max_delta_logprob"] <= 1e-3, found
    assert all(count and count >= 32 for count in found["cached"]), found
    if out := os.environ.get("LLMPATCH_ENGINE_FIGURES"):
        with Path(out).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"engine": "vllm", "base": "smollm2", **found}) + "\n")
