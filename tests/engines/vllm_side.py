"""What runs inside vLLM's own environment: one way of patching, measured against figures of the run-time prefix.

    python vllm_side.py FOLDER checkpoint|lora|embeds    # prints one JSON line

FOLDER is written by test_vllm.py: exports, and ``expected.json`` with token ids, likely first tokens and greedy answers. Imports
nothing of llmpatch.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main(folder: Path, way: str) -> dict:
    import vllm
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    expected = json.loads((folder / "expected.json").read_text())
    slots, tokens = expected["slots"], expected["tokens"]
    options = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True, "block_size": 32, "seed": 0}
    if way == "lora":
        options |= {"enable_lora": True, "max_lora_rank": 64}
    if way == "embeds":
        options |= {"enable_prompt_embeds": True}
    model = {"checkpoint": "checkpoint", "lora": "lora/base", "embeds": "lora/base"}[way]
    llm = LLM(str(folder / model), **options)
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, logprobs=20)
    adapter = LoRARequest("refusal", 1, str(folder / "lora/adapter")) if way == "lora" else None
    if way == "embeds":
        helper = runpy.run_path(str(folder / "embeds/patched_prompt.py"))
        rows = helper["load_rows"](folder / "embeds/prompt_embeds.safetensors")
        dress = lambda ids: helper["patched_prompt"](rows, ids)  # noqa: E731
    else:
        dress = lambda ids: {"prompt_token_ids": [*slots, *ids]}  # noqa: E731

    def answer(prompt, with_adapter):
        return llm.generate(prompt, sampling, lora_request=adapter if with_adapter else None, use_tqdm=False)[0]

    found = {"way": way, "version": vllm.__version__, "max_delta_logprob": 0.0, "same_tokens": True, "cached": []}
    for case in expected["cases"]:
        if way == "checkpoint":  # through its own chat template: the ids must be ours
            chat = llm.chat([{"role": "user", "content": case["prompt"]}], sampling, use_tqdm=False)[0]
            assert list(chat.prompt_token_ids) == [*slots, *case["ids"]]
        compare(found, answer(dress(case["ids"]), True), case["patched"])
        if way == "lora":  # unpatched and back again
            compare(found, answer({"prompt_token_ids": case["ids"]}, False), case["plain"])
            compare(found, answer(dress(case["ids"]), True), case["patched"])
        found["cached"].append(answer(dress(case["ids"]), True).num_cached_tokens)
    return found


def compare(found: dict, reply, wanted: dict) -> None:
    output = reply.outputs[0]
    first = {int(token): entry.logprob for token, entry in output.logprobs[0].items()}
    shared = {int(t): v for t, v in wanted["first"].items() if int(t) in first and v > -10}
    assert len(shared) >= 5
    worst = max(abs(first[t] - v) for t, v in shared.items())
    found["max_delta_logprob"] = max(found["max_delta_logprob"], worst)
    found["same_tokens"] &= list(output.token_ids) == wanted["tokens"]


if __name__ == "__main__":
    sys.stdout.write("RESULT " + json.dumps(main(Path(sys.argv[1]), sys.argv[2])) + "\n")
