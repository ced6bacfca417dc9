"""Our checks of form against the harness's copy of IFEval's own, on the repository's prompts and answers made of fragments."""

import importlib.util
import random
import re
import sys
import types
from pathlib import Path

import pytest

from llmpatch.evals.following import CHECKS, follows
from llmpatch.evals.price_suites import load_instructions

DATA = Path(__file__).parents[2] / "data/utility/ifeval.jsonl"
OTHERWISE = {
    "length_constraints:number_sentences",  # theirs needs a model that is downloaded
    "change_case:capital_word_frequency",  # theirs tokenizes by that model
}
FRAGMENTS = [
    "a plain line", "Yes, it is", "*bold* and **bolder**", "* item", "- item", "***", "******", "\n\n", "\n", "<<Title>>",
    "[place]", "P.S. more", "P.P.S more", '"', "My answer is no.", '{"a": 1}', "SECTION 1", "Section 2", "ALL OF IT",
    "all of it", "'It, was",
]  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    """The classes by check, loaded from their files: what they import beside is for languages and generated options."""
    stand_ins = {
        "langdetect": {"detect": lambda text: "en", "LangDetectException": ValueError},
        "immutabledict": {"immutabledict": dict},
    }
    import nltk

    package = Path(importlib.util.find_spec("lm_eval").submodule_search_locations[0]) / "tasks/ifeval"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "find", lambda *_: None)  # else it downloads what we do without
        for name, content in stand_ins.items():
            module = types.ModuleType(name)
            module.__dict__.update(content)
            patch.setitem(sys.modules, name, module)
        for name in ("lm_eval.tasks", "lm_eval.tasks.ifeval"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for name in ("instructions_util", "instructions", "instructions_registry"):
            full = f"lm_eval.tasks.ifeval.{name}"
            spec = importlib.util.spec_from_file_location(full, package / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, full, module)
            setattr(sys.modules["lm_eval.tasks.ifeval"], name, module)
            spec.loader.exec_module(module)
        yield module.INSTRUCTION_DICT


def answers(options, rng):
    """Texts that come close to following: fragments, among them what the options name."""
    named = [text for value in options.values() for text in (value if isinstance(value, list) else [value])]
    pool = [*FRAGMENTS, *map(str, named), *(f"{text} {n}\n" for text in map(str, named) for n in (1, 2, 3))]
    for _ in range(12):
        parts = rng.choices(pool, k=rng.randint(1, 12))
        yield rng.choice([" ", "\n", "\n\n"]).join(parts)
        if isinstance(repeated := options.get("prompt_to_repeat"), str):
            yield f"{repeated} {parts[0]}"
    wanted = max((int(value) for value in options.values() if isinstance(value, (int, float))), default=2)
    for count in (wanted - 1, wanted, wanted + 1):
        yield "".join(f"* item {i} *x*\n[place] {' '.join(map(str, named))}\n" for i in range(min(count, 40)))
        yield "\n***\n".join(["word"] * max(1, min(count, 400)))
        yield " ".join(["word"] * max(1, min(count, 1200)))


def comparable(name, options):
    """Whether theirs means what it says: it takes words for patterns, and a random letter where a sign is asked for."""
    words = [*options.get("keywords", []), *options.get("forbidden_words", []), options.get("keyword", "")]
    plain = all(re.fullmatch(r"[\w '-]*", word) and word == word.strip() for word in words)
    return name not in OTHERWISE and plain and options.get("letter", "a").isalpha() and all(options.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3000)
def test_checks_agree_with_the_authors_on_every_option_of_the_repository(theirs):
    rng, compared, passed, wrong = random.Random(0), dict.fromkeys(CHECKS.keys() - OTHERWISE, 0), set(), {}
    for _, checks in load_instructions(DATA):
        for name, options in checks:
            if not comparable(name, options):
                continue
            other = theirs[name](name)
            other.build_description(**options)
            for text in answers(options, rng):
                wanted = bool(text.strip()) and bool(other.check_following(text))
                if follows(name, options, text) != wanted:
                    wrong.setdefault(name, (wanted, options, text))
                compared[name] += 1
                passed |= {name} if wanted else set()
    assert wrong == {}
    assert min(compared.values()) > 100
    assert len(passed) >= 18
