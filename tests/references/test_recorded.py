import json

import pytest

from llmpatch.answers import Answer
from llmpatch.errors import LlmpatchError, ReferenceFailedError, UsageError
from llmpatch.files import write_jsonl
from llmpatch.progress import Silent
from llmpatch.prompts import Prompt
from llmpatch.references import collect
from llmpatch.references.recorded import RecordedReference


def prompts(*texts):
    return [Prompt(text, text, "everyday") for text in texts]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "recording" / "answers.jsonl"
    rows = [
        {"id": "1", "prompt": "a", "completion": "A", "finish": "length"},
        {"id": "2", "prompt": "b", "completion": "B"},
        {"id": "3", "prompt": "a", "completion": "later", "finish": "stop"},
    ]
    write_jsonl(path, rows)
    return path


def test_prompts_are_matched_by_text_and_the_first_row_wins(recording, tmp_path):
    answers = collect(RecordedReference(recording), prompts("b", "a"), tmp_path / "store", progress=Silent())
    assert answers == [Answer("B", "stop"), Answer("A", "length")]


def test_missing_prompts_are_counted_and_the_first_is_named(recording, tmp_path):
    with pytest.raises(ReferenceFailedError) as caught:
        collect(RecordedReference(recording), prompts("x" * 200, "a", "y"), tmp_path / "store", progress=Silent())
    assert "no answer to 2 of 3 prompts" in caught.value.message
    assert f"'{'x' * 80}...'" in caught.value.message
    assert caught.value.hint


def test_the_identity_follows_the_bytes_and_the_provenance(recording):
    before = RecordedReference(recording).identity()
    assert before["provenance"] is None
    recording.with_name("provenance.json").write_text(json.dumps({"model": "m", "seed": 0}))
    named = RecordedReference(recording).identity()
    assert named["provenance"] == {"model": "m", "seed": 0}
    recording.write_text(recording.read_text().replace('"B"', '"C"'))
    assert RecordedReference(recording).identity()["sha256"] != named["sha256"]


@pytest.mark.parametrize(
    "content",
    ['{"prompt": "a"}', '{"completion": "a"}', '{"prompt": 1, "completion": "a"}', "[]", "{", "\x00",
     '{"prompt": "a", "completion": "b", "finish": "never"}'],
)  # fmt: skip
def test_a_malformed_recording_is_refused_by_line_or_row(tmp_path, content):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"row 1|:1:"):
        RecordedReference(path).identity()


def test_a_missing_recording_and_a_broken_provenance_are_named(recording, tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        RecordedReference(tmp_path / "nowhere.jsonl").identity()
    for content in ("{", "[]", " " * 70_000):
        recording.with_name("provenance.json").write_text(content)
        with pytest.raises(LlmpatchError, match=r"provenance\.json"):
            RecordedReference(recording).identity()


def test_what_the_command_wrote_beside_a_recording_is_its_provenance(recording):
    recording.with_name("provenance.json").write_text(json.dumps({"model": "of the folder"}))
    recording.with_name("answers.provenance.json").write_text(json.dumps({"model": "of the file"}))
    assert RecordedReference(recording).identity()["provenance"] == {"model": "of the file"}


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": "\\ud800"}', "[", "[]"])
def test_a_provenance_that_cannot_be_kept_is_refused_by_name(recording, text):
    recording.with_name("provenance.json").write_text(text)
    with pytest.raises(UsageError, match=r"provenance\.json is not"):
        RecordedReference(recording).identity()
