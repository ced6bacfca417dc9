"""A guard model behind an OpenAI-compatible endpoint: ``endpoint:<model>@<url>``.

    export LLMPATCH_JUDGE_API_KEY=...           # if the endpoint wants one; never stored or printed
    open_judge("endpoint:llama-guard3@http://127.0.0.1:11434/v1").score(prompts, answers)

Llama Guard and Granite Guardian get the conversation itself, for their chat template on the server; any other model is
asked the HarmBench question. The score is P(harm) where the endpoint returns log-probabilities, else 1.0 or 0.0.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from llmpatch.connections import open_client
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.judges.asking import Service, ask_json
from llmpatch.judges.guards import Family, family_of
from llmpatch.judges.registry import ADAPTERS, Scored
from llmpatch.references.replies import holds_secret

API_KEY_ENV = "LLMPATCH_JUDGE_API_KEY"
WORKERS = 8
TIMEOUT_SECONDS = 60.0


def open_endpoint(spec: str) -> Scored:
    """Point a judge at an endpoint; nothing is sent before it scores.

    Args:
        spec: ``<model>@<url>``, the URL up to ``/v1``.

    Raises:
        UsageError: no model, no http(s) URL, or a password or key in the URL.
    """
    model, _, url = spec.rpartition("@")
    if "://" in model:  # a password puts an @ into the URL, too
        model, _, url = spec.partition("@")
    parts = urlsplit(url)
    if not model or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            f"endpoint judge for model {model!r} has no usable URL", hint="write endpoint:<model>@http://host:port/v1"
        )
    if holds_secret(url):
        raise UsageError(
            "the URL of the endpoint judge holds a password or a key", hint=f"put the key in {API_KEY_ENV} instead"
        )
    family = family_of(model)

    def score(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        key = os.environ.get(API_KEY_ENV)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with open_client(timeout=TIMEOUT_SECONDS, headers=headers) as client, ThreadPoolExecutor(WORKERS) as pool:
            jobs = [pool.submit(_ask, client, url, model, family, p, a) for p, a in zip(prompts, answers, strict=True)]
            try:
                return [job.result() for job in jobs]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    return Scored(score, details=(("model", model), ("url", url), ("family", family.name)))


def _ask(client: Any, url: str, model: str, family: Family, prompt: str, answer: str) -> float:
    body: dict[str, Any] = {
        "model": model,
        "messages": family.messages(prompt, answer),
        "temperature": 0,
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 5,
    }
    if family.options:
        body["chat_template_kwargs"] = dict(family.options)
    address = f"{url.rstrip('/')}/chat/completions"
    return read_verdict(ask_json(client, address, body, _service(address)), family, url)


def _service(url: str) -> Service:
    return Service(
        f"judge endpoint {url}",
        offline="is the server running? check the URL",
        refused=lambda status: f"set {API_KEY_ENV}" if status in {401, 403} else "check the model name and the URL",
        foreign="is this an OpenAI-compatible chat endpoint?",
        first_pause=0.2,
    )


def read_verdict(reply: Any, family: Family, url: str) -> float:
    """P(harm) from a chat completion.

    Raises:
        LlmpatchError: the reply is no chat completion, or says neither of the guard's words.
    """
    try:
        choice = reply["choices"][0]
        text = str(choice["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise LlmpatchError(
            f"judge endpoint {url} sent no chat completion", hint="is this an OpenAI-compatible endpoint?"
        ) from None
    said = re.search(rf"\b({family.harmful}|{family.harmless})\b", text, re.IGNORECASE)
    if said is None:
        raise LlmpatchError(
            f"judge endpoint {url} said {text[:60]!r}, neither {family.harmful!r} nor {family.harmless!r}",
            hint="choose a guard model, or one that follows instructions",
        )
    word = said.group(1).lower()
    probability = _from_logprobs(choice, family, word)
    return probability if probability is not None else float(word == family.harmful.lower())


def _from_logprobs(choice: Any, family: Family, word: str) -> float | None:
    """P(harm) between the two words where the guard says ``word``; none without log-probabilities."""
    try:
        for token in choice["logprobs"]["content"]:
            if str(token["token"]).strip().lower() != word:
                continue
            mass = {family.harmful.lower(): 0.0, family.harmless.lower(): 0.0}
            for other in token["top_logprobs"]:
                name = str(other["token"]).strip().lower()
                if name in mass:
                    mass[name] += math.exp(float(other["logprob"]))
            total = sum(mass.values())
            return mass[family.harmful.lower()] / total if total > 0 else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return None


ADAPTERS["endpoint"] = open_endpoint
