"""Small evidence and policies to gate on."""

import copy
import json

import yaml

FINGERPRINT = {
    "config": "1" * 64, "tokenizer": "2" * 64, "chat_template": "3" * 64, "embeddings": "4" * 64, "quantisation": "none",
}  # fmt: skip
RULE = {
    "id": "everyday", "why": "Because.", "risk": "refusal", "kind": "everyday", "metric": "refusal", "judge": "head",
    "max": 0.1, "min_n": 100,
}  # fmt: skip


def interval(value, low=None, high=None, n=200):
    return {"n": n, "value": value, "low": value if low is None else low, "high": value if high is None else high}


def scores(refused, perplexity=2.0):
    judges = {"head": interval(refused, refused - 0.02, refused + 0.02), "phrases": interval(refused)}
    return {"n": 200, "refusal": judges, "loops": interval(0.01, 0.0, 0.03), "perplexity": interval(perplexity)}


def evidence_document(**changes):
    entry = {
        "kind": "everyday",
        "n": 200,
        "systems": {"M": scores(0.04), "M+": scores(0.05, 2.2)},
        "paired": {
            "M+": {"n": 200, "refusal": {"head": {**interval(0.01, 0.0, 0.03), "gained": 3, "lost": 1, "p": 0.6}}}
        },
    }
    document = {
        "schema": "llmpatch/evidence/v1",
        "suite": "refusal",
        "created": "2026-11-24T12:00:00Z",
        "base": {"name": "tiny", "fingerprint": FINGERPRINT},
        "decoding": {"max_new_tokens": 48},
        "systems": {"M": {"kind": "base"}, "M+": {"kind": "patched", "tokens": 4, "prefix_sha256": "a" * 64}},
        "sets": {"everyday": {"title": "Everyday", **entry}},
        "kinds": {"everyday": entry},
        "price": {"M+": {"wikitext": {"tokens": 99, "base": 20.0, "ratio": interval(1.02, 1.01, 1.03, 32)}}},
        "closed": {"everyday": interval(0.9, 0.8, 1.0)},
        "worse": [],
    }
    return copy.deepcopy({**document, **changes})


def as_bytes(document):
    return json.dumps(document).encode()


def policy_bytes(*rules, **changes):
    head = {"schema": "llmpatch/policy/v1", "name": "test", "summary": "For a test."}
    return yaml.safe_dump({**head, "rules": list(rules), **changes}).encode()


def rule(**changes):
    """A valid rule with some keys changed; ``None`` leaves one out."""
    return {key: value for key, value in (RULE | changes).items() if value is not None}
