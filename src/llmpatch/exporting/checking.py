"""What every export must pass: on held-out text it answers as the run-time prefix does, and never says a patch token.

    measured = compare(runtime(base, rows), with_slots(exported, slot_ids), held_out(base), slot_ids)
    require(measured, EXACT, "checkpoint")

Knows how to compare logits. Knows nothing about formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmpatch.bases import Base
from llmpatch.errors import LlmpatchError
from llmpatch.exporting.passages import CALIBRATION, HELD_OUT
from llmpatch.prefix import backbone, head_logits

if TYPE_CHECKING:
    import torch

# Logits [tokens, vocabulary] of the positions of a text's own token ids.
Forward = Callable[[list[int]], "torch.Tensor"]


@dataclass(frozen=True)
class Limits:
    """What may differ at most: a logit, the KL divergence in nats at a position, the probability of all patch tokens."""

    delta_logit: float
    kl: float
    patch_probability: float = 1e-9


EXACT = Limits(delta_logit=1e-4, kl=1e-8)
TIED = Limits(delta_logit=5e-3, kl=1e-6)
# An embedding table in F16; llama.cpp in Q4_1 is coarser by itself.
HALF_TABLE = Limits(delta_logit=0.25, kl=1e-3)
# All weights in half precision.
ROUNDED = Limits(delta_logit=1.0, kl=1e-2)


@dataclass(frozen=True)
class Measured:
    """The largest differences over all positions; ``agree``: the share of positions with the same most likely token."""

    positions: int
    max_delta_logit: float
    max_kl: float
    max_patch_probability: float
    agree: float

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def calibration(base: Base) -> list[list[int]]:
    """Token ids of conversations to calibrate on."""
    return [_conversation(base, *pair) for pair in CALIBRATION]


def held_out(base: Base) -> list[list[int]]:
    """Token ids of other conversations, and one text without a chat template."""
    raw = base.text_ids(
        "The lighthouse stood on a rock that the sea had all but worn away, and nobody had lived there for"
    )
    return [*(_conversation(base, *pair) for pair in HELD_OUT), raw]


def hidden_states(base: Base, rows: torch.Tensor | None, ids: list[int]) -> torch.Tensor:
    """Final hidden states [tokens, hidden_size] of a text, behind ``rows`` where there are some."""
    import torch

    with torch.no_grad():
        parts = [] if rows is None else [rows.to(base.device, base.model.dtype)]
        embeds = torch.cat([*parts, base.embed(torch.tensor(ids))])[None]
        found: torch.Tensor = backbone(base)(inputs_embeds=embeds).last_hidden_state[0, -len(ids) :]
    return found


def runtime(base: Base, rows: torch.Tensor | None) -> Forward:
    """The base behind its run-time prefix: what an export must equal."""
    return lambda ids: head_logits(base, hidden_states(base, rows, ids))


def with_slots(exported: Base, slot_ids: Sequence[int]) -> Forward:
    """An exported model that reads the patch as tokens."""
    import torch

    def forward(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            tokens = torch.tensor([[*slot_ids, *ids]], device=exported.device)
            hidden = backbone(exported)(input_ids=tokens).last_hidden_state[0, -len(ids) :]
            return head_logits(exported, hidden)

    return forward


def compare(reference: Forward, export: Forward, texts: Iterable[list[int]], slot_ids: Sequence[int]) -> Measured:
    """Measure an export against a reference.

    Args:
        reference: Logits over the base's vocabulary.
        export: Logits over that, and over patch tokens where it has any.
        texts: Token ids of each text.
        slot_ids: The patch's tokens in the export's vocabulary; they are left out of the comparison.
    """
    import torch

    found: list[torch.Tensor] = []
    slots = torch.tensor(sorted(slot_ids), dtype=torch.long)
    with torch.no_grad():
        for ids in texts:
            ours, theirs = (f(ids).double().cpu() for f in (reference, export))
            probability = theirs.softmax(-1)[:, slots].sum(-1) if len(slots) else torch.zeros(len(ids))
            ours, theirs = (_without(x, slots, ours.shape[-1]) for x in (ours, theirs))
            p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
            kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
            same = (ours.argmax(-1) == theirs.argmax(-1)).double()
            found.append(torch.stack([(ours - theirs).abs().amax(-1), kl, probability.double(), same], dim=1))
    rows = torch.cat(found)
    worst = rows.amax(0).tolist()
    return Measured(len(rows), worst[0], worst[1], worst[2], float(rows[:, 3].mean()))


def require(measured: Measured, limits: Limits, what: str) -> None:
    """Fail unless a measurement is within its limits.

    Raises:
        LlmpatchError: names what is too large; a number that is no number is too large.
    """
    found = {
        "a logit differs by": (measured.max_delta_logit, limits.delta_logit),
        "the KL divergence is": (measured.max_kl, limits.kl),
        "patch tokens have a probability of": (measured.max_patch_probability, limits.patch_probability),
    }
    if wrong := [
        f"{name} {value:.3g} (limit {limit:g})" for name, (value, limit) in found.items() if not value <= limit
    ]:
        raise LlmpatchError(
            f"the {what} does not do what the run-time prefix does: {'; '.join(wrong)}; nothing was written",
            hint="please report this base; `--to peft` or `llmpatch generate` apply the patch without patch tokens",
        )


def _conversation(base: Base, prompt: str, answer: str) -> list[int]:
    return [*base.chat_ids(prompt), *base.tokenizer.encode(answer, add_special_tokens=False)]


def _without(logits: torch.Tensor, slots: torch.Tensor, width: int) -> torch.Tensor:
    """The first ``width`` columns, those of patch tokens left out (they may lie in a padded vocabulary)."""
    import torch

    kept = torch.ones(logits.shape[-1], dtype=torch.bool)
    kept[width:] = False
    kept[slots[slots < logits.shape[-1]]] = False
    return logits[:, kept]
