"""patch.json: a closed schema, the same bytes, the schema document in step."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmpatch.artifact.manifest import make_manifest, parse_manifest, render_manifest
from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.errors import IntegrityError
from patchkit import contents, fields, seal

ROOT = Path(__file__).parent.parent.parent
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=10,
)  # fmt: skip


def test_rendering_is_the_inverse_of_reading():
    data = contents()["patch.json"]
    assert render_manifest(parse_manifest(data)) == data


def test_a_manifest_cannot_be_changed():
    manifest = parse_manifest(contents()["patch.json"])
    with pytest.raises(ValidationError):
        manifest.name = "other/name"
    with pytest.raises(ValidationError):
        manifest.base.fingerprint.config = "0" * 64


def test_the_order_and_spaces_of_a_sealed_manifest_do_not_matter():
    mapping = json.loads(contents()["patch.json"])
    other = seal(json.dumps(dict(reversed(mapping.items())), separators=(", ", ": ")).encode())
    given, wanted = parse_manifest(other), parse_manifest(contents()["patch.json"])
    assert given.model_dump(exclude={"checksum"}) == wanted.model_dump(exclude={"checksum"})


def test_expiry_is_a_moment():
    made = fields(expires="2026-12-01T00:00:00+02:00")
    prefix, files = (json.loads(contents()["patch.json"])[key] for key in ("prefix", "files"))
    manifest = make_manifest({**made, "prefix": prefix, "files": files})
    assert not manifest.expired(datetime(2026, 11, 30, 21, 59, tzinfo=UTC))
    assert manifest.expired(datetime(2026, 11, 30, 22, 1, tzinfo=UTC))


def test_the_schema_document_is_in_step():
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_schema.py", "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    schema = json.loads((ROOT / "docs" / "format" / "patch.schema.json").read_text(encoding="utf-8"))
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


@settings(deadline=None)  # other work on the machine is not our time
@given(json_values)
def test_strict_json_reads_what_json_writes(value):
    assert parse_object(json.dumps({"v": value}).encode(), where="x") == {"v": value}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("9223372036854775807", True), ("9223372036854775808", False), ("-9223372036854775808", True),
        ("-9223372036854775809", False), ("1e99", True), ("1e308", True), ("1E309", False), ("-1e+400", False),
        ("1e0308", True), ("1e-999", True), ("0." + "1" * 400, True), ("1" * 400 + ".5", False), ("1" * 400 + "e9", False),
        (r'"\ud83d\ude00"', True), (r'"\ud83d"', False), (r'"\uDE00x"', False), (r'"\\ud83d"', True), ('"😀"', True),
        ("[" * 15 + "]" * 15, True), ("[" * 16 + "]" * 16, False), ('{"a":' * 15 + "1" + "}" * 15, True),
        ('{"a":' * 16 + "1" + "}" * 16, False), ("NaN", False), ("-Infinity", False), ("true", True), ("null", True),
    ],
)  # fmt: skip
def test_strict_json_draws_its_lines_exactly(text, good):
    for data in (f'{{"v": {text}}}', f'{{"a": [0, "x", {{}}], "v": {text}, "z": 1.5}}'):
        if good:
            assert parse_object(data.encode(), where="x")["v"] == json.loads(text)
        else:
            with pytest.raises(IntegrityError):
                parse_object(data.encode(), where="x")


def outcome(data: bytes) -> str:
    try:
        return repr(sorted(parse_object(data, where="x")))
    except IntegrityError as error:
        return error.message


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_strict_json_answers_rubbish_with_one_printable_line(data):
    assert outcome(data).isprintable()
    assert outcome(b"{" + data).isprintable()


@settings(deadline=None)
@given(st.text())
def test_foreign_text_is_printable_and_bounded(text):
    assert shown(text).isprintable()
    assert len(shown(text)) <= 80
