"""Who made a patch: OpenSSF Model Signing v1.0 with keys of one's own, and whose keys are trusted for what.

    sign_patch(Path("refusal.lpatch"), load_private_key(Path("acme.pem"), password))
    verified = verify_patch(Path("refusal.lpatch"), load_trust(Path("trust.json")))
    verified.patch, verified.signer           # or TrustError, IntegrityError

Specification: docs/signing.md. Needs ``cryptography``; never torch. Knows nothing about where patches come from or
whether a newer one exists: that is a registry's affair.
"""

from llmpatch.signing.bundle import Bundle, make_bundle, parse_bundle
from llmpatch.signing.keys import (
    PublicKey,
    generate_key,
    load_private_key,
    load_public_key,
    parse_public_key,
    write_key,
)
from llmpatch.signing.statement import make_statement, parse_statement
from llmpatch.signing.trust import Trust, load_trust, make_trust, parse_trust, trust_key, usual_trust
from llmpatch.signing.verifying import Verified, countersignatures, sign_patch, verify_contents, verify_patch

__all__ = [
    "Bundle",
    "PublicKey",
    "Trust",
    "Verified",
    "countersignatures",
    "generate_key",
    "load_private_key",
    "load_public_key",
    "load_trust",
    "make_bundle",
    "make_statement",
    "make_trust",
    "parse_bundle",
    "parse_public_key",
    "parse_statement",
    "parse_trust",
    "sign_patch",
    "trust_key",
    "usual_trust",
    "verify_contents",
    "verify_patch",
    "write_key",
]
