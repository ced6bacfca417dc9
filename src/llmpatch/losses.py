"""The losses of prompt tuning, on hidden states, with logits only where a loss needs them.

log_probs = answer_log_probs(base, hidden, targets)     # [N], one per answer token
loss = dpo_loss(policy, reference, beta=0.1)            # Rafailov et al. 2023, Eq. 7
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.batching import Batch, Example, make_batch
from llmpatch.errors import UsageError
from llmpatch.prefix import Rows, backbone, expand_cache, head_logits, prefix_cache

if TYPE_CHECKING:
    import torch

    from llmpatch.training_recipe import KL


def hidden_states(base: Base, rows: Rows | None, head: list[int], batch: Batch) -> torch.Tensor:
    """Final hidden states behind every answer token of a batch.

    The prefix and head are run once, with gradients to ``rows`` if they require them, and shared by all rows; short
    rows run apart from long ones where that saves padding.

    Args:
        base: The model.
        rows: Prefix [n, hidden_size], several side by side, or ``None`` for the base alone.
        head: Ids that stand between the prefix and every row.
        batch: Rows laid out for ``past = n + len(head)``.

    Returns:
        [N, hidden_size], in the order of ``batch.targets``.
    """
    import torch

    cache = prefix_cache(base, rows, head)
    parts, places = [], []
    # A GPU does the padding of a small model for nothing, and waits for the launches of each further pass.
    # A base that is spread over processes must run equally often in each of them, whatever lengths their rows have.
    together = base.device.type != "cpu" or base.sharded
    for members in [list(range(batch.rows))] if together else split_by_length(batch.lengths):
        hidden = _run(base, cache, batch, members)
        local = torch.full((batch.rows,), -1)
        local[members] = torch.arange(len(members))
        where = (local[batch.sources[:, 0]] >= 0).nonzero()[:, 0]
        parts.append(hidden[local[batch.sources[where, 0]], batch.sources[where, 1]])
        places.append(where)
    order = torch.cat(places).argsort().to(parts[0].device)
    return torch.cat(parts)[order]


def attention_masks(base: Base, batch: Batch, members: Sequence[int], width: int, past: int) -> Any:
    """Where the queries of some rows may look, as a model takes it: [len(members), 1, width, columns], added to attention.

    A model some of whose layers see only the latest tokens gets one for each kind of layer. Latest goes by position: beside a
    row's chosen answer stands the rejected one, which is no further from their prompt.

    Raises:
        UsageError: layers that see something else than the latest tokens.
    """
    import torch

    device, dtype = base.device, base.model.dtype

    def bias(allowed: torch.Tensor) -> torch.Tensor:
        # A float mask: 0 where a query may look, a very low number where not (what every attention kernel accepts).
        return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min).to(device)

    seen = batch.mask[members, :, :width, : past + width]
    if set(base.windows) == {None}:
        return bias(seen)
    if "chunked_attention" in (getattr(base.model.config.get_text_config(), "layer_types", None) or ()):
        raise UsageError(
            f"{base.name} has layers that read in chunks: training on it would be wrong", hint="choose another base"
        )
    asking = batch.positions[members, :width]
    looked_at = torch.cat([torch.arange(past).expand(len(asking), -1), asking], 1)
    distance = (asking[:, :, None] - looked_at[:, None, :])[:, None]
    kinds: dict[str, torch.Tensor] = {}
    for window in set(base.windows):
        if window is None:
            kinds["full_attention"] = bias(seen)
        else:  # whose cache holds no more of the past than the next token sees
            kinds["sliding_attention"] = bias((seen & (distance < window))[..., past - min(past, window - 1) :])
    return kinds if len(kinds) > 1 else next(iter(kinds.values()))


def _run(base: Base, cache: Any, batch: Batch, members: list[int]) -> torch.Tensor:
    """Hidden states [len(members), width, d] of some rows behind the shared cache."""
    width = max(batch.lengths[m] for m in members)
    past = batch.mask.shape[-1] - batch.mask.shape[-2]
    options: dict[str, Any] = {"use_cache": False}
    if cache is not None:
        options = {"use_cache": True, base.cache_keyword: expand_cache(base, cache, len(members))}
    hidden: torch.Tensor = backbone(base)(
        input_ids=batch.ids[members, :width].to(base.device),
        position_ids=batch.positions[members, :width].to(base.device),
        attention_mask=attention_masks(base, batch, members, width, past),
        **options,
    ).last_hidden_state
    return hidden


def split_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers in one group, or in a short and a long one when that saves a tenth of the padded tokens."""
    order = sorted(range(len(lengths)), key=lambda r: lengths[r])
    longest = lengths[order[-1]]
    costs = [k * lengths[order[k - 1]] + (len(order) - k) * longest for k in range(1, len(order))]
    if not costs or min(costs) > 0.9 * len(order) * longest:
        return [order]
    k = costs.index(min(costs)) + 1
    return [order[:k], order[k:]]


def answer_log_probs(base: Base, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target token: [N, hidden_size], [N] -> [N]."""
    import torch

    return -torch.nn.functional.cross_entropy(precise_logits(base, hidden), targets.to(hidden.device), reduction="none")


def pair_log_probs(
    base: Base,
    rows: Rows | None,
    head: list[int],
    examples: Sequence[Example],
    *,
    answer_tokens: int,
    advance: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Summed log-probabilities of the chosen and the rejected answer of each example, without gradients.

    Args:
        base: The model.
        rows: Prefix [n, hidden_size], several side by side, or ``None`` for the base alone.
        head: Ids that stand between the prefix and every prompt.
        examples: Pairs as token ids.
        answer_tokens: Where answers are cut.
        advance: Told how many are done.

    Returns:
        [len(examples), 2], on the CPU.
    """
    import torch

    past = len(head) + (len(rows) if rows is not None else 0)
    found = torch.zeros(len(examples), 2)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    for start in range(0, len(order), 16):
        part = order[start : start + 16]
        with torch.no_grad():
            batch = make_batch([examples[i] for i in part], past=past, answer_tokens=answer_tokens, rejected=True)
            hidden = hidden_states(base, rows, head, batch)
            log_probs = answer_log_probs(base, hidden, batch.targets)
            found[part] = per_answer(log_probs, batch.owner, 2 * len(part), mean=False).view(-1, 2).cpu().float()
        if advance:
            advance(len(part))
    return found


def precise_logits(base: Base, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [N, vocab_size] in float32 for what sums over the vocabulary, or in the model's own type where that is finer."""
    import torch

    logits = head_logits(base, hidden)
    return logits if logits.dtype == torch.float64 else logits.float()


def per_answer(values: torch.Tensor, owner: torch.Tensor, answers: int, *, mean: bool) -> torch.Tensor:
    """Sum or mean of token values [N] for each of ``answers`` answers -> [answers]."""
    import torch

    owner = owner.to(values.device)
    total = torch.zeros(answers, dtype=values.dtype, device=values.device).index_add(0, owner, values)
    if not mean:
        return total
    return total / torch.bincount(owner, minlength=answers).clamp(min=1)


def kl_to_base(base: Base, hidden: torch.Tensor, base_hidden: torch.Tensor, kl: KL = "forward") -> torch.Tensor:
    """KL(base || patched) over the vocabulary at each position: [N, d], [N, d] -> [N].

    The base's distribution comes from its cached hidden states: 576 numbers a position instead of 49,152.

    Args:
        base: The model.
        hidden: Of what is trained.
        base_hidden: Of what it is to be like.
        kl: ``forward``, as above; ``reverse``, KL(patched || base), which is what makes a word as rare as it is there;
            or ``both``, their sum.
    """
    import torch

    with torch.no_grad():
        target = precise_logits(base, base_hidden).log_softmax(-1)
    found = precise_logits(base, hidden).log_softmax(-1)
    ways = {"forward": [(target, found)], "reverse": [(found, target)], "both": [(target, found), (found, target)]}[kl]
    # kl_div takes KL's second distribution first.
    parts = [torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1) for p, q in ways]
    return torch.stack(parts).sum(0)


def kept_losses(
    base: Base,
    rows: Rows,
    parts: Sequence[tuple[Rows | None, Sequence[Example], KL]],
    head: list[int],
    *,
    answer_tokens: int,
) -> tuple[list[torch.Tensor], torch.Tensor, Batch]:
    """For each part the mean over its answers of KL(reference || rows) per token: what is said stays as behind a reference.

    The trained prefix runs once, whatever number of references there is.

    Args:
        base: The model.
        rows: The trained prefix, with whatever stands around it: [n, hidden_size].
        parts: Prefixes to be like, [m, hidden_size], the prompts with the answers (``chosen``) to compare on, and the direction
            of the KL (:func:`kl_to_base`). ``None`` is the base alone. No gradient flows to a reference.
        head: Ids that stand between a prefix and every row.
        answer_tokens: Answers are cut to this many tokens.

    Returns:
        The means; the hidden states behind ``rows`` [N, hidden_size], for other losses on the same answers, part after part;
        their batch.
    """
    import torch

    def states(prefix: Rows | None, examples: Sequence[Example]) -> tuple[torch.Tensor, Batch]:
        past = len(head) + (0 if prefix is None else len(prefix))
        batch = make_batch(examples, past=past, answer_tokens=answer_tokens, rejected=False)
        return hidden_states(base, prefix, head, batch), batch

    hidden, batch = states(rows, [e for _, examples, _ in parts for e in examples])
    means, start = [], 0
    for reference, examples, way in parts:
        with torch.no_grad():
            target, _ = states(reference, examples)
        kl = kl_to_base(base, hidden[start : start + len(target)], target, way)
        start += len(target)
        owner = torch.tensor([i for i, e in enumerate(examples) for _ in e.chosen[:answer_tokens]])
        means.append(per_answer(kl, owner, len(examples), mean=True).mean())
    return means, hidden, batch


def dpo_loss(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """The DPO loss per pair (Rafailov et al. 2023, Eq. 7).

    Args:
        policy: [B, 2] summed log-probabilities of (chosen, rejected) under the patched model.
        reference: [B, 2] the same under the DPO reference policy.
        beta: Temperature of the implicit reward.

    Returns:
        [B].
    """
    import torch

    margin = (policy[:, 0] - policy[:, 1]) - (reference[:, 0] - reference[:, 1])
    return -torch.nn.functional.logsigmoid(beta * margin)
