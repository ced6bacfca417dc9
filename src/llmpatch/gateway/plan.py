"""What a request must say so that an engine puts the patch in front of it.

    plan = plan_for(read_description(Path("out")), adapter="refusal")
    plan.chat({"messages": [...]})           # with the adapter and the template argument
    plan.completion({"prompt": "Once"})      # with the patch's tokens in front

Pure: a body goes in, a new one comes out. Whatever could leave the patch out is refused or overruled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmpatch.errors import UsageError
from llmpatch.exporting import Description
from llmpatch.exporting.slots import ARGUMENT

Body = dict[str, Any]
# Keys by which a request could bring a prompt of its own making, past the patch, or have the start of it cut off.
_REFUSED = (
    "chat_template", "prompt_embeds", "lora", "lora_request", "input_prefix", "input_suffix", "suffix",
    "truncate_prompt_tokens", "truncation_side", "n_keep", "n_discard",
)  # fmt: skip
_REACHABLE = ("lora", "lora-gguf", "checkpoint", "gguf")


@dataclass(frozen=True)
class Plan:
    """How requests are changed for one export.

    Attributes:
        to: The kind of export.
        level: The patches, for people.
        text: The texts of the patch's tokens, joined; ``ids`` their ids.
        ids: See ``text``.
        bos: What follows them in raw text.
        model: What the engine calls the export, where it serves others beside it; empty leaves it to the request.
        adapter: Name (vLLM) or number (llama.cpp) of the LoRA; empty where there is none.
        temperature: Of a request that names none; ``None`` leaves it to the engine.
        top_p: Likewise.
    """

    to: str
    level: str
    text: str
    ids: tuple[int, ...]
    bos: str = ""
    model: str = ""
    adapter: str = ""
    temperature: float | None = None
    top_p: float | None = None

    def chat(self, body: Mapping[str, Any]) -> Body:
        """A chat request with the patch.

        Raises:
            UsageError: a key that could leave the patch out, or a value of a wrong type.
        """
        found = self._common(body)
        found.pop("add_special_tokens", None)  # the template decides
        _check_parts(found.get("messages"))
        given = found.get("chat_template_kwargs")
        if given is not None and not isinstance(given, dict):
            raise _wrong("chat_template_kwargs", "an object")
        if given and "chat_template" in given:  # some engines let it take the place of their own
            raise _left_out("chat_template_kwargs.chat_template")
        if self.to in ("lora", "lora-gguf"):
            found["chat_template_kwargs"] = {**(given or {}), ARGUMENT: True}
        return found

    def completion(self, body: Mapping[str, Any]) -> Body:
        """A request to continue text, with the patch.

        Raises:
            UsageError: as :meth:`chat`; a prompt that is neither text nor token ids.
        """
        found = self._common(body)
        prompt = found.get("prompt")
        several = isinstance(prompt, list) and bool(prompt) and not _are_ids(prompt)
        found["prompt"] = [self._front(one) for one in prompt] if several and prompt else self._front(prompt)
        if self.to == "lora":
            found["add_special_tokens"] = False  # BOS stands behind the patch already
        elif self.to == "checkpoint":
            found["add_special_tokens"] = True  # the tokenizer itself puts the patch first
        return found

    def _front(self, prompt: Any) -> Any:
        if isinstance(prompt, str):
            return prompt if self.to == "checkpoint" else self.text + self.bos + prompt
        if _are_ids(prompt):
            return prompt if tuple(prompt[: len(self.ids)]) == self.ids else [*self.ids, *prompt]
        raise _wrong("prompt", "a text, token ids, or a list of either")

    def _common(self, body: Mapping[str, Any]) -> Body:
        if refused := [key for key in _REFUSED if body.get(key) is not None]:
            raise _left_out(refused[0])
        found = {key: value for key, value in body.items() if key not in _REFUSED}
        # The engine counts the patch's tokens among the prompt's: who adds up their log-probabilities would count wrongly.
        told = [key for key in ("echo", "prompt_logprobs") if found.get(key) is not None and found[key] is not False]
        if told:
            raise UsageError(f"{told[0]} is not taken here: it would repeat the patch's tokens", hint="drop it")
        if self.to == "lora" or self.model:
            found["model"] = self.model or self.adapter
        if self.to == "lora-gguf":
            found["lora"] = [{"id": int(self.adapter), "scale": 1.0}]
        for key, value in (("temperature", self.temperature), ("top_p", self.top_p)):
            if value is not None and found.get(key) is None:
                found[key] = value
        return found


def plan_for(description: Description, *, adapter: str | None = None, model: str | None = None) -> Plan:
    """The plan for an export that an engine serves.

    Args:
        description: The export's ``export.json``.
        adapter: Of ``lora`` the name the engine serves it under; of ``lora-gguf`` its number there, 0 by default.
        model: Of the others the name that requests get, whatever they name.

    Raises:
        UsageError: an export that requests cannot reach, or an adapter or a model that is missing or has no place.
    """
    if description.to not in _REACHABLE or description.slots is None:
        raise UsageError(
            f"an export to {description.to} has no tokens that a request could name",
            hint=f"export to {', '.join(_REACHABLE)}",
        )
    if description.to == "lora" and not adapter:
        raise UsageError("which adapter?", hint="--adapter NAME, as in the engine's --lora-modules NAME=PATH")
    if description.to == "lora-gguf":
        adapter = adapter or "0"
        if not adapter.isascii() or not adapter.isdecimal() or len(adapter) > 4:
            raise UsageError(
                f"{adapter[:40]!r} is not the number of an adapter", hint="llama-server counts them from 0"
            )
    elif adapter and description.to != "lora":
        raise UsageError(f"an export to {description.to} has no adapter", hint="drop --adapter")
    if model and description.to == "lora":
        raise UsageError("the adapter is the model that requests get", hint="drop --model")
    slots = description.slots
    return Plan(
        description.to, description.level, slots.text, slots.ids, slots.bos, model=model or "", adapter=adapter or ""
    )


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _check_parts(messages: Any) -> None:
    """Refuse parts of a message that are embeddings: they would say anything to the model, unseen."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _wrong("messages", "a list of objects")
    for message in messages:
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and "embeds" in str(part.get("type", "")):
                raise UsageError(f"content of type {str(part['type'])[:40]} is not taken here", hint="send text")


def _left_out(key: str) -> UsageError:
    return UsageError(f"{key} is not taken here: it could leave the safety patch out", hint="drop it")


def _wrong(key: str, wanted: str) -> UsageError:
    return UsageError(f"{key} must be {wanted}", hint="see the OpenAI API reference")
