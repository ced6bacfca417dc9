"""Sampling from a base, with or without a prefix, in left-padded batches that share one prefix cache.

    for index, answers in generate(base, ["Hello!"], prefix=rows, decoding=DecodingSection()):
        print(answers[0].text)

The loop is ours because PEFT's ``generate`` is silently wrong on transformers >= 5.24 and because every request here
starts from the same cache: the prefix and the constant start of the chat template are computed once per call. Finished
rows leave the batch. A row's random numbers depend on the seed and its own index only, never on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.answers import Answer
from llmpatch.bases import Base
from llmpatch.errors import UsageError
from llmpatch.nucleus import draw, tempered
from llmpatch.prefix import Rows, backbone, common_head, head_logits, prefix_cache, repeat_cache

if TYPE_CHECKING:
    import torch

    from llmpatch.recipe import DecodingSection

BATCH_SIZE = 32
# Positions that the rows of a batch hold between them: keys and values of 32 rows of 1,024 are 1.5 GB in a 135M model.
BATCH_POSITIONS = 32_768
# A small model leaves a GPU idle between its kernels: eight times the rows take it little longer.
GPU_TIMES = 8


@dataclass
class _Row:
    """One sample being written."""

    index: int
    sample: int
    ids: list[int]
    new: list[int]
    random: Any


def generate(
    base: Base,
    prompts: Sequence[str],
    *,
    decoding: DecodingSection,
    prefix: Rows | None = None,
    system: str | None = None,
    raw: bool = False,
    samples: int = 1,
    batch_size: int = BATCH_SIZE,
    keys: Sequence[int] | None = None,
) -> Iterator[tuple[int, list[Answer]]]:
    """Answer prompts, shortest first.

    Args:
        base: The model.
        prompts: What the user says; with ``raw``, text to continue as it stands.
        decoding: Length, temperature (0 is greedy), nucleus and seed.
        prefix: Rows [n, hidden_size] or ``None``.
        system: A system message instead of the template's own (the safe-prompt baseline).
        raw: Continue the text instead of answering through the chat template.
        samples: Answers per prompt.
        batch_size: Rows at a time, on a GPU ``GPU_TIMES`` as many.
        keys: One number below 2**32 per prompt, in the place of its index in its seed: then its samples stay the same
            whatever else is asked for.

    Yields:
        ``(index of the prompt, its answers)`` as prompts finish, each once.

    Raises:
        UsageError: a prompt that does not fit the context together with prefix and answer.
    """
    ids = [base.prompt_ids(p, system, raw=raw) for p in prompts]
    yield from generate_ids(
        base, ids, decoding=decoding, prefix=prefix, samples=samples, batch_size=batch_size, keys=keys, raw=raw
    )


def generate_ids(
    base: Base,
    ids: Sequence[list[int]],
    *,
    decoding: DecodingSection,
    prefix: Rows | None = None,
    samples: int = 1,
    batch_size: int = BATCH_SIZE,
    keys: Sequence[int] | None = None,
    until: Sequence[str] = (),
    raw: bool = False,
) -> Iterator[tuple[int, list[Answer]]]:
    """:func:`generate` on token ids, for callers with a form of their own.

    Args:
        base: The model.
        ids: Token ids of each prompt.
        decoding: As for :func:`generate`.
        prefix: As for :func:`generate`.
        samples: As for :func:`generate`.
        batch_size: As for :func:`generate`; fewer rows where they are long, or where a GPU has little memory left for them.
        keys: As for :func:`generate`.
        until: An answer ends before the first of these texts in it.
        raw: An answer goes on where its prompt ends: with the space between, where there is one.

    Yields:
        As :func:`generate`.

    Raises:
        UsageError: a prompt that is empty or does not fit the context together with prefix and answer.
    """
    import torch

    from llmpatch.roomy_cache import free_bytes, sizes_of

    room = base.context - decoding.max_new_tokens - (0 if prefix is None else len(prefix))
    for index, sequence in enumerate(ids):
        if len(sequence) > room or not sequence:
            raise UsageError(
                f"prompt {index + 1} has {len(sequence)} tokens; between 1 and {room} fit the context of {base.context}",
                hint="shorten the prompt or max_new_tokens",
            )
    head = common_head(list(ids)) if len(ids) > 1 else []
    with torch.no_grad():
        shared = prefix_cache(base, prefix, head)
    offset = (0 if prefix is None else len(prefix)) + len(head)
    rows = [
        _Row(i, k, ids[i][len(head) :], [], _generator(decoding, keys[i] if keys else i, k))
        for i in range(len(ids))
        for k in range(samples)
    ]
    rows.sort(key=lambda row: len(row.ids))
    waiting: dict[int, dict[int, Answer]] = {}
    stops = tuple(text for text in until if text)
    times = 1 if base.device.type == "cpu" else GPU_TIMES
    window = min((found for found in base.windows if found), default=None)
    more, most = offset + decoding.max_new_tokens, BATCH_POSITIONS * times
    sizes, free = sizes_of(base.model.config, base.model.dtype.itemsize), free_bytes(base.device)

    def fits(count: int, long: int) -> bool:
        # Where a base is sharded all processes must cut alike, and each sees another amount of free memory.
        return count * long <= most and (base.sharded or sizes.batch(count, long) <= free)

    for part in _batches(rows, batch_size * times, more, fits, window):
        for row, answer in _decode(base, part, shared, offset, decoding, stops, raw):
            done = waiting.setdefault(row.index, {})
            done[row.sample] = answer
            if len(done) == samples:
                yield row.index, [done[k] for k in range(samples)]


def _batches(
    rows: Sequence[_Row], size: int, more: int, fits: Callable[[int, int], bool], window: int | None = None
) -> Iterator[list[_Row]]:
    """Rows, shortest first, in batches of at most ``size`` that fit: so many rows of so many positions, ``more`` among them.

    A row that does not fit by itself is tried alone: what it takes is an estimate.

    Beyond a ``window`` rows of one length stand together: a layer that sees the latest places only would count padding among
    them, and a short row would no longer see what stands before it.
    """
    part: list[_Row] = []
    for row in rows:
        long = len(row.ids) + more
        apart = bool(part and window and long > window and len(row.ids) > len(part[-1].ids))
        if part and (apart or len(part) == size or not fits(len(part) + 1, long)):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _generator(decoding: DecodingSection, index: int, sample: int) -> torch.Generator | None:
    import torch

    if decoding.temperature == 0:
        return None
    return torch.Generator().manual_seed((decoding.seed * 1_000_003 + index) * 1_009 + sample)


def _decode(
    base: Base, rows: list[_Row], shared: Any, offset: int, decoding: DecodingSection, stops: Sequence[str], raw: bool
) -> Iterator[tuple[_Row, Answer]]:
    """Write the answers of one batch; each row is yielded when it ends."""
    import torch
    from transformers import DynamicCache

    from llmpatch.roomy_cache import with_room

    width = max(len(row.ids) for row in rows)
    # Samples of one prompt stand side by side: its tokens are read once for all of them.
    places: dict[tuple[int, ...], int] = {}
    source = [places.setdefault(tuple(row.ids), len(places)) for row in rows]
    ids = torch.tensor([[0] * (width - len(own)) + list(own) for own in places])
    mask = torch.tensor([[1] * offset + [0] * (width - len(own)) + [1] * len(own) for own in places])
    repeated = DynamicCache(config=base.model.config) if shared is None else repeat_cache(shared, len(places))
    cache = with_room(repeated, decoding.max_new_tokens)
    stop = set(base.eos_ids)
    alive = list(rows)
    for step in range(decoding.max_new_tokens):
        with torch.no_grad():
            hidden = _forward(base, ids, mask, cache)
            logits = head_logits(base, hidden[:, -1]).float()
        if step == 0 and len(places) < len(rows):
            index = torch.tensor(source)
            cache.batch_select_indices(index)
            mask, logits = mask[index], logits[index]
        tokens = _choose(logits, alive, decoding)
        for row, token in zip(alive, tokens, strict=True):
            if token not in stop:
                row.new.append(token)
        last = step == decoding.max_new_tokens - 1
        ended = [token in stop or _says(base, row, stops) for token, row in zip(tokens, alive, strict=True)]
        keep = [i for i in range(len(alive)) if not ended[i] and not last]
        for i, row in enumerate(alive):
            if i not in keep:
                said = base.continuation(row.ids, row.new) if raw else base.decode(row.new)
                yield row, Answer(_cut(said, stops), "stop" if ended[i] else "length")
        if not keep:
            return
        if len(keep) < len(alive):
            index = torch.tensor(keep)
            cache.batch_select_indices(index)
            mask, alive = mask[index], [alive[i] for i in keep]
        ids = torch.tensor([[tokens[i]] for i in keep])
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)


def _says(base: Base, row: _Row, stops: Sequence[str]) -> bool:
    """Whether the last tokens of a row say one of the texts that end it.

    A token holds a byte at least, so a text that is complete only now lies within as many tokens as it has bytes; eight
    more, since some tokenizers decode the start of a sequence otherwise.
    """
    if not stops:
        return False
    tail = base.decode(row.new[-(max(len(text.encode()) for text in stops) + 8) :])
    return any(text in tail for text in stops)


def _cut(text: str, stops: Sequence[str]) -> str:
    """What stands before the first of the texts that end an answer."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text


def _forward(base: Base, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
    """Hidden states of new tokens [B, T] behind a cache; positions come from the mask, so left padding is harmless."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output = backbone(base)(
        input_ids=ids.to(base.device),
        attention_mask=mask.to(base.device),
        position_ids=positions.to(base.device),
        use_cache=True,
        **{base.cache_keyword: cache},
    )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def _choose(logits: torch.Tensor, rows: Sequence[_Row], decoding: DecodingSection) -> list[int]:
    """The next token of each row: the likeliest, or one drawn with the row's own generator."""
    if decoding.temperature == 0:
        found: list[int] = logits.argmax(-1).tolist()
        return found
    return draw(tempered(logits, decoding.temperature), decoding.top_p, [row.random for row in rows])
