"""Keys: made, written once, read back; anything else explained."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.errors import TrustError, UsageError
from llmpatch.signing import (
    PublicKey,
    generate_key,
    load_private_key,
    load_public_key,
    parse_public_key,
    write_key,
)
from llmpatch.signing.keys import sign_bytes
from signkit import CURVES, key, public


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("password", [None, b"correct horse"])
def test_a_key_is_written_and_read_back(tmp_path, curve, password):
    made = generate_key(curve)
    beside, described = write_key(tmp_path / "new" / "acme.pem", made, password)
    assert beside == tmp_path / "new" / "acme.pub.pem"
    assert described.curve == curve
    assert described.id == hashlib.sha256(beside.read_bytes()).hexdigest()
    assert load_public_key(beside) == described
    found = load_private_key(tmp_path / "new" / "acme.pem", password)
    assert PublicKey.of(found.public_key()) == described
    assert stat.S_IMODE((tmp_path / "new" / "acme.pem").stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in (tmp_path / "new" / "acme.pem").read_bytes()) == (password is not None)


def test_a_key_is_never_overwritten(tmp_path):
    write_key(tmp_path / "a.pem", generate_key(), None)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("a.pem", "a"):  # its private and its public file
        with pytest.raises(UsageError, match="never overwritten"):
            write_key(tmp_path / name, generate_key(), None)
    (tmp_path / "b.pem").symlink_to("elsewhere.pem")
    with pytest.raises(UsageError, match="never overwritten"):
        write_key(tmp_path / "b.pem", generate_key(), None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "b.pem"} == before


def test_a_password_is_needed_where_it_is_needed(tmp_path):
    write_key(tmp_path / "a.pem", generate_key(), b"secret")
    with pytest.raises(UsageError, match="encrypted and there is no password"):
        load_private_key(tmp_path / "a.pem")
    with pytest.raises(TrustError, match="does not open"):
        load_private_key(tmp_path / "a.pem", b"wrong")


def test_a_plain_key_that_others_can_read_is_refused(tmp_path):
    write_key(tmp_path / "a.pem", generate_key(), None)
    (tmp_path / "a.pem").chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        load_private_key(tmp_path / "a.pem")


def private_pem(made) -> bytes:
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(made) -> bytes:
    return made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_other_kinds_of_keys_are_refused(tmp_path):
    others = [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256K1()),
    ]
    for number, made in enumerate(others):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(private_pem(made))
        path.chmod(0o600)
        with pytest.raises(UsageError, match="not an ECDSA key"):
            load_private_key(path)
        with pytest.raises(UsageError, match="not an ECDSA key"):
            parse_public_key(public_pem(made), where="k")


def test_a_key_is_one_and_nothing_else():
    """A reader of PEM takes the first key that it finds anywhere in a text."""
    pem = public("vendor").pem.encode()
    assert parse_public_key(b"\n" + pem + b"\n", where="k") == public("vendor")
    for odd in (b"{'q': '" + pem + b"'}", pem + public("evilco").pem.encode(), b"note\n" + pem, pem + b"note"):
        with pytest.raises(UsageError, match="is not one public key"):
            parse_public_key(odd, where="k")


def test_a_private_key_in_place_of_a_public_one_is_named(tmp_path):
    with pytest.raises(UsageError, match="is a private key"):
        parse_public_key(private_pem(key("vendor")), where="k")
    (tmp_path / "p.pem").write_bytes(public("vendor").pem.encode())
    (tmp_path / "p.pem").chmod(0o600)
    with pytest.raises(UsageError, match="not a private key"):
        load_private_key(tmp_path / "p.pem")


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_rubbish_is_no_key(data, framed):
    import base64

    text = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(data) + b"-----END PUBLIC KEY-----\n"
    with pytest.raises(UsageError):
        parse_public_key(text if framed else data, where="k")


@pytest.mark.parametrize("curve", CURVES)
def test_a_signature_holds_for_its_key_and_message_only(curve):
    mark = sign_bytes(key("vendor", curve), b"message")
    public("vendor", curve).check(mark, b"message")
    for who, message in (("stranger", b"message"), ("vendor", b"messagE")):
        with pytest.raises(TrustError):
            public(who, curve).check(mark, message)
    assert sign_bytes(key("vendor", curve), b"message") == mark  # RFC 6979


def test_an_unknown_curve_is_refused():
    with pytest.raises(UsageError, match="no curve"):
        generate_key("P-224")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_keys_of_openssl_are_read(tmp_path):
    made = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"], capture_output=True, check=True
    ).stdout
    (tmp_path / "k.pem").write_bytes(made)
    (tmp_path / "k.pem").chmod(0o600)
    shown = subprocess.run(["openssl", "ec", "-pubout"], input=made, capture_output=True, check=True).stdout
    found = PublicKey.of(load_private_key(tmp_path / "k.pem").public_key())
    assert found == parse_public_key(shown, where="openssl")
    assert found.pem.encode() == shown
