"""How well answers read: perplexity under the untouched base, repetition, loops, and what a prefix costs on plain text.

    answer_losses(base, ["Hello!"], ["Hi there."])           # [(summed loss, tokens)]
    wikitext_perplexity(base, rows, text).ratio              # patched / base, 1.0 is free
    trigram_overlap("again and again and again and again")   # 0.67

Knows tokens and words of one answer; nothing about harm or refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.batching import Example, make_batch
from llmpatch.errors import UsageError
from llmpatch.evals.forward import run_behind
from llmpatch.evals.stats import Interval, ratio
from llmpatch.losses import answer_log_probs, hidden_states
from llmpatch.prefix import Rows, common_head, prefix_cache, repeat_cache
from llmpatch.progress import Progress, Silent

if TYPE_CHECKING:
    import torch

    from llmpatch.bases import Base

WINDOW_TOKENS = 512
LOOP_OVERLAP = 0.5
LOOP_TRIGRAMS = 12
ANSWER_TOKENS = 256
_ROWS = 8
_POSITIONS = 256  # logits at a time: 256 x 49,152 floats are 50 MB


@dataclass(frozen=True)
class Perplexities:
    """Perplexity of the same tokens without and with a prefix.

    Attributes:
        tokens: How many were predicted.
        windows: In how many windows.
        base: Without the prefix.
        patched: With it.
        ratio: patched / base, resampled over windows.
    """

    tokens: int
    windows: int
    base: float
    patched: float
    ratio: Interval

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        plain = {"tokens": self.tokens, "windows": self.windows, "base": self.base, "patched": self.patched}
        return {**plain, "ratio": self.ratio.json()}


def answer_losses(base: Base, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int]]:
    """Summed negative log-likelihood and token count of each answer under the base, behind its chat prompt.

    Answers are cut to 256 tokens; an empty one is ``(0.0, 0)``. The end of turn is not counted.

    Raises:
        UsageError: not as many prompts as answers, or a prompt that does not fit the context.
    """
    import torch

    if len(prompts) != len(answers):
        raise UsageError(f"{len(prompts)} prompts and {len(answers)} answers", hint="give one prompt per answer")
    asked = [base.chat_ids(prompt) for prompt in prompts]
    said = [base.tokenizer.encode(answer, add_special_tokens=False)[:ANSWER_TOKENS] for answer in answers]
    if asked and (longest := max(len(a) + len(s) for a, s in zip(asked, said, strict=True))) > base.context:
        raise UsageError(f"prompt and answer have {longest} tokens, the context {base.context}", hint="shorten them")
    head = common_head(asked) if len(asked) > 1 else []
    found: list[tuple[float, int]] = [(0.0, 0)] * len(prompts)
    order = sorted((i for i in range(len(prompts)) if said[i]), key=lambda i: len(asked[i]) + len(said[i]))
    for start in range(0, len(order), _ROWS):
        part = order[start : start + _ROWS]
        rows = [Example("everyday", tuple(asked[i][len(head) :]), tuple(said[i]), ()) for i in part]
        batch = make_batch(rows, past=len(head), answer_tokens=ANSWER_TOKENS, rejected=False)
        with torch.no_grad():
            log_probs = _in_chunks(base, hidden_states(base, None, head, batch), batch.targets)
        for row, i in enumerate(part):
            mine = log_probs[batch.owner == 2 * row]
            found[i] = (-float(mine.double().sum()), len(mine))
    return found


def wikitext_perplexity(
    base: Base,
    prefix: Rows | None,
    text: str,
    *,
    patched: Base | None = None,
    window_tokens: int = WINDOW_TOKENS,
    limit_tokens: int | None = None,
    progress: Progress | None = None,
) -> Perplexities:
    """Perplexity of raw text without and with a prefix before each window.

    Both see the same windows and are scored on the same tokens. A window starts with what the tokenizer puts before
    text (one BOS, or nothing); without a BOS its first token is context only.

    Args:
        base: The model.
        prefix: [n, hidden_size], or ``None``.
        text: Raw text; what does not fill a window is left out.
        patched: The model behind the prefix, where it is not ``base`` (a LoRA).
        window_tokens: Tokens of text per window.
        limit_tokens: Read no more than so many tokens.
        progress: Where to show progress.

    Raises:
        UsageError: a window that does not fit the context, or a text without a whole window.
    """
    import torch

    start = _start_ids(base)
    length = len(start) + window_tokens + (0 if prefix is None else len(prefix))
    if window_tokens < 2 or length > base.context:
        raise UsageError(f"a window of {length} tokens, the context has {base.context}", hint="use a smaller window")
    ids = base.tokenizer.encode(text, add_special_tokens=False)[:limit_tokens]
    windows = [ids[i : i + window_tokens] for i in range(0, len(ids) - window_tokens + 1, window_tokens)]
    if not windows:
        raise UsageError(f"the text has {len(ids)} tokens, less than a window of {window_tokens}", hint="use more text")
    sums: list[list[float]] = [[], []]
    with (progress or Silent()).stage("Perplexity of plain text", len(windows)) as advance, torch.no_grad():
        shared = [prefix_cache(base, None, []), prefix_cache(patched or base, prefix, [])]
        pasts = [0, 0 if prefix is None else len(prefix)]
        for window in windows:
            row = torch.tensor([start + window])
            for side, model in enumerate((base, patched or base)):
                hidden, _ = run_behind(model, row, repeat_cache(shared[side], 1), pasts[side])
                skip = 0 if start else 1
                predictor = hidden[0, max(len(start) - 1, 0) : -1]
                targets = torch.tensor(window[skip:])
                sums[side].append(-float(_in_chunks(model, predictor, targets).double().sum()))
            advance(1)
    count = [float(window_tokens - (0 if start else 1))] * len(windows)
    plain, with_prefix = (ratio(side, count, exponent=True).value for side in sums)
    change = ratio([b - a for a, b in zip(*sums, strict=True)], count, exponent=True)
    return Perplexities(int(sum(count)), len(windows), plain, with_prefix, change)


def trigram_overlap(text: str) -> float:
    """Repetition within one answer: 1 - distinct word trigrams / all word trigrams; 0 below three words."""
    trigrams = _trigrams(text)
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def distinct(texts: Sequence[str], size: int) -> float:
    """Variety of several texts: distinct word n-grams / all of them (Li et al. 2016); 1 where there are none.

    Args:
        texts: Continuations of one prompt.
        size: n.
    """
    found: list[tuple[str, ...]] = []
    for text in texts:
        words = text.lower().split()
        found += zip(*(words[i:] for i in range(size)), strict=False)
    return len(set(found)) / len(found) if found else 1.0


def loops(text: str) -> bool:
    """Whether an answer turns in circles: its last words stand there three times running, or half of it repeats."""
    words = text.lower().split()
    for size in range(1, min(24, len(words) // 3) + 1):
        tail = words[-size:]
        # "no, no, no" is speech; a loop is at least six words long.
        repeats = 3 if size >= 2 else 6
        if len(words) >= size * repeats and words[-size * repeats :] == tail * repeats:
            return True
    trigrams = _trigrams(text)
    return len(trigrams) >= LOOP_TRIGRAMS and trigram_overlap(text) >= LOOP_OVERLAP


def _trigrams(text: str) -> list[tuple[str, str, str]]:
    words = text.lower().split()
    return list(zip(words, words[1:], words[2:], strict=False))


def _start_ids(base: Base) -> list[int]:
    """What the tokenizer puts before raw text: usually one BOS or nothing."""
    with_special = base.text_ids("a")
    plain = base.tokenizer.encode("a", add_special_tokens=False)
    for start in range(len(with_special) - len(plain) + 1):
        if with_special[start : start + len(plain)] == plain:
            return list(with_special[:start])
    return []


def _in_chunks(base: Base, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, a bounded number of positions at a time: [N, d], [N] -> [N]."""
    import torch

    starts = range(0, len(targets), _POSITIONS)
    parts = [slice(start, start + _POSITIONS) for start in starts]
    return torch.cat([answer_log_probs(base, hidden[part], targets[part]).cpu() for part in parts])
