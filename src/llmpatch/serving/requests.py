"""What a client may send: OpenAI's requests, closed. A field that is not known, or that would be ignored, is an error.

    ChatRequest.model_validate_json(b'{"messages": [{"role": "user", "content": "Hi"}]}')

Fields of ours: ``patches`` (names; an empty list is the base alone) and ``ignore_eos``. The same is in ``model``, as
``BASE@vendor/slug+vendor/other`` and ``BASE@none``, for clients that send no other fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from llmpatch.serving.limits import MAX_PATCHES, MAX_PROMPTS, MAX_STOP_CHARACTERS, MAX_STOPS, MAX_TOP_LOGPROBS
from llmpatch.training_recipe import Temperature, TopP


def _unicode(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no text can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("not Unicode text: half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
Stop = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
PatchName = Annotated[Text, Field(min_length=1, max_length=256)]
# fail_fast: a megabyte of wrong items must not become a gigabyte of error messages.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1, fail_fast=True)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(_Closed):
    """``include_usage``: a last chunk with the numbers of tokens."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Common(_Closed):
    """What chats and completions share.

    ``user``, ``metadata``, ``store``, ``service_tier``, ``safety_identifier`` and ``prompt_cache_key`` are taken and mean
    nothing here. Penalties and biases are not applied, so only their neutral values are taken.
    """

    model: Annotated[Text, Field(max_length=1024)] | None = None
    patches: Annotated[list[PatchName], Field(max_length=MAX_PATCHES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(_Closed):
    """A part of a message. Only text."""

    type: Literal["text"]
    text: Text


class Message(_Closed):
    """One message of a chat; what assistants' replies carry besides may come back, empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=256, fail_fast=True)]
    name: Annotated[str, Field(max_length=256)] | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(_Closed):
    """``response_format``: plain text is all there is."""

    type: Literal["text"]


class ChatRequest(_Common):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise ValueError("max_tokens and max_completion_tokens say different things")
        return self

    @property
    def top(self) -> int | None:
        """Alternatives to report a token; ``None`` for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


USUAL_TOKENS = 16  # of a completion that names no max_tokens, where they fit


class CompletionRequest(_Common):
    """``POST /v1/completions``. ``echo`` puts the prompt before the text, and scores it where ``logprobs`` are asked for."""

    prompt: (
        Text | TokenIds | Annotated[list[Text | TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.echo and self.stream:
            raise ValueError("echo does not go with stream")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens is 0 without echo: nothing is asked for")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or more prompts, as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [part for part in self.prompt if not isinstance(part, int)]


class ActivateRequest(_Closed):
    """``POST /admin/activate``: patches by name; what a gate did not pass needs ``skip_gate``, which is recorded."""

    patches: Annotated[list[PatchName], Field(max_length=MAX_PATCHES)]
    skip_gate: bool = False
    reason: Annotated[Text, Field(max_length=512)] = ""


class RollbackRequest(_Closed):
    """``POST /admin/rollback``."""

    reason: Annotated[Text, Field(max_length=512)] = ""
