"""model-signing, the reference implementation, verifies our signatures, and we verify its own.

Runs where LLMPATCH_MODEL_SIGNING names a Python that has the package: `pip install model-signing pyopenssl` in an
environment of its own.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from llmpatch.errors import TrustError
from llmpatch.signing import trust_key, verify_patch
from patchkit import contents, save
from signkit import CURVES, key, public, signed

PYTHON = os.environ.get("LLMPATCH_MODEL_SIGNING", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="LLMPATCH_MODEL_SIGNING names no Python with model-signing")


def model_signing(*arguments: str | Path) -> bool:
    return subprocess.run([PYTHON, "-m", "model_signing", *arguments], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("curve", CURVES)
def test_theirs_accepts_ours(tmp_path, curve):
    (tmp_path / "k.pem").write_text(public("vendor", curve).pem)
    (tmp_path / "other.pem").write_text(public("stranger", curve).pem)
    folder = save(tmp_path / "p", signed(curve=curve))
    command = ["verify", "key", "--signature", folder / "patch.sig"]
    assert model_signing(*command, "--public_key", tmp_path / "k.pem", folder)
    assert not model_signing(*command, "--public_key", tmp_path / "other.pem", folder)
    (folder / "README.md").write_text("changed")
    assert not model_signing(*command, "--public_key", tmp_path / "k.pem", folder)


@pytest.mark.parametrize("curve", CURVES)
def test_ours_accepts_theirs(tmp_path, curve):
    pem = key("vendor", curve).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "k.pem").write_bytes(pem)
    folder = save(tmp_path / "p", contents())
    assert model_signing(
        "sign", "key", "--signature", folder / "patch.sig", "--private_key", tmp_path / "k.pem", folder
    )
    assert verify_patch(folder, trust_key(public("vendor", curve))).signer == public("vendor", curve).id
    with pytest.raises(TrustError):
        verify_patch(folder, trust_key(public("stranger", curve)))
