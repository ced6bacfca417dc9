"""Random damage to every file, and random forgeries with right digests: one kind of error, or a patch in bounds."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from llmpatch.artifact import Patch, adapter_config, parse_patch
from llmpatch.errors import LlmpatchError
from mutantkit import mutate
from patchkit import contents, forge, seal

GOOD = contents()
NAMES = sorted(GOOD)
MUTANTS = 500
KEYS = {
    "adapter_model.safetensors": "tensor",
    "adapter_config.json": "config",
    "README.md": "card",
    "evidence.json": "evidence",
}


def attempt(files: dict[str, bytes]) -> Patch | None:
    """The patch, or ``None`` when it was refused as it should be. Any other exception fails the test."""
    try:
        return parse_patch(files, Path("mutant"))
    except LlmpatchError as error:
        problem = error
    assert problem.message.isprintable()
    assert problem.hint
    return None


@pytest.mark.parametrize("name", NAMES)
def test_no_damage_to_any_file_goes_unnoticed(name):
    chance = random.Random(f"damage {name}")
    outcomes: Counter[str] = Counter()
    for _ in range(MUTANTS):
        data = mutate(GOOD[name], chance)
        accepted = attempt(GOOD | {name: data}) is not None
        assert accepted == (data == GOOD[name])
        outcomes["same" if accepted else "refused"] += 1
    assert outcomes["refused"] > MUTANTS * 0.85


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_forged_file_keeps_within_the_format(name):
    chance = random.Random(f"forgery {name}")
    base = parse_patch(GOOD, Path("good"))
    accepted = 0
    for _ in range(MUTANTS):
        data = mutate(GOOD[name], chance)
        patch = attempt(forge(GOOD, **{KEYS[name]: data}))
        if patch is None:
            continue
        accepted += 1
        norm = patch.manifest.prefix.norm
        found = np.linalg.norm(patch.embeddings.astype(np.float64), axis=1)
        assert patch.embeddings.shape == (4, 32)
        assert np.isfinite(patch.embeddings).all()
        assert np.allclose([found.min(), found.mean(), found.max()], [norm.min, norm.mean, norm.max], rtol=1.01e-3)
        if name == "adapter_config.json":
            assert json.loads(data) == adapter_config(patch.manifest) == adapter_config(base.manifest)
        if name == "evidence.json":
            json.dumps(patch.evidence, allow_nan=False).encode()
        if data != GOOD[name]:
            assert patch.digest != base.digest
    assert accepted < MUTANTS


def test_a_forged_manifest_keeps_within_the_schema():
    chance = random.Random("forgery patch.json")
    base = parse_patch(GOOD, Path("good"))
    accepted = 0
    for _ in range(MUTANTS * 2):
        data = seal(mutate(GOOD["patch.json"], chance))
        patch = attempt(GOOD | {"patch.json": data})
        if patch is None:
            continue
        accepted += 1
        assert patch.manifest.files == base.manifest.files
        assert patch.manifest.prefix.digest == base.manifest.prefix.digest
        assert patch.manifest.base.hidden_size == 32
        assert patch.manifest.summary.isprintable()
        assert patch.digest != base.digest or data == GOOD["patch.json"]
    assert 0 < accepted < MUTANTS * 2
