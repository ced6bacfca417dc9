"""How likely a system finds text behind text, and which words it would say next. No sampling, no chat template.

    log_probs(base, None, [start_ids(base)], [[504, 2933]])          # [-14.2], summed over the tokens
    next_token_shares(base, rows, ["My friend is a nurse, and"], {"she": 1041, "he": 384})   # [{"she": .31, "he": .07}]

Knows tokens; nothing about what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmpatch.batching import Example, make_batch
from llmpatch.errors import UsageError
from llmpatch.evals.reading import open_reader, score_texts
from llmpatch.losses import hidden_states
from llmpatch.prefix import Rows, common_head, head_logits

if TYPE_CHECKING:
    from llmpatch.bases import Base

_NEXT_ROWS = 32


def start_ids(base: Base) -> list[int]:
    """What a text's first token is predicted from: what the tokenizer puts before text, or its BOS or EOS token.

    This is what lm-evaluation-harness does where a context is empty.

    Raises:
        UsageError: the tokenizer has none of them.
    """
    plain, special = base.tokenizer.encode("a", add_special_tokens=False), base.text_ids("a")
    if len(special) > len(plain) and special[0] != plain[0]:
        return special[: special.index(plain[0])]
    for token in (base.tokenizer.bos_token_id, base.tokenizer.eos_token_id):
        if token is not None:
            return [int(token)]
    raise UsageError(f"the tokenizer of {base.name} has no token to start a text with", hint="set its bos_token")


def log_probs(
    base: Base, prefix: Rows | None, contexts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> list[float]:
    """Summed log-probability of each text behind its context; 0.0 for an empty text.

    Args:
        base: The model.
        prefix: Virtual tokens [n, hidden_size], or ``None``.
        contexts: Token ids, at least one each.
        texts: Token ids, as many rows as ``contexts``.

    Raises:
        UsageError: not as many texts as contexts, an empty context, or rows that do not fit the model's context.
    """
    if len(contexts) != len(texts):
        raise UsageError(f"{len(contexts)} contexts and {len(texts)} texts", hint="give one text per context")
    _check(base, prefix, contexts, [len(c) + len(t) for c, t in zip(contexts, texts, strict=True)])
    return [score.log_prob for score in score_texts(open_reader(base, prefix), contexts, texts)]


def next_token_shares(
    base: Base, prefix: Rows | None, texts: Sequence[str], words: Mapping[str, int]
) -> list[dict[str, float]]:
    """Probability of some tokens right behind each text.

    Args:
        base: The model.
        prefix: Virtual tokens [n, hidden_size], or ``None``.
        texts: Plain text.
        words: Token ids by name.

    Returns:
        One probability per name and text.

    Raises:
        UsageError: an empty text, or one that does not fit the model's context.
    """
    import torch

    ids = [base.text_ids(text) for text in texts]
    _check(base, prefix, ids, [len(row) + 1 for row in ids])
    head = common_head(ids) if len(ids) > 1 else []
    wanted = torch.tensor(list(words.values()), dtype=torch.long)
    found: list[dict[str, float]] = [{} for _ in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), _NEXT_ROWS):
        part = order[start : start + _NEXT_ROWS]
        # The one token of the "answer" stands for the place where the next word is predicted; which one is no matter.
        rows = [Example("everyday", tuple(ids[i][len(head) :]), (0,), ()) for i in part]
        batch = make_batch(rows, past=_past(prefix, head), answer_tokens=1, rejected=False)
        with torch.no_grad():
            logits = head_logits(base, hidden_states(base, prefix, head, batch)).float()
            shares = logits.softmax(-1).cpu()[:, wanted]
        for row, i in enumerate(part):
            found[i] = dict(zip(words, map(float, shares[row]), strict=True))
    return found


def _past(prefix: Rows | None, head: Sequence[int]) -> int:
    return (0 if prefix is None else len(prefix)) + len(head)


def _check(base: Base, prefix: Rows | None, contexts: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    room = base.context - _past(prefix, ())
    for number, (context, length) in enumerate(zip(contexts, lengths, strict=True), start=1):
        if not context or length > room:
            raise UsageError(
                f"text {number} has {length} tokens; between 1 and {room} fit the context of {base.context}",
                hint="shorten it, or leave it out if it is empty",
            )
