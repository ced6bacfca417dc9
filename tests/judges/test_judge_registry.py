"""Names, roles and provenance."""

import subprocess
import sys

import pytest

from llmpatch.errors import UsageError
from llmpatch.judges import JUDGES, Scored, identity, judge, open_judge


def test_names_and_measures() -> None:
    assert {name: entry.measures for name, entry in JUDGES.items()} == {
        "refusal-phrases": "refusal",
        "refusal-head": "refusal",
        "harm-head": "harm",
        "harm-strings": "harm",
        "gender-words": "gender",
        "toxicity-head": "toxicity",
        "toxicity-words": "toxicity",
        "profanity-check": "toxicity",
        "perspective": "toxicity",
    }
    assert all(entry.summary for entry in JUDGES.values())


@pytest.mark.parametrize("name", ["refusal", "", "hf:", "endpoint:", "detoxify:", "openai:gpt", "Refusal-Head"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_judge(name)
    assert "refusal-head" in caught.value.hint
    assert "hf:<model id>" in caught.value.hint


def test_identity_tells_judges_apart() -> None:
    known = [identity(open_judge(name)) for name in JUDGES if name != "perspective"]  # that one has a key instead
    assert all(set(one) == {"name", "measures", "version", "sha256"} and len(one["sha256"]) == 64 for one in known)
    by_name = {one["name"]: one["sha256"] for one in known}
    assert by_name["refusal-head"] != by_name["harm-head"]


def test_a_judge_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmpatch.judges.registry.JUDGES", dict(JUDGES))

    @judge("shouting", measures="refusal")
    def shouting() -> Scored:
        """1.0 for an answer in capitals."""
        return Scored(lambda prompts, answers: [float(answer.isupper()) for answer in answers], version="2")

    opened = open_judge("shouting")
    assert opened.measures == "refusal"
    assert opened.score(["a", "b"], ["NO", "yes"]) == [1.0, 0.0]
    assert identity(opened) == {"name": "shouting", "measures": "refusal", "version": "2", "sha256": ""}
    with pytest.raises(UsageError, match="already"):
        judge("shouting", measures="harm")(shouting)


def test_importing_judges_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'transformers', 'httpx', 'sklearn', 'profanity_check'}"
    code = f"import sys, llmpatch.judges; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
