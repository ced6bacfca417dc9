"""A guard model through transformers: ``hf:<model id>``, ``hf:<model id>@<revision>`` or ``hf:<folder>``.

    open_judge("hf:meta-llama/Llama-Guard-3-1B").score(prompts, answers)

P(harm) is read from the logits of the next token, between the guard's two words alone; nothing is generated. Runs on
the GPU when there is one. Remote code is never run, and weights must be safetensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import sampled
from llmpatch.judges.guards import Family, family_of
from llmpatch.judges.registry import ADAPTERS, Scored

BATCH = 8


def open_local(spec: str) -> Scored:
    """Load a guard.

    Args:
        spec: A hub id (with ``@revision`` if wanted) or a folder.

    Raises:
        LlmpatchError: it cannot be loaded, or its tokenizer lacks the chat template its family needs.
    """
    model_id, at, revision = spec.partition("@") if not Path(spec).exists() else (spec, "", "")
    family = family_of(model_id)
    tokenizer, model = _load(model_id, revision if at else None)
    if not family.template and not tokenizer.chat_template:
        raise LlmpatchError(
            f"{model_id} ({family.name}) has no chat template to ask it with",
            hint="known guards: Llama Guard, Granite Guardian, HarmBench classifiers; others need a chat template",
        )
    words = _word_ids(tokenizer, family, model_id)
    keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(type(model).forward).parameters else {}

    def score(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        encoded = [_encode(tokenizer, family, p, a) for p, a in zip(prompts, answers, strict=True)]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found = [0.0] * len(encoded)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            for i, p in zip(some, _probabilities(model, [encoded[i] for i in some], words, keep), strict=True):
                found[i] = p
        return found

    commit = str(getattr(model.config, "_commit_hash", None) or revision or "")
    details = [("model", model_id), ("revision", commit), ("family", family.name)]
    if Path(model_id).is_dir():  # no revision tells what lies in it
        details.append(("files", sampled(Path(model_id))))
    return Scored(score, details=tuple(details))


def _load(model_id: str, revision: str | None) -> tuple[Any, Any]:
    import torch
    import transformers

    options: dict[str, Any] = {"revision": revision} if revision else {}
    cuda = torch.cuda.is_available()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_id, trust_remote_code=False, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            model_id,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.bfloat16 if cuda else torch.float32,
            **options,
        )
    except Exception as error:  # whatever a foreign model provokes in transformers becomes one clear line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise LlmpatchError(
            f"cannot load judge hf:{model_id}: {reason}",
            hint="give a hub id or a folder; gated guards need `hf auth login`; is the hub reachable?",
        ) from error
    return tokenizer, model.eval().to("cuda" if cuda else "cpu")


def _word_ids(tokenizer: Any, family: Family, model_id: str) -> tuple[int, int]:
    """First tokens of the guard's word for harm and for none."""
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in (family.harmful, family.harmless)]
    if not ids[0] or not ids[1] or ids[0][0] == ids[1][0]:
        raise UsageError(
            f"the tokenizer of {model_id} begins {family.harmful!r} and {family.harmless!r} with the same token",
            hint="this guard cannot be read from one token; ask it through endpoint:<model>@<url>",
        )
    return int(ids[0][0]), int(ids[1][0])


def _encode(tokenizer: Any, family: Family, prompt: str, answer: str) -> list[int]:
    if family.template:
        return list(tokenizer.encode(family.text(prompt, answer), add_special_tokens=family.adds_bos))
    messages = family.messages(prompt, answer)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **dict(family.options))
    return list(tokenizer.encode(text, add_special_tokens=False))


def _probabilities(model: Any, rows: list[list[int]], words: tuple[int, int], keep: dict[str, int]) -> list[float]:
    """P(harm) of each row: softmax over the two words at the last position, left padded."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        device = model.device
        logits = (
            model(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                position_ids=positions.to(device),
                use_cache=False,
                **keep,
            )
            .logits[:, -1]
            .float()
        )
    return [float(p) for p in torch.softmax(logits[:, list(words)], dim=-1)[:, 0]]


ADAPTERS["hf"] = open_local
