"""Parts that need no model: text with stop texts, names of sets, requests, and the guard's replies."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from llmpatch.serving.problems import RequestError
from llmpatch.serving.prompting import names_of, room_for
from llmpatch.serving.replies import sse
from llmpatch.serving.requests import CompletionRequest
from llmpatch.serving.sampling import Token
from llmpatch.serving.speech import Speech


class Bytes:
    """Decodes ids as bytes, as byte-level tokenizers do."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


@pytest.mark.parametrize("seed", range(200))
def test_pieces_joined_are_the_whole_text_cut_at_the_first_stop(seed):
    chance = random.Random(seed)
    letters = "ab\u00e9\u4e16\U0001f600\n"
    data = "".join(chance.choice(letters) for _ in range(40)).encode()
    if seed % 2:
        data = bytes(chance.choice([*data, 0xFF, 0xE4]) for _ in data)
    stops = ["".join(chance.choice(letters) for _ in range(chance.randrange(1, 4))) for _ in range(seed % 4)]
    speech, said, tokens = Speech(Bytes(), stops), "", []
    for byte in data:
        text, heard = speech.hear(Token(byte))
        said, tokens = said + text, tokens + heard
        assert bytes(data).decode("utf-8", "replace").startswith(said) or speech.ended
        if speech.ended:
            break
    text, heard = speech.rest()
    whole = data.decode("utf-8", "replace")
    ends = [end for end in range(len(whole) + 1) if any(stop in whole[:end] for stop in stops)]
    first = min(whole[: ends[0]].find(stop) for stop in stops if stop in whole[: ends[0]]) if ends else len(whole)
    assert said + text == whole[:first]
    assert speech.ended == bool(ends)
    assert len(tokens + heard) == len(data) or speech.ended


def test_nothing_of_a_stop_text_is_said_before_it_is_certain():
    speech = Speech(Bytes(), ["END"])
    said = [speech.hear(Token(byte))[0] for byte in b"xENyEND"]
    assert said == ["x", "", "", "ENy", "", "", ""]
    assert speech.ended


@pytest.mark.parametrize(
    ("model", "patches", "wanted"),
    [
        (None, None, None),
        ("org/model", None, None),
        ("org/model", [], []),
        (None, ["a/b"], ["a/b"]),
        ("org/model@none", None, []),
        ("org/model@a/b", None, ["a/b"]),
        ("org/model@a/b@1.0+c/d", None, ["a/b@1.0", "c/d"]),
    ],
)
def test_a_model_or_a_field_names_the_set(model, patches, wanted):
    assert names_of(model, patches, served="org/model") == wanted


@pytest.mark.parametrize("model", ["org", "org/model@", "org/model2", "org/modelx@none", "@none", ""])
def test_other_models_are_not_found(model):
    with pytest.raises(RequestError) as caught:
        names_of(model, None, served="org/model")
    assert caught.value.status == 404


def test_room_is_what_prompt_and_patches_leave():
    assert room_for([1] * 10, 5, 100, None, 50) == 50
    assert room_for([1] * 10, 5, 40, None, 50) == 25
    assert room_for([1] * 10, 5, 40, 25, 50) == 25
    for wanted, context in ((26, 40), (None, 15), (51, 1000)):
        with pytest.raises(RequestError):
            room_for([1] * 10, 5, context, wanted, 50)


def test_a_base_that_rounds_is_given_room_and_a_wrong_one_is_not():
    import torch

    from llmpatch.serving import canary
    from tinymodels import make_tiny

    base = make_tiny()
    assert not canary.rounds(base)
    base.model.model.layers[0].self_attn.q_proj.compute_dtype = torch.bfloat16  # as bitsandbytes' layers have it
    assert canary.rounds(base)
    even = torch.full((1, 4), 0.25)
    near, far = (even + torch.tensor([by, -by, 0, 0]) for by in (0.01, 0.1))
    other = torch.tensor([[1.0, 0, 0, 0]])
    assert not canary.check(near, even, other).ok
    assert canary.check(near, even, other, half=True).ok
    assert not canary.check(far, even, other, half=True).ok


def test_events_are_one_line_whatever_is_in_them():
    assert sse({"text": "a\nb\r\u2028"}).count("\n") == 2


def test_a_large_wrong_list_makes_a_short_error():
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate({"prompt": [{}] * 200_000})
    assert len(caught.value.errors()) < 10


def test_prompts_are_told_apart():
    for prompt, wanted in (("a", ["a"]), ([1, 2], [[1, 2]]), (["a", "b"], ["a", "b"]), ([[1], "b"], [[1], "b"])):
        assert CompletionRequest.model_validate({"prompt": prompt}).prompts == wanted
