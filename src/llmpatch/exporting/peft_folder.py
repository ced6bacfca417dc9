"""An adapter that PEFT loads as prompt tuning: all patches as one.

Its forward equals the run-time prefix; its ``generate`` is wrong on transformers >= 5.24 (peft 0.21.2), which is why llmpatch
never uses it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.artifact.layout import CONFIG_FILE, TENSOR_FILE
from llmpatch.artifact.tensors import decode_tensor, encode_tensor
from llmpatch.exporting.checking import EXACT, Forward, compare, held_out, require, runtime
from llmpatch.exporting.job import Job, Made

if TYPE_CHECKING:
    import torch


def write_peft(job: Job, folder: Path) -> Made:
    """Write the adapter and check it through PEFT where that is installed, else through llmpatch's own prefix.

    Raises:
        LlmpatchError: its forward differs.
    """
    config = {
        "base_model_name_or_path": job.base_id,
        "inference_mode": True,
        "num_virtual_tokens": len(job.rows),
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "revision": job.revision,
        "task_type": "CAUSAL_LM",
        "token_dim": job.base.hidden_size,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / TENSOR_FILE).write_bytes(encode_tensor(job.rows.numpy()))
    by = "peft" if importlib.util.find_spec("peft") else "llmpatch"
    forward = _through_peft(job, folder) if by == "peft" else runtime(job.base, read_rows(folder / TENSOR_FILE))
    measured = compare(runtime(job.base, job.rows), forward, held_out(job.base), ())
    require(measured, EXACT, "PEFT adapter")
    note = "do not call PEFT's generate() on transformers >= 5.24: it repeats the prefix at every step (peft 0.21.2)"
    return Made({f"forward through {by}": measured}, how={"load": "peft.PeftModel.from_pretrained"}, notes=(note,))


def read_rows(path: Path) -> torch.Tensor:
    """Virtual tokens [n, hidden_size] out of a file that was written here."""
    import torch

    return torch.tensor(decode_tensor(path.read_bytes(), where=str(path)).embeddings)


def _through_peft(job: Job, folder: Path) -> Forward:
    import torch
    from peft import PeftModel

    shared = copy.copy(job.base.model)  # PEFT replaces methods of the model it is given
    model: Any = PeftModel.from_pretrained(shared, str(folder)).eval()

    def forward(ids: list[int]) -> torch.Tensor:
        tokens = torch.tensor([ids], device=job.base.device)
        with torch.no_grad():
            found: torch.Tensor = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0, -len(ids) :]
        return found

    return forward
