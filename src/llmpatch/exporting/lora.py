"""A patch as a LoRA adapter on the embedding table alone: stock vLLM switches it per request.

``base/`` is the base with n silent tokens; ``adapter/`` turns their input rows into the virtual tokens: row j of A is one at
token j, column j of B is the virtual token less what the table holds. Tied tables stay tied, since LoRA reaches the input
side only. A request without the adapter, and without the template argument, is answered by the base as it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.bases import Base, load_base
from llmpatch.exporting.checking import (
    EXACT,
    ROUNDED,
    TIED,
    Forward,
    compare,
    held_out,
    require,
    runtime,
    with_slots,
)
from llmpatch.exporting.checkpoint import BYPASS, save_model
from llmpatch.exporting.job import Job, Made
from llmpatch.exporting.masking import TIED_STRENGTH, mask_row
from llmpatch.exporting.slots import ARGUMENT, Insertion, add_slots, check_tokenizer, input_scale, table_rows
from llmpatch.exporting.slotted import is_tied, slotted_model, table_name
from llmpatch.prefix import backbone, head_logits

if TYPE_CHECKING:
    import torch

BASE, ADAPTER = "base", "adapter"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes


def write_lora(job: Job, folder: Path) -> Made:
    """Write base and adapter, load both again, and compare with and without the patch.

    Raises:
        UsageError: a tokenizer or an architecture that cannot hold such tokens.
        LlmpatchError: the patched or the unpatched model does not do what it does at run time.
    """
    import torch

    base, count = job.base, len(job.rows)
    tokenizer, slots = add_slots(base, count, Insertion.ASKED)
    tied = is_tied(base)
    mask = mask_row(base, [None, job.rows], TIED_STRENGTH)
    held = mask.expand(count, -1) if tied else torch.zeros(count, base.hidden_size)
    model = slotted_model(base, slots, held, mask, tied=tied, dtype=job.dtype)
    save_model(model, tokenizer, folder / BASE)
    exported = load_base(str(folder / BASE))
    check_tokenizer(base, exported.tokenizer, slots, Insertion.ASKED)
    table = exported.model.get_input_embeddings().weight.detach().float()[torch.tensor(slots.ids)]
    name = table_name(base)
    _write_adapter(
        folder / ADAPTER, name, table_rows(base, job.rows) - table, slots.ids, exported.vocab_size, job.dtype
    )
    texts = held_out(base)
    patched = compare(
        runtime(base, job.rows), _with_adapter(exported, folder / ADAPTER, name, slots.ids), texts, slots.ids
    )
    plain = compare(runtime(base, None), with_slots(exported, ()), texts, slots.ids)
    limits = (TIED if tied else EXACT) if job.dtype == "float32" else ROUNDED
    require(patched, limits, "LoRA adapter")
    require(plain, limits, "base of the LoRA adapter, unpatched,")
    rank = next((r for r in _RANKS if r >= count), _RANKS[-1])
    how = {
        "serve": f"vllm serve {BASE} --enable-lora --max-lora-rank {rank} --lora-modules NAME={ADAPTER}",
        "request": {"model": "NAME", "chat_template_kwargs": {ARGUMENT: True}},
    }
    checks = {"forward with the adapter": patched, "forward without it": plain}
    return Made(checks, slots, how, (BYPASS,))


def _write_adapter(
    folder: Path, name: str, delta: torch.Tensor, ids: tuple[int, ...], vocabulary: int, dtype: str
) -> None:
    import torch
    from safetensors.torch import save_file

    rank = len(ids)
    kind = getattr(torch, dtype)
    ones = torch.zeros(rank, vocabulary, dtype=kind)
    ones[torch.arange(rank), torch.tensor(ids)] = 1
    folder.mkdir()
    tensors = {"A": ones, "B": delta.T.contiguous().to(kind)}
    save_file(
        {f"base_model.model.{name}.lora_embedding_{side}": value for side, value in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = {
        "base_model_name_or_path": f"../{BASE}", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": rank, "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA",
        "r": rank, "target_modules": [name.rpartition(".")[2]], "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _with_adapter(exported: Base, folder: Path, name: str, slot_ids: tuple[int, ...]) -> Forward:
    """The exported base with the adapter read back from its file, added as engines add it."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{name}.lora_embedding_{side}"].float() for side in "AB")
    scale = input_scale(exported)

    def forward(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            tokens = torch.tensor([*slot_ids, *ids])
            delta = (a[:, tokens].T @ b.T) * scale
            embeds = exported.embed(tokens) + delta.to(exported.device)
            hidden = backbone(exported)(inputs_embeds=embeds[None]).last_hidden_state[0, -len(ids) :]
            return head_logits(exported, hidden)

    return forward
