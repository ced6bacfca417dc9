"""The harness's ``llmpatch`` model: equal to its own ``hf`` without a patch, to the plain computation with one."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import llmpatch.harness.__main__ as harness_main
from clikit import save
from harnesskit import ask
from llmpatch.artifact import describe_base, input_norm_p999, write_patch
from llmpatch.bases import load_base
from llmpatch.errors import UsageError, WrongBaseError
from llmpatch.evals import SUITES, System, evaluate
from llmpatch.harness import register
from patchkit import EVIDENCE, embeddings, fields
from tinymodels import make_tiny

# What the harness and what it loads say of themselves.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(3000)]
TASKS = Path(__file__).parents[2] / "data/utility/tasks"
PAIRS = [
    ("The nurse said that", " he is here"),
    ("The nurse said that", " she is here"),
    ("", "No context at all"),
    ("Spaces at the end  ", "belong to the text"),
    ("Question: what?\nAnswer:", " A"),
    ("Question: what?\nAnswer:", " B"),
    ("x" * 700, " is cut on the left"),
    ("One", " more"),
]


@pytest.fixture(scope="module")
def lm_class():
    return register()


@pytest.fixture(scope="module")
def prefix():
    return torch.tensor(embeddings()) * 4


@pytest.fixture(scope="module")
def hf(tiny, lm_class):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=tiny.model, tokenizer=tiny.tokenizer, batch_size=3)


def logits(base, prefix, ids):
    """Log-probabilities [len(ids), vocabulary] by one forward pass, the prefix as input embeddings."""
    with torch.no_grad():
        embeds = torch.cat([prefix, base.embed(torch.tensor(ids))])[None]
        return base.model(inputs_embeds=embeds).logits[0, len(prefix) :].log_softmax(-1)


def test_without_a_patch_likelihoods_are_those_of_hf(tiny, lm_class, hf):
    wanted = ask(hf, "loglikelihood", PAIRS)
    for size in (1, 3, 8):
        found = ask(lm_class(tiny, batch_size=size), "loglikelihood", PAIRS)
        assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=2e-3)
        assert [greedy for _, greedy in found] == [bool(greedy) for _, greedy in wanted]


def test_without_a_patch_whole_texts_are_as_likely_as_for_hf(tiny, lm_class, hf):
    texts = [("A short text.",), ("A text of several windows. " * 50,), ("x",)]
    assert ask(lm_class(tiny), "loglikelihood_rolling", texts) == pytest.approx(
        ask(hf, "loglikelihood_rolling", texts), abs=2e-2
    )


@pytest.mark.parametrize("stop", [None, "letter"])
def test_without_a_patch_continuations_are_those_of_hf(tiny, lm_class, hf, stop):
    prompts = ["The rain", "Nobody came because", "y" * 600, "A"]
    options = {"until": ["\n\n\n"], "max_gen_toks": 20, "do_sample": False}
    if stop:
        whole = ask(hf, "generate_until", [(p, options) for p in prompts])
        options["until"] = [next(c for c in whole[0][2:] if c.isascii() and c.isprintable())]
    requests = [(p, options) for p in prompts] + [("Other options", {**options, "max_gen_toks": 3})]
    wanted = ask(hf, "generate_until", requests)
    assert ask(lm_class(tiny, batch_size=2), "generate_until", requests) == wanted
    assert any(wanted)


def test_a_patch_is_the_prefix_before_everything(tiny, lm_class, prefix):
    lm = lm_class(tiny, prefix=prefix, batch_size=3)
    assert lm.max_length == 508
    for (context, text), (value, greedy) in zip(PAIRS, ask(lm, "loglikelihood", PAIRS), strict=True):
        whole = tiny.tokenizer.encode(context + text)
        start = len(tiny.tokenizer.encode(context.rstrip()))
        whole, start = ([1, *whole], 1) if not context else (whole, start)
        lost = max(0, len(whole) - 509)  # the patch stays, the context is cut
        whole, start = whole[lost:], start - lost
        table = logits(tiny, prefix, whole[:-1])[start - 1 :]
        assert value == pytest.approx(sum(float(row[t]) for row, t in zip(table, whole[start:], strict=True)), abs=2e-3)
        assert greedy == (table.argmax(-1).tolist() == whole[start:])
    text = "A text of several windows. " * 50
    ids = [1, *tiny.tokenizer.encode(text)]
    wanted = 0.0
    for at in range(1, len(ids), 508):
        # The last window is as long as the others, and counts what the others have not.
        end = min(at + 508, len(ids))
        window = ids[max(0, end - 509) : end]
        table = logits(tiny, prefix, window[:-1])[-(end - at) :]
        wanted += sum(float(row[t]) for row, t in zip(table, window[-(end - at) :], strict=True))
    assert ask(lm, "loglikelihood_rolling", [(text,)])[0] == pytest.approx(wanted, abs=2e-2)


def test_continuations_behind_a_patch_are_those_of_a_plain_loop(tiny, lm_class, prefix):
    prompts = ["The rain", "Nobody came because of it", "A"]
    found = ask(
        lm_class(tiny, prefix=prefix), "generate_until", [(p, {"until": [], "max_gen_toks": 8}) for p in prompts]
    )
    for prompt, text in zip(prompts, found, strict=True):
        ids, new = tiny.tokenizer.encode(prompt), []
        while len(new) < 8 and (token := int(logits(tiny, prefix, [*ids, *new])[-1].argmax())) not in tiny.eos_ids:
            new.append(token)
        assert text == tiny.decode(new).split("</s>")[0]


def test_the_prefix_is_computed_once(tiny, lm_class, prefix, monkeypatch):
    from llmpatch.evals import reading

    lm = lm_class(tiny, prefix=prefix)
    monkeypatch.setattr(reading, "prefix_cache", None)
    ask(lm, "loglikelihood", PAIRS)
    ask(lm, "loglikelihood_rolling", [("Again",)])


def test_conversations_go_through_the_chat_template(tiny, lm_class, hf):
    lm = lm_class(tiny)
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = lm.apply_chat_template(said)
    assert text == hf.apply_chat_template(said)
    assert text.startswith("<s>system Be brief.</s>")
    assert lm.chat_template(True) == tiny.tokenizer.chat_template
    ids = lm.tok_encode(text)
    assert ids.count(1) == 3
    assert ids == hf.tok_encode(text)
    assert lm.tokenizer_name.startswith("tiny-llama-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": "many"}, "batch_size is 'many'"),
        ({"max_length": 1}, "leaves 1 tokens of context"),
        ({"patch": "nowhere/at-all"}, "nowhere"),
        ({"patch": ["a"], "prefix": torch.zeros(1, 32)}, "a patch and a prefix"),
    ],
)
def test_wrong_arguments_are_refused(tiny, lm_class, arguments, message):
    with pytest.raises(UsageError, match=message):
        lm_class(tiny, **arguments)


def test_options_that_would_change_answers_are_refused(tiny, lm_class):
    lm = lm_class(tiny)
    for options in ({"num_beams": 4}, {"do_sample": True, "temperature": 1.0, "top_k": 5}, {"max_gen_toks": 5000}):
        with pytest.raises(UsageError, match="of a task is not supported here"):
            ask(lm, "generate_until", [("Hi", {"until": [], **options})])
    with pytest.raises(UsageError, match="asks for 512 tokens; 512 fit"):
        ask(lm, "generate_until", [("Hi", {"until": [], "max_gen_toks": 512})])
    with pytest.raises(UsageError, match="a text has 601 tokens"):
        ask(lm, "loglikelihood", [("Hi", "x" * 601)])
    drawn = {"do_sample": True, "temperature": 0.7}
    for options in ({"max_gen_toks": 0}, drawn | {"top_p": 1.5}, drawn | {"top_p": 0}, drawn | {"seed": -1}):
        with pytest.raises(UsageError, match="generation options of a task"):
            ask(lm, "generate_until", [("Hi", {"until": [], **options})])
    sampled = {"until": [], "max_gen_toks": 5, "do_sample": True, "temperature": 1.0, "top_p": 0.9, "seed": 3}
    assert ask(lm, "generate_until", [("Hi", sampled)]) == ask(lm, "generate_until", [("Hi", sampled)])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder laid out like the repository, with a base, a patch for it, and eight questions of each task."""
    folder = tmp_path_factory.mktemp("place")
    base = load_base(str(save(folder / "base", make_tiny(max_position_embeddings=2048))))
    write_patch(
        folder / "patch", fields(base=describe_base(base, tested_on=())), embeddings(), EVIDENCE,
        base_p999=input_norm_p999(base),
    )  # fmt: skip
    for file in SUITES["utility"]:
        path = folder / "data" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"id": f"{file.name}:{i}", "prompt": f"What is {i}?", "choices": ["one", "two", "a long answer", "no"],
             "answer": i % 4, "category": "odd_sums"}
            for i in range(8)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rows = [{"id": f"g:{i}", "prompt": f"{i} + 1?", "answer": f"So {i + 1}\n#### {i + 1}"} for i in range(3)]
    (folder / "data/utility/gsm8k.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    shutil.copytree(TASKS, folder / "data/utility/tasks")
    return folder


def test_tasks_of_the_repository_give_what_the_suite_gives(place, lm_class, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(place)
    lm = lm_class("./base", "./patch")
    manager = TaskManager(include_path="data/utility/tasks", include_defaults=False)
    names = {file.name: f"llmpatch_{file.name}" for file in SUITES["utility"]}
    results = lm_eval.simple_evaluate(
        model=lm, tasks=[*names.values(), "llmpatch_gsm8k"], task_manager=manager, bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": 8},
    )  # fmt: skip
    suite = evaluate(lm.base, [System("M"), System("M+", prefix=lm.prefix)], suite="utility", data=Path("data"))
    for name, task in names.items():
        mine = suite["sets"][name]["systems"]["M+"]
        assert mine["accuracy"]["value"] == pytest.approx(results["results"][task]["acc,none"], abs=1e-6)
        assert mine["accuracy_norm"]["value"] == pytest.approx(results["results"][task]["acc_norm,none"], abs=1e-6)
    assert 0 <= results["results"]["llmpatch_gsm8k"]["exact_match,last-number"] <= 1
    assert results["config"]["llmpatch_patches"][0]["name"] == "tiny/refusal"
    assert results["config"]["llmpatch_prefix_tokens"] == 4


def test_a_patch_for_another_base_is_refused(place, tmp_path, lm_class):
    other = save(tmp_path / "other", make_tiny(seed=1))
    with pytest.raises(WrongBaseError):
        lm_class(str(other), str(place / "patch"))


def test_the_command_is_the_harness_with_our_model(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    common = [
        "harness",
        "--model",
        "llmpatch",
        "--tasks",
        "llmpatch_arc_challenge",
        "--include_path",
        "data/utility/tasks",
    ]
    monkeypatch.setattr(sys, "argv", [*common, "--model_args", "base=./base,patch=./patch", "--limit", "2"])
    assert harness_main.main() == 0
    assert "llmpatch_arc_challenge" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*common, "--model_args", "base=./base,patch=./nowhere"])
    assert harness_main.main() == 1
    found = capsys.readouterr().err
    assert "error: " in found
    assert "Traceback" not in found


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    assert harness_main.main() == 1
    assert 'pip install "llmpatch[lm-eval]"' in capsys.readouterr().err
