import pytest
import torch

from llmpatch.answers import Answer
from llmpatch.errors import UsageError
from llmpatch.evals import System
from llmpatch.evals import continuations as module
from llmpatch.evals.continuations import continue_text
from llmpatch.progress import Silent
from llmpatch.prompts import Prompt
from llmpatch.recipe import DecodingSection

NUCLEUS = DecodingSection(max_new_tokens=6, temperature=1.0, top_p=0.9)
TEXTS = ["The rain", "A man walked into", "Once", "He said that", "So what if the"]
PROMPTS = [Prompt(f"p{i}", text, "everyday") for i, text in enumerate(TEXTS)]


def ask(base, system=None, prompts=PROMPTS, decoding=NUCLEUS, samples=3, store=None):
    return continue_text(
        base, system or System("M"), prompts, decoding, samples=samples, store=store, progress=Silent()
    )


def test_each_prompt_has_its_own_samples_of_raw_text(tiny):
    found = ask(tiny)
    assert list(found) == [p.id for p in PROMPTS]
    assert {len(answers) for answers in found.values()} == {3}
    assert len({a.text for answers in found.values() for a in answers}) > 10
    # Greedy, a continuation is the plain argmax of the text's own tokens: no template, no system turn.
    greedy = ask(tiny, decoding=DecodingSection(max_new_tokens=1), samples=1)
    for prompt in PROMPTS:
        ids = torch.tensor([tiny.text_ids(prompt.text)])
        with torch.no_grad():
            token = int(tiny.model(input_ids=ids).logits[0, -1].argmax())
        assert greedy[prompt.id][0].text == ("" if token in tiny.eos_ids else tiny.decode([token]))


def test_a_sample_depends_on_its_prompt_only(tiny):
    whole = ask(tiny)
    assert ask(tiny, prompts=PROMPTS[3:])["p3"] == whole["p3"]
    assert ask(tiny, prompts=PROMPTS[::-1])["p0"] == whole["p0"]
    assert {i: a[:2] for i, a in whole.items()} == ask(tiny, samples=2)
    other = DecodingSection(max_new_tokens=6, temperature=1.0, top_p=0.9, seed=1)
    assert ask(tiny, decoding=other) != whole


def test_prefix_and_message_change_the_text_and_another_base_takes_its_place(tiny):
    from tinymodels import make_tiny

    plain = ask(tiny)
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
    assert ask(tiny, System("M+", prefix=rows)) != plain
    assert ask(tiny, System("safe prompt", system_message="Be kind.")) != plain
    other = make_tiny(seed=4)
    assert ask(tiny, System("LoRA", base=other)) == ask(other)


def test_an_interrupted_run_goes_on_and_ends_the_same_and_a_repeated_one_samples_nothing(tiny, tmp_path, monkeypatch):
    asked = []
    real = module.answer_samples

    def watched(*given, **options):
        for item in real(*given, **options):
            if limit is not None and len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(item)
            yield item

    monkeypatch.setattr(module, "answer_samples", watched)
    limit = 7
    with pytest.raises(KeyboardInterrupt):
        ask(tiny, store=tmp_path)
    limit = None
    resumed = ask(tiny, store=tmp_path)
    assert len(asked) == 15
    assert resumed == ask(tiny)
    asked.clear()
    assert ask(tiny, store=tmp_path) == resumed
    assert asked == []
    more = ask(tiny, samples=4, store=tmp_path)
    assert len(asked) == 5
    assert {i: a[:3] for i, a in more.items()} == resumed


def test_a_recording_gives_what_it_has(tiny):
    said = [Answer(f"{i}", "length") for i in range(4)]
    several = System("M'", samples={"p0": said, TEXTS[1]: said[:1]})
    assert ask(tiny, several) == {"p0": said[:3], "p1": said[:1]}
    assert ask(tiny, System("M'", recorded={"p2": said[3]})) == {"p2": [said[3]]}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 0}, "0 samples"), ({"samples": 1001}, "1001"), ({"decoding": DecodingSection()}, "temperature 0")],
)
def test_what_cannot_be_sampled_is_refused(tiny, options, message):
    with pytest.raises(UsageError, match=message):
        ask(tiny, **options)


def test_a_prompt_that_does_not_fit_is_refused(tiny):
    with pytest.raises(UsageError, match="tokens"):
        ask(tiny, prompts=[Prompt("long", "word " * 200, "everyday")])
