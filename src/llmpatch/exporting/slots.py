"""Tokens that stand for the virtual tokens of a patch, for engines that read token ids only.

    tokenizer, slots = add_slots(base, 50, Insertion.ALWAYS)
    slots.text      # <|llmpatch_0|><|llmpatch_1|>...

They come before everything else, BOS included, as at run time. Knows tokenizers and chat templates; knows nothing about
weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.errors import UsageError

if TYPE_CHECKING:
    import torch

ARGUMENT = "llmpatch"
_PROBE = "What stands before this?"


class Insertion(Enum):
    """When a chat template writes the patch's tokens: always, or where a request's template arguments ask for it."""

    ALWAYS = "always"
    ASKED = "asked"


@dataclass(frozen=True)
class Slots:
    """The tokens of a patch, in order.

    Attributes:
        tokens: Their texts.
        ids: Their ids.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]

    @property
    def text(self) -> str:
        """What a raw prompt starts with to be patched."""
        return "".join(self.tokens)


def slot_names(count: int) -> tuple[str, ...]:
    """Texts of the tokens. No colon: a post-processor could not name them."""
    return tuple(f"<|llmpatch_{number}|>" for number in range(count))


def add_slots(base: Base, count: int, insertion: Insertion) -> tuple[Any, Slots]:
    """A copy of a base's tokenizer that knows the tokens, with a chat template that writes them first.

    With ``ALWAYS``, raw text gets them too, before what the tokenizer adds itself.

    Args:
        base: The base; its tokenizer stays as it is.
        count: How many.
        insertion: When the template writes them.

    Raises:
        UsageError: the tokenizer is a slow one, has such tokens already, or does not keep them whole and in front.
    """
    from tokenizers import AddedToken

    names = slot_names(count)
    if getattr(base.tokenizer, "backend_tokenizer", None) is None:
        raise UsageError(
            f"the tokenizer of {base.name} is not a fast one, so patch tokens cannot be put before BOS",
            hint="save the base with a tokenizer.json, or choose `--to peft`",
        )
    if names[0] in base.tokenizer.get_vocab():
        raise UsageError(f"{base.name} has patch tokens already", hint="export from the base itself")
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    slots = Slots(names, tuple(tokenizer.convert_tokens_to_ids(list(names))))
    tokenizer.chat_template = insert(tokenizer.chat_template, slots.text, insertion)
    if insertion is Insertion.ALWAYS:
        _put_first(tokenizer.backend_tokenizer, slots)
    check_tokenizer(base, tokenizer, slots, insertion)
    return tokenizer, slots


def insert(template: Any, text: str, insertion: Insertion) -> Any:
    """A chat template, or several by name, that writes ``text`` first. Nothing stays nothing."""
    if not template:
        return template
    if isinstance(template, dict):
        return {name: insert(inner, text, insertion) for name, inner in template.items()}
    if insertion is Insertion.ALWAYS:
        return text + str(template)
    return f"{{% if {ARGUMENT} is defined and {ARGUMENT} %}}{text}{{% endif %}}{template}"


def check_tokenizer(base: Base, tokenizer: Any, slots: Slots, insertion: Insertion) -> None:
    """Prove that a chat, and raw text where it is always patched, are the base's own tokens behind the patch's.

    Raises:
        UsageError: they are not.
    """
    other = Base(base.name, base.model, tokenizer)
    first = list(slots.ids) if insertion is Insertion.ALWAYS else []
    wanted = {"raw text": [*first, *base.text_ids(_PROBE)], "text of patch tokens": list(slots.ids)}
    found = {
        "raw text": other.text_ids(_PROBE),
        "text of patch tokens": list(tokenizer.encode(slots.text, add_special_tokens=False)),
    }
    if base.tokenizer.chat_template:
        wanted["a chat"] = [*first, *base.chat_ids(_PROBE)]
        found["a chat"] = other.chat_ids(_PROBE)
        if insertion is Insertion.ASKED:
            wanted["a patched chat"] = [*slots.ids, *base.chat_ids(_PROBE)]
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": _PROBE}], tokenize=False, add_generation_prompt=True, **{ARGUMENT: True}
            )
            found["a patched chat"] = list(tokenizer.encode(text, add_special_tokens=False))
    if wrong := [name for name, ids in wanted.items() if ids != found[name]]:
        raise UsageError(
            f"the tokenizer of {base.name} does not put patch tokens before {', '.join(wrong)}",
            hint="choose `--to peft`, which needs no tokens; please report this tokenizer",
        )


def table_rows(base: Base, rows: torch.Tensor) -> torch.Tensor:
    """Rows of the embedding table that the model turns into ``rows``: Gemma multiplies its table by sqrt(d).

    Args:
        base: The base.
        rows: [n, hidden_size] after the model's own scaling.

    Raises:
        UsageError: the model does more to its table than to multiply it.
    """
    return rows / input_scale(base)


def input_scale(base: Base) -> float:
    """The number by which the model multiplies a row of its embedding table (errors as in :func:`table_rows`)."""
    import torch

    ids = torch.arange(min(256, base.vocab_size))
    table = base.model.get_input_embeddings().weight[: len(ids)].detach().float().cpu()
    found = base.embed(ids).float().cpu()
    scale = float((found * table).double().sum() / table.double().square().sum())
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    if not torch.allclose(found, table * scale, rtol=1e-4, atol=1e-6):
        raise UsageError(
            f"{base.name} ({base.model.config.model_type}) does more to its embedding table than to scale it, so no token "
            "can stand for a virtual one",
            hint="choose `--to peft` or `--to vllm-embeds`",
        )
    return scale


def _put_first(backend: Any, slots: Slots) -> None:
    """Let a ``tokenizers`` tokenizer write the patch's tokens before all others."""
    from tokenizers import processors

    first = processors.TemplateProcessing(
        single=[*slots.tokens, "$A:0"],
        pair=[*slots.tokens, "$A:0", "$B:1"],
        special_tokens=list(zip(slots.tokens, slots.ids, strict=True)),
    )
    own = backend.post_processor
    backend.post_processor = first if own is None else processors.Sequence([own, first])
