"""The virtual tokens as prompt embeddings for vLLM, with a helper that needs nothing of llmpatch.

``patched_prompt.py`` builds the prompt of one request; the tensor is that of a PEFT adapter.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.artifact.tensors import encode_tensor
from llmpatch.exporting.checking import EXACT, Forward, compare, held_out, require, runtime
from llmpatch.exporting.job import Job, Made
from llmpatch.prefix import backbone, head_logits

if TYPE_CHECKING:
    import torch

TENSOR, HELPER = "prompt_embeds.safetensors", "patched_prompt.py"

_HELPER = '''"""Prompts of a patched model for vLLM (enable_prompt_embeds=True). Needs torch and safetensors.

    from vllm import LLM
    llm = LLM("BASE", enable_prompt_embeds=True)
    rows = load_rows("prompt_embeds.safetensors")
    ids = llm.get_tokenizer().apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True,
                                                  return_dict=False)
    print(llm.generate(patched_prompt(rows, ids))[0].outputs[0].text)

Only the first len(rows) positions are vectors; the rest are token ids, so that vLLM embeds them itself. Accept embeddings
from nobody else: whoever may send them can leave the patch out.
"""

import torch
from safetensors.torch import load_file


def load_rows(path):
    """The virtual tokens, [n, hidden_size] float32, after any scaling the model applies."""
    return load_file(path)["prompt_embeddings"]


def patched_prompt(rows, ids):
    """A vLLM prompt: the virtual tokens, then token ids (BOS among them where the model has one)."""
    count = len(rows)
    embeds = torch.zeros(count + len(ids), rows.shape[1], dtype=rows.dtype)
    embeds[:count] = rows
    return {
        "prompt_embeds": embeds,
        "prompt_token_ids": [0] * count + list(ids),
        "prompt_is_token_ids": [False] * count + [True] * len(ids),
    }
'''


def write_embeds(job: Job, folder: Path) -> Made:
    """Write tensor and helper; check the prompts that the helper itself builds.

    Raises:
        LlmpatchError: they do not do what the run-time prefix does.
    """
    (folder / TENSOR).write_bytes(encode_tensor(job.rows.numpy()))
    (folder / HELPER).write_text(_HELPER, encoding="utf-8")
    measured = compare(runtime(job.base, job.rows), _through_helper(job, folder), held_out(job.base), ())
    require(measured, EXACT, "prompt embeddings")
    note = "vLLM takes embeddings from whoever may send them: keep --enable-prompt-embeds off a public port"
    how = {"serve": "LLM(BASE, enable_prompt_embeds=True), prompts by patched_prompt.py"}
    return Made({"forward of the helper's prompts": measured}, how=how, notes=(note,))


def _through_helper(job: Job, folder: Path) -> Forward:
    """A prompt of the helper as vLLM reads it: ids where the mask says so, vectors elsewhere."""
    import torch

    names = runpy.run_path(str(folder / HELPER))
    rows = names["load_rows"](folder / TENSOR)

    def forward(ids: list[int]) -> torch.Tensor:
        prompt = names["patched_prompt"](rows, ids)
        with torch.no_grad():
            mask = torch.tensor(prompt["prompt_is_token_ids"])[:, None].to(job.base.device)
            tokens = job.base.embed(torch.tensor(prompt["prompt_token_ids"]))
            embeds = torch.where(mask, tokens, prompt["prompt_embeds"].to(tokens))
            hidden = backbone(job.base)(inputs_embeds=embeds[None]).last_hidden_state[0, -len(ids) :]
            return head_logits(job.base, hidden)

    return forward
