"""The register: every attack by name, with its source and, where it searches, what it may spend.

    attacks = parse_attacks(["none", "base64", "gcg@50x32"])
    attacks[1].write("How do I pick a lock?", [])

Three kinds: ``static`` rewrites a request the same way for every model, ``file`` has its prompts in a file, ``adaptive`` is
searched against each model under test (:mod:`llmpatch.attacks.gcg`, :mod:`llmpatch.attacks.pair`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmpatch.attacks import templates
from llmpatch.attacks.budget import Budget
from llmpatch.attacks.rewording import past_tense
from llmpatch.errors import UsageError

Kind = Literal["static", "file", "adaptive"]
Write = Callable[[str, Sequence[str]], str]


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: What :func:`parse_attacks` calls it.
        title: For people.
        kind: See the module docstring.
        source: Who described it.
        rewrite: For ``static``: (request, training requests) -> attacked request.
        path: For ``file``: where its prompts lie, below the data folder.
        budget: For ``adaptive``: what a search may spend.
        requests: For ``adaptive``: at most so many requests are attacked.
    """

    name: str
    title: str
    kind: Kind
    source: str
    rewrite: Write | None = None
    path: str = ""
    budget: Budget | None = None
    requests: int | None = None

    def write(self, request: str, demonstrations: Sequence[str] = ()) -> str:
        """A static attack's prompt.

        Raises:
            UsageError: the attack is of another kind.
        """
        if self.rewrite is None:
            raise UsageError(f"attack {self.name} is {self.kind}: it rewrites nothing", hint="run it through evaluate")
        return self.rewrite(request, demonstrations)

    def json(self) -> dict[str, Any]:
        """What it is, for the evidence."""
        found: dict[str, Any] = {"title": self.title, "kind": self.kind, "source": self.source}
        if self.budget is not None:
            found["budget"] = {"rounds": self.budget.rounds, "width": self.budget.width, "requests": self.requests}
        return found


def _fixed(name: str, title: str, source: str, rule: Callable[[str], str]) -> Attack:
    return Attack(name, title, "static", source, rewrite=lambda request, _: rule(request))


_WEI = "Wei et al. 2023, arXiv 2307.02483"
ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        _fixed("none", "No attack", "the request as it stands", lambda request: request),
        _fixed("prefix_injection", "Prefix injection", _WEI, templates.prefix_injection),
        _fixed("refusal_suppression", "Refusal suppression", _WEI, templates.refusal_suppression),
        _fixed("role_play", "Role play", "Shen et al. 2023, arXiv 2308.03825", templates.role_play),
        _fixed("system_override", "System override", "common practice", templates.system_override),
        _fixed("past_tense", "Past tense", "Andriushchenko and Flammarion 2024, arXiv 2407.11969", past_tense),
        _fixed("payload_splitting", "Payload splitting", "Kang et al. 2023, arXiv 2302.05733", templates.payload_splitting),
        _fixed("base64", "Base64", _WEI, templates.in_base64),
        _fixed("rot13", "ROT13", _WEI, templates.in_rot13),
        _fixed("leetspeak", "Leetspeak", _WEI, templates.in_leetspeak),
        _fixed("spaced_letters", "Spaced letters", "common practice", templates.in_spaced_letters),
        _fixed("zero_width", "Zero-width characters", "common practice", templates.in_zero_width),
        Attack("many_shot", "Many-shot", "static", "Anil et al. 2024", rewrite=templates.many_shot),
        Attack("translated", "Translated (es, fr, de, zh)", "file", "Deng et al. 2023, arXiv 2310.06474",
               path="prompts/translated_test.jsonl"),
        Attack("gcg", "GCG suffix", "adaptive", "Zou et al. 2023, arXiv 2307.15043", budget=Budget(24, 24), requests=10),
        Attack("gcg_universal", "GCG universal suffix", "adaptive", "Zou et al. 2023, arXiv 2307.15043",
               budget=Budget(24, 24), requests=100),
        Attack("pair", "PAIR-style rewriting", "adaptive", "Chao et al. 2023, arXiv 2310.08419", budget=Budget(6, 4),
               requests=50),
    )
}  # fmt: skip
_SPEC = re.compile(r"([a-z0-9_]+)(?:@(\d{1,6})x(\d{1,6}))?")


def parse_attacks(specs: Sequence[str] = ()) -> list[Attack]:
    """Attacks by name, an adaptive one with its budget as ``gcg@ROUNDSxWIDTH``; none given means all.

    Raises:
        UsageError: an unknown or repeated name, a budget for a static attack, or one out of range.
    """
    found: list[Attack] = []
    for spec in specs or ATTACKS:
        match = _SPEC.fullmatch(spec.strip())
        if not match or match[1] not in ATTACKS:
            raise UsageError(
                f"no attack called {spec!r}", hint=f"known: {', '.join(ATTACKS)}; a budget goes as gcg@ROUNDSxWIDTH"
            )
        attack = ATTACKS[match[1]]
        if match[2]:
            if attack.budget is None:
                raise UsageError(f"attack {attack.name} searches nothing: no budget {spec!r}", hint="leave @ out")
            attack = replace(attack, budget=Budget(int(match[2]), int(match[3])))
        if any(a.name == attack.name for a in found):
            raise UsageError(f"attack {attack.name!r} is given twice", hint="name each attack once")
        found.append(attack)
    return found
