"""A GGUF file that runs here through llama.cpp, several prompts at a time.

    LlamaCppReference(Path("model.gguf"), DecodingSection(), slots=8)

Needs the extra ``llmpatch[llamacpp]``. Greedy answers may differ in rare near-ties with the number of slots, because
llama.cpp batches them together.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmpatch.answers import Answer
from llmpatch.errors import LlmpatchError, ReferenceFailedError, UsageError
from llmpatch.files import sha256_file
from llmpatch.recipe import DecodingSection

_TEMPLATE_TOKENS = 256
_MAX_SLOT_TOKENS = 8192


@dataclass(frozen=True)
class LlamaCppReference:
    """A GGUF file that answers.

    Attributes:
        path: The file.
        decoding: How it is sampled.
        slots: Prompts answered at a time.
        system: A system message instead of the template's own.
    """

    path: Path
    decoding: DecodingSection
    slots: int = 8
    system: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Digest of the file."""
        return sha256_file(self.path)

    def identity(self) -> dict[str, Any]:
        """Model file, engine and decoding.

        Raises:
            UsageError: llama.cpp is not installed, or the file is not a GGUF.
        """
        engine = _engine()
        _check_magic(self.path)
        return {
            "kind": "gguf",
            "model": self.path.name,
            "sha256": self.sha256,
            "engine": f"xllamacpp {engine.__version__}",
            "decoding": self.decoding.model_dump(mode="json"),
            "system": self.system,
        }

    def answer(self, prompts: Sequence[str]) -> Generator[tuple[int, Answer], None, None]:
        """See :class:`llmpatch.references.Reference`.

        Raises:
            UsageError: llama.cpp is not installed, or the file is not a GGUF.
            LlmpatchError: llama.cpp cannot load it.
        """
        server = self._server(prompts)
        failures: list[tuple[int, str]] = []
        pool = ThreadPoolExecutor(self.slots, thread_name_prefix="llamacpp")
        try:
            waiting = {pool.submit(self._ask, server, prompt): index for index, prompt in enumerate(prompts)}
            for done in as_completed(waiting):
                found = done.result()
                if isinstance(found, Answer):
                    yield waiting[done], found
                else:
                    failures.append((waiting[done], found))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failures:
            index, reason = min(failures)
            raise ReferenceFailedError(
                f"llama.cpp answered {len(prompts) - len(failures)} of {len(prompts)} prompts; "
                f"the first failure is {prompts[index][:80]!r}: {reason}",
                hint="shorten or leave out those prompts; the other answers are kept",
            )

    def _ask(self, server: Any, prompt: str) -> Answer | str:
        """The answer, or why there is none."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": prompt})
        request = {
            "messages": messages,
            "max_tokens": self.decoding.max_new_tokens,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
            "seed": self.decoding.seed,
            # llama.cpp's own defaults would cut the distribution further than the recipe says.
            "top_k": 0,
            "min_p": 0.0,
            "cache_prompt": True,
        }
        try:
            reply = server.handle_chat_completions(request)
            if "error" in reply:
                return str(reply["error"].get("message"))[:200]
            choice = reply["choices"][0]
            text = choice["message"]["content"]
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"[:200]
        if not isinstance(text, str):
            return "no text in its reply"
        return Answer(text, "length" if choice.get("finish_reason") == "length" else "stop")

    def _server(self, prompts: Sequence[str]) -> Any:
        engine = _engine()
        _check_magic(self.path)
        # A byte-level token is at least one byte; English has about four. Two leaves room for other scripts.
        longest = max((len(prompt.encode()) for prompt in prompts), default=0) + len((self.system or "").encode())
        slot = min(longest // 2 + _TEMPLATE_TOKENS, _MAX_SLOT_TOKENS) + self.decoding.max_new_tokens
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        params = engine.CommonParams()
        params.model.path = str(self.path)
        params.n_parallel = self.slots
        params.n_ctx = self.slots * slot
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.verbosity = 0
        params.use_jinja = True
        # The engine opens a port on the loopback interface, which we do not use: lock it.
        params.api_keys = [secrets.token_urlsafe(32)]
        try:
            return engine.Server(params)
        except RuntimeError as error:
            raise LlmpatchError(
                f"llama.cpp cannot load {self.path}: {error}",
                hint="is it a chat model in GGUF that this version of xllamacpp knows, and is there memory for it?",
            ) from None


def _engine() -> Any:
    try:
        import xllamacpp
    except ImportError:
        raise UsageError("a gguf reference needs llama.cpp", hint='pip install "llmpatch[llamacpp]"') from None
    return xllamacpp


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the path") from None
    if magic != b"GGUF":
        raise UsageError(f"{path} is not a GGUF file", hint="a gguf reference runs one .gguf file")
