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
SPLICES = [b"0", b"9", b"-", b"{", b"]", b'"', b",", b"\\", b"\x00", b"\xff", b" ", b"e99"]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One or a few random changes: bits, bytes, digits, brackets, cuts, copies, zeros."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(made) + 1) if made else 0
        if chance.random() < 0.3:
            at = min(at, chance.randrange(200))  # headers are at the front
        span = chance.choice([1, 2, 8, 64])
        kind = chance.randrange(8)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del made[at : at + span]
        elif kind == 2:
            made[at:at] = chance.randbytes(span)
        elif kind == 3:
            del made[at:]
        elif kind == 4:
            made[at:at] = made[at : at + span]
        elif kind == 5:
            made[at : at + span] = bytes(len(made[at : at + span]))
        elif kind == 6:
            made[at : at + 1] = chance.choice(SPLICES)
        elif at < len(made) and chr(made[at]).isdigit():
            made[at] = chance.choice(b"0123456789")
    return bytes(made)


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
