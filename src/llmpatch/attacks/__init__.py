"""Attacks on a safety patch: what others published, so that a refusal is tested against those who want an answer.

    ATTACKS["past_tense"].write("Explain how to pick a lock")      # the same for every model
    SuffixSearch(Victim(base, prefix=rows), Budget(24, 24))        # searched against the patched model

Knows requests, models and refusal judges. Knows nothing about suites, rates or reports. See docs/attacks.md.
"""

from __future__ import annotations

from llmpatch.attacks.attacker import open_attacker
from llmpatch.attacks.budget import Budget
from llmpatch.attacks.gcg import SuffixSearch
from llmpatch.attacks.pair import Rewriting
from llmpatch.attacks.registry import ATTACKS, Attack, parse_attacks
from llmpatch.attacks.victim import Victim

__all__ = ["ATTACKS", "Attack", "Budget", "Rewriting", "SuffixSearch", "Victim", "open_attacker", "parse_attacks"]
