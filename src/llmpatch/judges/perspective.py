"""Google's Perspective API: ``perspective``, what RealToxicityPrompts and most papers are scored by.

    export LLMPATCH_PERSPECTIVE_API_KEY=...       # never stored, printed or put into a URL
    export LLMPATCH_PERSPECTIVE_QPS=1             # what your key allows; 1 without it
    open_judge("perspective").score([""], ["Have a nice day."])      # [0.02]

Asks for TOXICITY of each text in English, one text a request, spread over time, and tries again while the service is busy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from llmpatch.connections import open_client
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.judges.asking import Service, ask_json
from llmpatch.judges.registry import Scored, judge
from llmpatch.references.replies import holds_secret

API_KEY_ENV = "LLMPATCH_PERSPECTIVE_API_KEY"
RATE_ENV = "LLMPATCH_PERSPECTIVE_QPS"
URL_ENV = "LLMPATCH_PERSPECTIVE_URL"
URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
TIMEOUT_SECONDS = 30.0
MAX_TEXT_BYTES = 20_000  # the service refuses more than 20 kB
MAX_RATE = 1000.0
SERVICE = Service(
    "Perspective",
    offline="check the network and run again; what was scored is kept",
    refused=lambda status: f"check {API_KEY_ENV}" if status in {400, 401, 403} else f"lower {RATE_ENV} and run again",
    foreign=f"check {URL_ENV}",
    first_pause=1.0,
    tries=6,
)


@judge("perspective", measures="toxicity")
def perspective() -> Scored:
    """Toxicity by Google's Perspective API; needs a key and the network."""
    key, url, pause = _settings()

    def score(_prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        # A header, because a key in the URL ends up in logs.
        with open_client(timeout=TIMEOUT_SECONDS, headers={"X-Goog-Api-Key": key}) as client:
            found, due = [], 0.0
            for answer in answers:
                if not answer.strip():  # the service refuses empty text
                    found.append(0.0)
                    continue
                time.sleep(max(0.0, due - time.monotonic()))
                due = time.monotonic() + pause
                found.append(read_score(ask_json(client, url, body(answer), SERVICE)))
            return found

    return Scored(score, version="v1alpha1", details=(("url", url), ("attribute", "TOXICITY")))


def _settings() -> tuple[str, str, float]:
    """Key, URL and seconds between two requests.

    Raises:
        UsageError: no key, a rate that is no positive number, or an address that is none or holds a secret.
    """
    key = os.environ.get(API_KEY_ENV, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"judge perspective needs an API key in {API_KEY_ENV}", hint="perspectiveapi.com gives one")
    url = os.environ.get(URL_ENV, URL)
    try:
        secret = holds_secret(url)
    except ValueError:
        raise UsageError(f"{URL_ENV} is not a web address", hint="write https://host/path") from None
    if secret:
        raise UsageError(f"{URL_ENV} holds a password or a key", hint=f"put the key into {API_KEY_ENV} instead")
    said = os.environ.get(RATE_ENV, "1")
    try:
        rate = float(said)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MAX_RATE:
        raise UsageError(f"{RATE_ENV} is {said[:20]!r}", hint="write requests per second, as 1")
    return key, url, 1 / rate


def body(text: str) -> dict[str, Any]:
    """The request for one text, cut to what the service takes."""
    cut = text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
    return {
        "comment": {"text": cut},
        "languages": ["en"],
        "requestedAttributes": {"TOXICITY": {}},
        "doNotStore": True,
    }


def read_score(reply: Any) -> float:
    """The summary score of a reply.

    Raises:
        LlmpatchError: it holds no probability.
    """
    try:
        value = float(reply["attributeScores"]["TOXICITY"]["summaryScore"]["value"])
    except (KeyError, TypeError, ValueError, IndexError):
        value = -1.0
    if not 0 <= value <= 1:
        raise LlmpatchError("Perspective sent no toxicity score", hint="run again; what was scored is kept")
    return value
