import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.evals.kept_scores import BATCH, judge_kept
from llmpatch.judges.registry import RegisteredJudge, Scored


def make(score, version="1"):
    return RegisteredJudge("mine", "toxicity", Scored(score, version=version))


def counting(asked, value=0.5):
    def score(prompts, answers):
        asked.append(list(answers))
        return [value] * len(answers)

    return make(score)


def test_the_same_text_is_judged_once_in_batches(tmp_path):
    asked, done = [], []
    texts = [f"{i}" for i in range(BATCH + 3)] + ["0", "1"]
    found = judge_kept(counting(asked), [""] * len(texts), texts, tmp_path, advance=done.append)
    assert found == [0.5] * len(texts)
    assert [len(part) for part in asked] == [BATCH, 3]
    assert sum(done) == len(texts)
    # Another prompt is another case; another version of the judge starts afresh.
    assert judge_kept(counting(asked, 0.25), ["other"], ["0"], tmp_path) == [0.25]
    newer = make(lambda _, answers: [1.0] * len(answers), version="2")
    assert judge_kept(newer, [""], ["0"], tmp_path) == [1.0]
    assert len(asked) == 3


def test_without_a_store_nothing_is_kept():
    asked = []
    for _ in range(2):
        judge_kept(counting(asked), [""], ["a"], None)
    assert len(asked) == 2


@pytest.mark.parametrize("wrong", [[0.5], [0.5, 1.5], [0.5, float("nan")], [0.5, None], [0.5, "x"], [0.5, 0.5, 0.5]])
def test_rubbish_from_a_judge_is_named_and_not_kept(tmp_path, wrong):
    with pytest.raises(LlmpatchError, match="judge mine gave"):
        judge_kept(make(lambda *_: wrong), ["", ""], ["a", "b"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_cut_and_a_damaged_file_is_named(tmp_path):
    asked = []
    judge_kept(counting(asked), [""] * 2, ["a", "b"], tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    assert judge_kept(counting(asked), [""] * 2, ["a", "b"], tmp_path) == [0.5, 0.5]
    assert asked[1] == ["b"]
    assert judge_kept(counting(asked), [""] * 2, ["a", "b"], tmp_path) == [0.5, 0.5]
    assert len(asked) == 2
    path.write_text(json.dumps(["key", 2.0]) + "\n")
    with pytest.raises(IntegrityError, match="damaged in line 1"):
        judge_kept(counting(asked), [""], ["a"], tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, junk):
    folder = tmp_path_factory.mktemp("kept")
    judge_kept(counting([]), [""], ["a"], folder)
    (path,) = folder.iterdir()
    path.write_bytes(junk)
    try:
        found = judge_kept(counting([]), [""], ["a"], folder)
    except IntegrityError:
        return
    assert found == [0.5]
