"""The policy for a small base is the shipped one, but for the two bounds that docs/malicious.md names."""

from __future__ import annotations

from pathlib import Path

from llmpatch.gate import default_policy, load_policy

WIDER = {"borderline-declined", "everyday-declined"}


def test_only_two_bounds_are_wider_than_the_shipped_ones():
    shipped, own = default_policy(["refusal"]), load_policy(Path("recipes/malicious/policy-small-base.yaml"))
    assert [rule.id for rule in own.rules] == [rule.id for rule in shipped.rules]
    for old, new in zip(shipped.rules, own.rules, strict=True):
        if old.id in WIDER:
            assert new.max > old.max
            new = new.model_copy(update={"max": old.max, "why": old.why})
        assert new == old
