"""A valid patch to start from, and the tools of a forger: change its bytes, then recompute every digest."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path

import numpy as np

from llmpatch.artifact import render_patch

TOKENS, DIM, P999 = 4, 32, 2.0
ZEROS = "0" * 64
FIELDS = {
    "name": "tiny/refusal",
    "version": "1.2.0-rc.1",
    "released": "2026-11-24T12:00:00Z",
    "summary": "Declines harmful requests; answers the rest — 丁寧に.",
    "license": "Apache-2.0",
    "contact": "safety@example.org",
    "base": {
        "name": "tiny-llama",
        "purl": "pkg:huggingface/example/Tiny-Llama@7e27bd9f95328f0f3b08261d1252705110c806f8",
        "revision": "7e27bd9f95328f0f3b08261d1252705110c806f8",
        "model_type": "llama",
        "hidden_size": DIM,
        "vocab_size": 259,
        "fingerprint": {
            "config": "1" * 64,
            "tokenizer": "2" * 64,
            "chat_template": "3" * 64,
            "embeddings": "4" * 64,
            "quantisation": "none",
        },
        "tested_on": ["gguf:Q8_0"],
    },
    "fixes": [{"risk": "refusal", "metric": "HarmBench refusals", "before": 0.04, "after": 0.93, "n": 200}],
    "cumulative": True,
    "supersedes": [{"name": "tiny/refusal", "versions": "<1.2.0"}],
    "build": {
        "tool": "llmpatch",
        "tool_version": "0.1.0",
        "seed": 7,
        "recipe_digest": "5" * 64,
        "data_digests": {"data/prompts/train.jsonl": "6" * 64},
        "method": "SFT 300 steps, DPO 100 steps",
    },
}
EVIDENCE = {
    "suite": "refusal",
    "results": [
        {
            "name": "HarmBench refusals",
            "n": 200,
            "base": {"value": 0.04, "low": 0.02, "high": 0.08},
            "patched": {"value": 0.93, "low": 0.89, "high": 0.96},
        },
        {"name": "everyday | over-refusal", "n": 1250, "patched": {"value": 0.016, "low": 0.004, "high": 0.03}},
    ],
}


def fields(**changes) -> dict:
    return copy.deepcopy(FIELDS) | changes


def embeddings(tokens: int = TOKENS, dim: int = DIM, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (tokens, dim)).astype(np.float32)


def contents(**changes) -> dict[str, bytes]:
    """The five files of the valid patch."""
    return render_patch(fields(**changes), embeddings(), EVIDENCE, base_p999=P999)


def save(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def seal(manifest: bytes) -> bytes:
    """Write the right checksum into the bytes of a patch.json, whatever else they hold."""
    zeroed = re.sub(rb'("checksum":\s*")[0-9a-f]{64}', rb"\g<1>" + ZEROS.encode(), manifest)
    digest = hashlib.sha256(zeroed).hexdigest().encode()
    return re.sub(rb'("checksum":\s*")[0-9a-f]{64}', rb"\g<1>" + digest, zeroed)


def forge(files: dict[str, bytes], edit=None, **replaced: bytes) -> dict[str, bytes]:
    """Replace files and edit the manifest, then recompute all digests, as anyone can.

    ``replaced`` names files by ``tensor``, ``config``, ``card``, ``evidence``; ``edit`` changes the manifest in place.
    """
    names = {
        "tensor": "adapter_model.safetensors",
        "config": "adapter_config.json",
        "card": "README.md",
        "evidence": "evidence.json",
    }
    made = files | {names[key]: data for key, data in replaced.items()}
    manifest = json.loads(made["patch.json"])
    manifest["files"] = {name: hashlib.sha256(made[name]).hexdigest() for name in manifest["files"]}
    data = made["adapter_model.safetensors"]
    manifest["prefix"]["digest"] = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    if edit is not None:
        edit(manifest)
    made["patch.json"] = seal(json.dumps(manifest, ensure_ascii=False).encode())
    return made


def safetensors(header: object, raw: bytes, *, size: int | None = None) -> bytes:
    """A safetensors file with any header; ``size`` lies about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + raw
