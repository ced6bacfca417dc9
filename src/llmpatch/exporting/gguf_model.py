"""The patch inside a GGUF file, for llama.cpp and what is built on it: whole, or as a LoRA that is switched per request.

Nothing is dequantised but the embedding table, which becomes F16 with rows for the patch's tokens. What it held before,
quantised as it was, is the vocabulary head, with rows for them that are never said. All other tensors keep their bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpatch.bases import Base, load_base
from llmpatch.catalogue import locate
from llmpatch.errors import UsageError
from llmpatch.exporting.checking import HALF_TABLE, Forward, compare, held_out, require, runtime, with_slots
from llmpatch.exporting.checkpoint import BYPASS
from llmpatch.exporting.gguf_file import Stored, dequantise, new_gguf, open_gguf, quantise, rewrite, stored, value_of
from llmpatch.exporting.job import Job, Made
from llmpatch.exporting.masking import mask_row
from llmpatch.exporting.slots import ARGUMENT, Insertion, Slots, insert, slot_names, table_rows
from llmpatch.exporting.slotted import check_own_head
from llmpatch.prefix import backbone, head_logits

if TYPE_CHECKING:
    import torch

MODEL, BASE, ADAPTER = "model.gguf", "base.gguf", "adapter.gguf"
_TABLE, _HEAD, _HEAD_BIAS = "token_embd.weight", "output.weight", "output.bias"
_TEMPLATE = "tokenizer.chat_template"
_CONTROL = 3
_MAX_F16 = 65504.0


def write_gguf(job: Job, folder: Path) -> Made:
    """Write the model with the patch always on, load it through transformers and compare.

    Raises:
        UsageError: the base is no GGUF file, has no chat template, or a number format that cannot be written.
        LlmpatchError: it does not do what the run-time prefix does.
    """
    base = job.base
    reader = _open(job)
    slots = _write_model(
        base, reader, folder / MODEL, table_rows(base, job.rows), mask_row(base, [job.rows]), Insertion.ALWAYS
    )
    exported = load_base(str(folder / MODEL))
    measured = compare(runtime(base, job.rows), with_slots(exported, slots.ids), held_out(base), slots.ids)
    require(measured, HALF_TABLE, "GGUF file")
    how = {"serve": f"llama-server -m {MODEL} --jinja"}
    return Made({"forward of the loaded file": measured}, slots, how, (*_notes(reader), BYPASS))


def write_lora_gguf(job: Job, folder: Path) -> Made:
    """Write a base with silent tokens and a LoRA that makes them the patch; compare with it and without.

    Raises:
        UsageError: as :func:`write_gguf`.
        LlmpatchError: the patched or the unpatched model does not do what it does at run time.
    """
    import torch

    base, count = job.base, len(job.rows)
    reader = _open(job)
    inputs, mask = table_rows(base, job.rows), mask_row(base, [None, job.rows])
    # Zeros, so that what the adapter adds is the virtual token itself, in float32.
    slots = _write_model(base, reader, folder / BASE, torch.zeros_like(inputs), mask, Insertion.ASKED)
    exported = load_base(str(folder / BASE))
    ones = np.zeros((exported.vocab_size, count), dtype=np.float16)
    ones[list(slots.ids), np.arange(count)] = 1
    fields = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": float(count)}
    # llama.cpp looks rows of A up by token, so A stands as [vocabulary, rank], unlike that of any other matrix.
    sides = {
        f"{_TABLE}.lora_a": Stored(ones, "F16"),
        f"{_TABLE}.lora_b": Stored(np.ascontiguousarray(inputs.numpy().T, dtype=np.float32), "F32"),
    }
    new_gguf(folder / ADAPTER, value_of(reader, "general.architecture"), fields, sides)
    texts = held_out(base)
    patched = compare(runtime(base, job.rows), _with_adapter(exported, folder / ADAPTER, slots.ids), texts, slots.ids)
    plain = compare(runtime(base, None), with_slots(exported, ()), texts, slots.ids)
    require(patched, HALF_TABLE, "LoRA adapter")
    require(plain, HALF_TABLE, "base of the LoRA adapter, unpatched,")
    how = {
        "serve": f"llama-server -m {BASE} --lora {ADAPTER} --lora-init-without-apply --jinja",
        "request": {"lora": [{"id": 0, "scale": 1.0}], "chat_template_kwargs": {ARGUMENT: True}},
    }
    checks = {"forward with the adapter": patched, "forward without it": plain}
    return Made(checks, slots, how, (*_notes(reader), BYPASS))


def _open(job: Job) -> Any:
    """The reader of the base's GGUF file."""
    check_own_head(job.base)
    path = locate(job.base.name)
    if path is None or path.suffix != ".gguf":
        raise UsageError(
            f"{job.base.name} is not a GGUF file, and this export changes one without touching its quantised tensors",
            hint="convert the base with llama.cpp's convert_hf_to_gguf.py first, or choose `--to checkpoint`",
        )
    reader = open_gguf(path)
    if not isinstance(value_of(reader, _TEMPLATE), str):
        raise UsageError(
            f"{job.base.name} has no chat template, so llama.cpp would use one that leaves the patch out",
            hint="choose a base with a template, or another export",
        )
    if value_of(reader, "split.count", 0) > 1:
        raise UsageError(f"{path} is one of several files", hint="join them with llama-gguf-split --merge")
    return reader


def _write_model(
    base: Base, reader: Any, target: Path, inputs: torch.Tensor, mask: torch.Tensor, insertion: Insertion
) -> Slots:
    names = slot_names(len(inputs))
    tokens = list(value_of(reader, "tokenizer.ggml.tokens"))
    table = stored(reader, _TABLE)
    if table is None or len(tokens) != table.data.shape[0]:
        raise UsageError(f"{base.name} has no embedding row for each token", hint="convert the model again")
    if names[0] in tokens:
        raise UsageError(f"{base.name} has patch tokens already", hint="export from the base itself")
    slots = Slots(names, tuple(range(len(tokens), len(tokens) + len(names))))
    head = stored(reader, _HEAD) or table
    masks = quantise(np.repeat(mask.numpy()[None], len(names), axis=0), head.kind)
    tensors: dict[str, Stored | None] = {
        _TABLE: _table(table, inputs),
        _HEAD: Stored(np.concatenate([head.data, masks.data]), head.kind),
    }
    if (bias := stored(reader, _HEAD_BIAS)) is not None:
        tensors[_HEAD_BIAS] = Stored(np.concatenate([bias.data, np.zeros(len(names), bias.data.dtype)]), bias.kind)
    rewrite(reader, target, fields=_fields(reader, tokens, slots, insertion), tensors=tensors)
    return slots


def _table(table: Stored, inputs: torch.Tensor) -> Stored:
    """The embedding table with rows added, in F16 where that holds all numbers, else in F32."""
    numbers = np.concatenate([dequantise(table), inputs.numpy()]).astype(np.float32)
    half = table.kind != "F32" and float(np.abs(numbers).max()) < _MAX_F16
    return Stored(numbers.astype(np.float16), "F16") if half else Stored(numbers, "F32")


def _fields(reader: Any, tokens: list[str], slots: Slots, insertion: Insertion) -> dict[str, Any]:
    """What the file says about tokens, with the patch's. No BOS of llama.cpp's own: the template writes it, behind them."""
    count = len(slots.tokens)
    fields: dict[str, Any] = {
        "tokenizer.ggml.tokens": [*tokens, *slots.tokens],
        "tokenizer.ggml.token_type": [*value_of(reader, "tokenizer.ggml.token_type", []), *[_CONTROL] * count],
        "tokenizer.ggml.add_bos_token": False,
    }
    if scores := value_of(reader, "tokenizer.ggml.scores", []):
        fields["tokenizer.ggml.scores"] = [*scores, *[0.0] * count]
    size = f"{value_of(reader, 'general.architecture')}.vocab_size"
    if reader.get_field(size) is not None:
        fields[size] = len(tokens) + count
    for name in reader.fields:
        text = value_of(reader, name) if name.startswith(_TEMPLATE) else None
        if isinstance(text, str):
            fields[name] = insert(text, slots.text, insertion)
    return fields


def _notes(reader: Any) -> tuple[str, ...]:
    raw = "a raw completion starts with the text of the patch's tokens to be patched (slots.text)"
    if value_of(reader, "tokenizer.ggml.add_bos_token", True) and reader.get_field("tokenizer.ggml.bos_token_id"):
        raw += ", then the text of the BOS token, which llama.cpp no longer adds"
    return (raw,)


def _with_adapter(exported: Base, path: Path, slot_ids: tuple[int, ...]) -> Forward:
    """The exported base with the adapter read back from its file, added as llama.cpp adds it: before any scaling."""
    import torch

    from llmpatch.exporting.slots import input_scale

    reader = open_gguf(path)
    a, b = (torch.tensor(np.array(t.data)).float() for t in reader.tensors)
    scale = input_scale(exported)

    def forward(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            tokens = torch.tensor([*slot_ids, *ids])
            embeds = exported.embed(tokens) + ((a[tokens] @ b.T) * scale).to(exported.device)
            hidden = backbone(exported)(inputs_embeds=embeds[None]).last_hidden_state[0, -len(ids) :]
            return head_logits(exported, hidden)

    return forward
