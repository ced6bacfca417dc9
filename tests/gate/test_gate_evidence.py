import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit import as_bytes, evidence_document, interval
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.gate import parse_evidence, read_evidence, read_pieces

ROOT = Path(__file__).parent.parent.parent


def test_evidence_is_read_with_its_identity():
    found = parse_evidence(as_bytes(evidence_document()))
    assert (found.risk, found.base, found.prefix_sha256, found.fresh) == ("refusal", "tiny", "a" * 64, False)
    assert len(found.sha256) == 64


def test_the_risk_is_the_suite_unless_it_is_said_otherwise():
    risks = [
        parse_evidence(as_bytes(evidence_document(**changes))).risk
        for changes in ({"suite": "toxicity"}, {"suite": "own prompts"}, {"suite": "own prompts", "risk": "toxicity"})
    ]
    assert risks == ["toxicity", "refusal", "toxicity"]
    assert parse_evidence(as_bytes(evidence_document()), risk="given").risk == "given"


def damaged(edit):
    document = evidence_document()
    edit(document)
    return as_bytes(document)


def put(value):
    def edit(document):
        document["kinds"]["everyday"]["systems"]["M+"]["refusal"]["head"] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (put({**interval(0.1), "n": 0}), "n is not a whole number above 0"),
        (put({**interval(0.1), "n": True}), "n is not a whole number above 0"),
        (put({**interval(0.1), "n": 2.5}), "n is not a whole number above 0"),
        (put({**interval(0.1), "value": "0.1"}), "not a number"),
        (put({**interval(0.1), "value": None}), "not a number"),
        (put({**interval(0.1), "high": 1e300}), "not a number"),
        (put(interval(0.5, 0.1, 0.2)), "is not within its interval"),
        (put({"value": 0.1, "low": 0.0, "high": 0.2}), "is no estimate"),
        (put({**interval(0.1), "note": "trust me"}), "is no estimate"),
        (lambda d: d.pop("base"), "base"),
        (lambda d: d.update(decoding=None), "decoding"),
        (lambda d: d.update(decoding={"temperature": 6}), "temperature"),
        (lambda d: d.update(decoding={"temperature": True}), "temperature"),
        (lambda d: d.update(decoding={"top_p": 0}), "top_p"),
        (lambda d: d["base"]["fingerprint"].pop("config"), "config"),
        (lambda d: d["base"]["fingerprint"].update(extra="x"), "extra"),
        (lambda d: d["base"]["fingerprint"].update(config="short"), "config"),
        (lambda d: d.update(schema="llmpatch/evidence/v2"), "schema"),
        (lambda d: d.update(created="yesterday"), "created"),
        (lambda d: d.update(suite=7), "suite"),
        (lambda d: d.update(kinds=[]), "kinds"),
        (lambda d: d["kinds"].update(everyday=3), "kinds.everyday"),
        (lambda d: d["systems"].update({"M+": "patched"}), "systems.M+"),
        (lambda d: d["systems"]["M+"].update(prefix_sha256="x"), "prefix_sha256"),
        (lambda d: d["price"].update({"M+": 1.0}), "price"),
    ],
)  # fmt: skip
def test_what_is_not_evidence_is_named(edit, said):
    with pytest.raises(IntegrityError) as error:
        parse_evidence(damaged(edit), where="e.json")
    assert said in error.value.message
    assert "e.json" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("data", [b"", b"[]", b"nonsense", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 9999])
def test_bytes_that_are_no_strict_json_are_refused(data):
    with pytest.raises(IntegrityError):
        parse_evidence(data)


def test_nan_in_an_estimate_is_refused():
    data = as_bytes(evidence_document()).replace(b"0.05", b"NaN", 1)
    with pytest.raises(IntegrityError, match="NaN"):
        parse_evidence(data)


def test_files_are_bounded_and_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_evidence(tmp_path / "gone.json")
    (tmp_path / "big.json").write_bytes(b" " * ((1 << 22) + 1))
    with pytest.raises(IntegrityError, match="larger"):
        read_evidence(tmp_path / "big.json")
    with pytest.raises(IntegrityError, match="larger"):
        parse_evidence((tmp_path / "big.json").read_bytes())


def test_the_official_evidence_reads():
    for path in (ROOT / "patches").glob("*/*/evidence.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        wanted = [piece["suite"] for piece in document.get("risks", {"": document}).values()]
        assert [piece.suite for piece in read_pieces(path)] == wanted
        if "risks" not in document:
            assert [read_evidence(path)] == read_pieces(path)


def test_composed_evidence_is_its_pieces_each_checked(tmp_path):
    path, piece = tmp_path / "e.json", damaged(lambda d: None)
    whole = {"schema": "llmpatch/composed/v1", "risks": {"one": json.loads(piece), "two": json.loads(piece)}}
    path.write_text(json.dumps(whole))
    found = read_pieces(path)
    assert [part.tree for part in found] == [parse_evidence(piece).tree] * 2
    assert {part.sha256 for part in found} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    whole["risks"]["two"]["suite"] = 7
    path.write_text(json.dumps(whole))
    with pytest.raises(IntegrityError, match=r"e\.json, two is not evidence: suite"):
        read_pieces(path)
    for risks in ({}, [], None, {str(i): {} for i in range(17)}):
        path.write_text(json.dumps({"schema": "llmpatch/composed/v1", "risks": risks}))
        with pytest.raises(IntegrityError, match="not 1 to 16 of them"):
            read_pieces(path)


leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4)
trees = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from(["n", "value", "low", "high", "x"]), inner, max_size=5)
)


def read_or_hint(data):
    try:
        return parse_evidence(data).sha256
    except IntegrityError as error:
        return error.hint


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["sets", "kinds", "price", "closed", "systems", "decoding", "base", "suite", "created", "schema"]),
    trees,
)
def test_any_section_is_read_or_refused_and_never_a_traceback(section, value):
    assert read_or_hint(as_bytes(evidence_document(**{section: {"x": value}})))
