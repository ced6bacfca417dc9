"""Losses on disk: the same figures as without, computed once, and nothing read there is trusted."""

import json

import pytest

from llmpatch.answers import Answer
from llmpatch.errors import IntegrityError
from llmpatch.evals import kept_losses
from llmpatch.evals.continuations import continuation_losses
from llmpatch.evals.fluency import answer_losses
from llmpatch.evals.kept_losses import kept_answer_losses, kept_continuation_losses
from llmpatch.prompts import Prompt
from tinymodels import make_tiny

PROMPTS, ANSWERS = ["Tell me", "Why"], ["No way", ""]
RAW = [Prompt("a", "It was", "harmful"), Prompt("b", "She said", "harmful"), Prompt("c", "none", "harmful")]
SAID = {"a": [Answer(" late", "length"), Answer("", "stop")], "b": [Answer(" so", "length")]}


def test_kept_losses_are_those_computed_and_are_computed_once(tmp_path, monkeypatch):
    base = make_tiny()
    chat, raw = answer_losses(base, PROMPTS, ANSWERS), continuation_losses(base, RAW, SAID)
    assert kept_answer_losses(base, PROMPTS, ANSWERS, None) == chat
    assert kept_answer_losses(base, PROMPTS, ANSWERS, tmp_path) == chat
    assert kept_continuation_losses(base, RAW, SAID, tmp_path) == raw
    monkeypatch.setattr(kept_losses, "answer_losses", None)
    monkeypatch.setattr(kept_losses, "continuation_losses", None)
    assert kept_answer_losses(base, PROMPTS, ANSWERS, tmp_path) == chat
    assert kept_continuation_losses(base, RAW, SAID, tmp_path) == raw
    for asked, said in ((PROMPTS, ["No way", "!"]), (["Tell me", "When"], ANSWERS)):
        with pytest.raises(TypeError):  # not kept, so computed
            kept_answer_losses(base, asked, said, tmp_path)


def test_another_models_losses_are_not_taken_for_its_own(tmp_path):
    base, other = make_tiny(), make_tiny()
    kept_answer_losses(base, PROMPTS, ANSWERS, tmp_path)
    next(p for n, p in other.model.named_parameters() if "down_proj" in n).data.mul_(2)  # the embeddings stay
    assert other.fingerprint == base.fingerprint
    assert kept_answer_losses(other, PROMPTS, ANSWERS, tmp_path) == answer_losses(other, PROMPTS, ANSWERS)


@pytest.mark.parametrize("content", ["", "[[1.0, 2]]", "[[1.0, 2], [NaN, 1]]", "[[1.0, 2], [1.0, -1]]", "[1, 2]", "{"])
def test_damaged_losses_are_refused_by_name(tmp_path, content):
    base = make_tiny()
    kept_answer_losses(base, PROMPTS, ANSWERS, tmp_path)
    (file,) = tmp_path.glob("*.losses.json")
    assert len(json.loads(file.read_text())) == 2
    file.write_text(content)
    with pytest.raises(IntegrityError, match="are damaged") as error:
        kept_answer_losses(base, PROMPTS, ANSWERS, tmp_path)
    assert str(file) in error.value.message
    assert "delete that file" in error.value.hint
