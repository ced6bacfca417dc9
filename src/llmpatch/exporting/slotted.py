"""A model whose vocabulary holds the patch's tokens: the base's weights, with rows added to two tables.

    model = slotted_model(base, slots, inputs, mask, tied=False, dtype="float32")
    model.save_pretrained(folder)

A padded vocabulary (Qwen) has room for them and stays as it is. Knows nothing about files or prefixes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.errors import UsageError
from llmpatch.exporting.slots import Slots

if TYPE_CHECKING:
    import torch

# vLLM and llama.cpp refuse a head of their own, and SGLang reads over it (theirs of 2026).
_ALWAYS_TIED = ("gemma", "gemma2")


def is_tied(base: Base) -> bool:
    """Whether the embedding table is the vocabulary head as well."""
    head, table = base.model.get_output_embeddings(), base.model.get_input_embeddings()
    return head is not None and bool(head.weight is table.weight or head.weight.data_ptr() == table.weight.data_ptr())


def check_own_head(base: Base) -> None:
    """Refuse a base whose engines know no vocabulary head beside the embedding table: there the patch's tokens could be said.

    Raises:
        UsageError: it is of such a family.
    """
    kind = base.model.config.get_text_config().model_type
    if kind in _ALWAYS_TIED:
        raise UsageError(
            f"engines read one table of a {kind} model for embeddings and head: the patch's tokens could be said",
            hint="`--to peft`, or `llmpatch serve`",
        )


def slotted_model(base: Base, slots: Slots, inputs: torch.Tensor, mask: torch.Tensor, *, tied: bool, dtype: str) -> Any:
    """A ``transformers`` model to be saved, not run: it shares the base's weights.

    Args:
        base: The base; it is not changed.
        slots: The patch's tokens.
        inputs: Rows [n, hidden_size] of the embedding table; where ``tied``, they are the head's rows too.
        mask: Row [hidden_size] of the head for each of them, where it is a table of its own.
        tied: Keep one table. Otherwise the head becomes a table of its own.
        dtype: Of the saved weights, by torch's name.

    Raises:
        UsageError: the model keeps its tables where this cannot find them, or its layers quantised.
    """
    import torch

    if not tied:
        check_own_head(base)
    if base.quantisation != "none" and not base.quantisation.startswith("gguf:"):  # transformers dequantises a GGUF
        raise UsageError(
            f"{base.name} keeps its layers in {base.quantisation}: a folder with more tokens needs whole weights",
            hint="export from the folder that it was quantised from (the patch fits it as well) and quantise the result; or "
            "`--to peft`, `--to vllm-embeds`",
        )
    source = base.model
    table, head = _name(base, source.get_input_embeddings()), _name(base, source.get_output_embeddings())
    state = dict(source.state_dict())
    old = state[f"{table}.weight"], state[f"{head}.weight"]
    size = max(old[0].shape[0], max(slots.ids) + 1)
    state[f"{table}.weight"] = grow(old[0], size, slots.ids, inputs)
    silent = tuple(sorted({*range(old[1].shape[0], size), *slots.ids}))
    masks = mask.expand(len(silent), -1)
    state[f"{head}.weight"] = state[f"{table}.weight"] if tied else grow(old[1], size, silent, masks)
    if f"{head}.bias" in state:
        state[f"{head}.bias"] = grow(state[f"{head}.bias"][:, None], size, silent, torch.zeros(len(silent), 1))[:, 0]
    number = getattr(torch, dtype)
    state = {name: value.to(number) if value.is_floating_point() else value for name, value in state.items()}
    config = _config(base, size, tied=tied, dtype=number)
    with torch.device("meta"):
        model = type(source)(config)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    if missing or unexpected:
        names = ", ".join([*missing, *unexpected][:3])
        raise UsageError(
            f"{base.name} ({source.config.model_type}) cannot be made anew with more tokens: {names}",
            hint="choose `--to peft`; please report this architecture",
        )
    if tied:
        model.tie_weights()
    model.generation_config = copy.deepcopy(source.generation_config)
    model.generation_config.suppress_tokens = list(slots.ids)  # one more lock; vLLM does not read it
    return model


def grow(table: torch.Tensor, size: int, ids: tuple[int, ...], rows: torch.Tensor) -> torch.Tensor:
    """A copy of ``table`` [v, d] with at least ``size`` rows and ``rows`` [n, d] at ``ids``; rows in between are zero."""
    import torch

    grown = torch.zeros(max(size, table.shape[0]), table.shape[1], dtype=table.dtype)
    grown[: table.shape[0]] = table.cpu()
    grown[torch.tensor(ids)] = rows.to(table.dtype).cpu()
    return grown


def _name(base: Base, module: Any) -> str:
    for name, found in base.model.named_modules():
        if found is module:
            return str(name)
    raise UsageError(
        f"{base.name} ({base.model.config.model_type}) keeps its vocabulary where it cannot be found",
        hint="choose `--to peft`; please report this architecture",
    )


def table_name(base: Base) -> str:
    """The embedding table's name inside the model, as ``model.embed_tokens``."""
    return _name(base, base.model.get_input_embeddings())


def _config(base: Base, size: int, *, tied: bool, dtype: torch.dtype) -> Any:
    config = copy.deepcopy(base.model.config)
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        part.vocab_size, part.tie_word_embeddings, part.dtype = size, tied, dtype
    if hasattr(config, "quantization_config"):  # of a GGUF, whose weights are dequantised here
        del config.quantization_config
    return config
