"""What a prefix costs in time: first token and every further token, patched against base, in one process.

    measure_latency(base, rows, ["What is rain?"]).token_ratio     # Interval(..., value=1.02, ...)

Runs of both models are interleaved after a warm-up, so that a busy machine slows both alike; each ratio compares two
runs that followed each other. The prefix's cache is computed once beforehand, as a server does. Knows nothing else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError
from llmpatch.evals.forward import run_behind
from llmpatch.evals.stats import Interval, median
from llmpatch.prefix import Rows, head_logits, prefix_cache, repeat_cache
from llmpatch.progress import Progress, Silent

if TYPE_CHECKING:
    from llmpatch.bases import Base


@dataclass(frozen=True)
class Latency:
    """Times of one request at a time, in milliseconds (medians), and ratios patched / base.

    Attributes:
        runs: Pairs of runs.
        tokens: Tokens generated per run.
        first_ms: Time to the first token, of the base and patched.
        token_ms: Time per further token, of the base and patched.
        first_ratio: Median of the pairs' ratios.
        token_ratio: The same per further token.
    """

    runs: int
    tokens: int
    first_ms: tuple[float, float]
    token_ms: tuple[float, float]
    first_ratio: Interval
    token_ratio: Interval

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        found = asdict(self) | {"first_ratio": self.first_ratio.json(), "token_ratio": self.token_ratio.json()}
        for key in ("first_ms", "token_ms"):
            found[key] = {"base": round(found[key][0], 4), "patched": round(found[key][1], 4)}
        return found


def measure_latency(
    base: Base,
    prefix: Rows | None,
    prompts: Sequence[str],
    *,
    patched: Base | None = None,
    new_tokens: int = 24,
    repeats: int = 3,
    progress: Progress | None = None,
) -> Latency:
    """Time greedy decoding of a fixed number of tokens, whatever they are.

    Args:
        base: The model.
        prefix: [n, hidden_size], or ``None``.
        prompts: A few ordinary requests.
        patched: The model behind the prefix, where it is not ``base`` (a LoRA).
        new_tokens: Tokens per run, at least two.
        repeats: Runs of each prompt.
        progress: Where to show progress.

    Raises:
        UsageError: no prompts, fewer than two tokens, or a prompt that does not fit the context.
    """
    import torch

    if not prompts or new_tokens < 2 or repeats < 1:
        raise UsageError("latency needs a prompt, two tokens and one repeat", hint="raise the limits")
    ids = [base.chat_ids(prompt) for prompt in prompts]
    past = 0 if prefix is None else len(prefix)
    if max(map(len, ids)) + new_tokens + past > base.context:
        raise UsageError(f"a prompt does not fit the context of {base.context}", hint="shorten it")
    other = patched or base
    first: list[list[float]] = [[], []]
    later: list[list[float]] = [[], []]
    with (progress or Silent()).stage("Latency", repeats * len(ids)) as advance, torch.no_grad():
        sides = [(base, None, 0), (other, prefix_cache(other, prefix, []), past)]
        for model, cache, offset in sides:
            _run(model, ids[0], cache, offset, new_tokens)
        for turn in range(repeats * len(ids)):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            for side in order:
                model, cache, offset = sides[side]
                start, rest = _run(model, ids[turn % len(ids)], cache, offset, new_tokens)
                first[side].append(start * 1000)
                later[side].append(rest * 1000 / (new_tokens - 1))
            advance(1)
    ratios = [median([b / a for a, b in zip(*times, strict=True)]) for times in (first, later)]
    middle = [(statistics.median(times[0]), statistics.median(times[1])) for times in (first, later)]
    return Latency(len(first[0]), new_tokens, middle[0], middle[1], ratios[0], ratios[1])


def _run(base: Base, ids: list[int], shared: Any, past: int, new_tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and of all further ones together."""
    import torch

    started = time.perf_counter()
    hidden, cache = run_behind(base, torch.tensor([ids]), repeat_cache(shared, 1), past)
    token = int(head_logits(base, hidden[:, -1]).argmax())
    middle = time.perf_counter()
    past += len(ids)
    for step in range(new_tokens - 1):
        hidden, cache = run_behind(base, torch.tensor([[token]]), cache, past + step)
        token = int(head_logits(base, hidden[:, -1]).argmax())
    return middle - started, time.perf_counter() - middle
