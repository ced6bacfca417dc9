"""From what a request says to token ids and to the patch set that it names.

    names_of("smollm2@acme/refusal+acme/bias", None, served="smollm2")    # ["acme/refusal", "acme/bias"]
    chat_ids(base, messages), text_ids(base, "Once upon")

Knows the base's tokenizer and template, and nothing of models or of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmpatch.artifact.strict_json import shown
from llmpatch.bases import Base
from llmpatch.serving.limits import MAX_PATCHES
from llmpatch.serving.patchsets import UNPATCHED
from llmpatch.serving.problems import RequestError
from llmpatch.serving.requests import Message


def names_of(model: str | None, patches: Sequence[str] | None, *, served: str) -> list[str] | None:
    """The patches that a request names.

    Args:
        model: ``served``, or ``served@SET``; a SET is names with ``+`` between them, or ``none``.
        patches: The request's own field.
        served: Name of the base.

    Returns:
        Names in order, none for the base alone; ``None`` for what is active.

    Raises:
        RequestError: another model, or both ways at once.
    """
    if model is None or model == served:
        return None if patches is None else list(patches)
    suffix = model[len(served) + 1 :]
    if not model.startswith(f"{served}@") or not suffix:
        raise RequestError(
            f"no model {shown(model)} here; there is {served}, and GET /v1/models lists all",
            param="model", code="model_not_found", status=404,
        )  # fmt: skip
    if patches is not None:
        raise RequestError("the model names a patch set, and so does `patches`: use one", param="patches")
    names = [] if suffix == UNPATCHED else suffix.split("+")
    if len(names) > MAX_PATCHES:
        raise RequestError(f"{len(names)} patches; at most {MAX_PATCHES} go together", param="model")
    return names


def chat_ids(base: Base, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat, ready for the assistant to answer.

    Raises:
        RequestError: the base's chat template does not take these messages.
    """
    turns = [
        {"role": "system" if message.role == "developer" else message.role, "content": message.text}
        for message in messages
    ]
    if not base.tokenizer.chat_template:
        roles = [turn["role"] for turn in turns]
        if roles not in (["user"], ["system", "user"]):
            raise RequestError(f"{base.name} has no chat template: one user message, and a system message before it, "
                               "are all it takes", param="messages")  # fmt: skip
        return base.chat_ids(turns[-1]["content"], turns[0]["content"] if len(turns) == 2 else None)
    try:
        text = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates raise jinja2 errors with a sentence for people
        reason = shown((str(error).splitlines() or ["no reason given"])[0], 200)
        raise RequestError(f"the chat template of {base.name} refuses: {reason}", param="messages") from None
    return list(base.tokenizer.encode(text, add_special_tokens=False))


def text_ids(base: Base, prompt: str | list[int]) -> list[int]:
    """Token ids of a text to be continued.

    Raises:
        RequestError: it has no tokens, or unknown ones.
    """
    ids = base.text_ids(prompt) if isinstance(prompt, str) else prompt
    if not ids:
        raise RequestError("the prompt is empty", param="prompt")
    if max(ids) >= base.vocab_size:
        raise RequestError(f"token {max(ids)} is outside of a vocabulary of {base.vocab_size}", param="prompt")
    return ids


def room_for(
    ids: Sequence[int], rows: int, context: int, wanted: int | None, longest: int, param: str = "messages"
) -> int:
    """Tokens an answer may have; ``param`` is what the prompt is called. One that is only scored needs no room.

    Raises:
        RequestError: prompt, patch rows and answer do not fit.
    """
    room = context - rows - len(ids)
    if room < (wanted != 0) or (wanted is not None and wanted > room):
        asked = "" if wanted is None else f" and max_tokens {wanted}"
        raise RequestError(
            f"a prompt of {len(ids)} tokens{asked} do not fit a context of {context}, of which {rows} are the patches'",
            param=param, code="context_length_exceeded",
        )  # fmt: skip
    if wanted is not None and wanted > longest:
        raise RequestError(f"max_tokens is {wanted}; this server writes at most {longest}", param="max_tokens")
    return min(room, longest) if wanted is None else wanted
