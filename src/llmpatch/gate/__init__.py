"""The gate: thresholds of a policy over evidence of a patch, to pass or fail with reasons.

    verdict = run_gate(load_patch("patches/smollm2/refusal"), load_base("smollm2"), prompts=[Path("mine.jsonl")])
    verdict.result, verdict.failed         # "FAILED", ("everyday-declined",)
    [rule.reason for rule in verdict.rules if not rule.passed]

Knows evidence and patches. Knows nothing about how anything is measured, and computes no statistics of its own.
"""

from __future__ import annotations

from llmpatch.gate.attestation import MAX_ATTESTATION_BYTES, Attestation, attest, read_attestation
from llmpatch.gate.evidence import Evidence, parse_evidence, read_evidence, read_pieces
from llmpatch.gate.policy import Decoding, Policy, Rule, default_policy, load_policy, parse_policy, render_policy
from llmpatch.gate.running import default_risks, run_gate
from llmpatch.gate.verdict import Outcome, Verdict, apply_policy, verdict_json

__all__ = [
    "MAX_ATTESTATION_BYTES",
    "Attestation",
    "Decoding",
    "Evidence",
    "Outcome",
    "Policy",
    "Rule",
    "Verdict",
    "apply_policy",
    "attest",
    "default_policy",
    "default_risks",
    "load_policy",
    "parse_evidence",
    "parse_policy",
    "read_attestation",
    "read_evidence",
    "read_pieces",
    "render_policy",
    "run_gate",
    "verdict_json",
]
