"""trust.json: whose key counts for which name; a closed schema."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.signing import load_trust, make_trust, parse_trust, trust_key
from signkit import countersigned_policy, policy, public, trust


def vendors(*pairs) -> dict:
    rows = [{"name": who, "patches": list(patterns), "keys": [public(who).pem]} for who, patterns in pairs]
    return {"schema": "llmpatch/trust/v1", "vendors": rows}


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("acme/*", "acme/refusal", "acme2/refusal"),
        ("acme/refusal", "acme/refusal", "acme/refusal-2"),
        ("acme/refusal-*", "acme/refusal-2", "acme/refusal"),
        ("acme/re*", "acme/refusal", "acme/bias"),
        ("*", "who/ever", "a"),
    ],
)
def test_names_are_matched_as_a_whole(pattern, inside, outside):
    found = make_trust(vendors(("acme", [pattern])))
    assert found.vendor_of(inside).name == "acme"
    if pattern != "*":
        with pytest.raises(TrustError, match="nobody is trusted"):
            found.vendor_of(outside)


def test_the_first_vendor_that_covers_a_name_decides_alone():
    found = make_trust(vendors(("one", ["acme/refusal"]), ("two", ["acme/*"])))
    assert found.vendor_of("acme/refusal").name == "one"
    assert found.vendor_of("acme/bias").name == "two"
    assert public("two").id not in found.vendor_of("acme/refusal").by_id


def test_a_revoked_key_is_found_nowhere():
    assert trust().find_key(public("vendor").id) == public("vendor")
    with pytest.raises(TrustError, match="is revoked"):
        trust(revoked=[public("vendor").id]).find_key(public("vendor").id)
    with pytest.raises(TrustError, match="does not hold"):
        trust().find_key(public("stranger").id)


def test_a_countersigner_is_no_vendor():
    with pytest.raises(TrustError, match="does not hold"):
        make_trust(countersigned_policy()).find_key(public("qa").id)


def test_a_key_given_by_hand_may_publish_anything():
    found = trust_key(public("a"), public("b"))
    assert set(found.vendor_of("any/name").by_id) == {public("a").id, public("b").id}


def without(key: str) -> dict:
    return {name: value for name, value in policy().items() if name != key}


CROOKED = {
    "unknown key": policy(tofu=True),
    "no schema": without("schema"),
    "no vendors": without("vendors"),
    "later schema": policy(schema="llmpatch/trust/v2"),
    "vendor without keys": policy(vendor={"keys": []}),
    "vendor without names": policy(vendor={"patches": []}),
    "a name for everything of many": policy(vendor={"patches": ["*/refusal"]}),
    "a regular expression": policy(vendor={"patches": ["acme/.*"]}),
    "capitals": policy(vendor={"patches": ["Acme/x"]}),
    "no key": policy(vendor={"keys": ["hello"]}),
    "a key with a surrogate": policy(vendor={"keys": ["\ud800"]}),
    "terminal escape in a name": policy(vendor={"name": "A\x1b[2J"}),
    "countersigned by nobody": policy(vendor={"countersigned_by": ["qa"]}),
    "countersigned by itself": policy(
        vendor={"countersigned_by": ["qa"]}, countersigners={"qa": {"keys": [public("vendor").pem]}}
    ),
    "revoked by half an id": policy(revoked=["abc"]),
    "a list": [1],
}


@pytest.mark.parametrize("name", CROOKED)
def test_a_crooked_policy_is_refused_by_name(tmp_path, name):
    path = tmp_path / "trust.json"
    path.write_text(json.dumps(CROOKED[name]))
    with pytest.raises(UsageError) as caught:
        load_trust(path)
    assert str(path) in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{", b'{"schema": 1, "schema": 2}', b"[" * 100_000, b"\xff", b"null"])
def test_a_policy_that_is_not_strict_json_is_refused(data):
    with pytest.raises(UsageError):
        parse_trust(data, where="trust.json")


def test_an_endless_policy_is_not_read(tmp_path):
    (tmp_path / "trust.json").write_bytes(b" " * ((1 << 18) + 1))
    with pytest.raises(IntegrityError, match="larger"):
        load_trust(tmp_path / "trust.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.integers(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["schema", "vendors", "keys", "x"]), children, max_size=3)
    ),
)


@settings(deadline=None)
@given(json_values)
def test_any_json_is_a_policy_or_a_typed_error(value):
    try:
        parse_trust(json.dumps(value).encode(), where="trust.json")
    except LlmpatchError as error:
        assert error.message.isprintable()  # noqa: PT017 - most values are refused
    else:
        assert value["schema"] == "llmpatch/trust/v1"
