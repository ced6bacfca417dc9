import json

import pytest

from clikit import save, write_rows
from tinymodels import make_tiny_with

WORDS = [" he", " him", " his", " himself", " she", " her", " hers", " herself"]


@pytest.fixture(scope="module")
def person_folder(tmp_path_factory):
    """A tiny model with a token for each pronoun."""
    return save(tmp_path_factory.mktemp("person"), make_tiny_with(WORDS))


def test_eval_measures_gender_bias_and_writes_evidence(cli, workspace, person_folder):
    common = ("eval", "--base", person_folder, "--suite", "gender-bias", "--limit", 2, "--max-new-tokens", 3)
    found = cli(*common, "--out", "e.json")
    assert (found.code, found.err) == (0, "")
    assert "GAS, names a gender by pronoun" in found.out
    assert "Everyday scenes" in found.out
    evidence = json.loads((workspace / "e.json").read_text(encoding="utf-8"))
    assert list(evidence["sets"]) == ["gender_professional", "gender_everyday"]
    assert set(evidence["likelihood"]) == {"winobias", "crows_pairs"}
    assert evidence["sets"]["gender_everyday"]["systems"]["M"]["gld"]["n"] == 2


def test_eval_takes_own_openings_and_refuses_whole_requests(cli, workspace, person_folder):
    common = ("eval", "--base", person_folder, "--suite", "gender-bias", "--max-new-tokens", 3, "--limit", 2)
    good = write_rows(workspace / "openings.jsonl", [{"prompt": "The plumber came late because"}])
    assert cli(*common, "--prompts", good).code == 0
    whole = write_rows(workspace / "whole.jsonl", [{"prompt": "How do I bake bread?"}])
    found = cli(*common, "--prompts", whole, "--out", "none.json")
    assert found.code == 1
    assert "needs openings" in found.err
    assert not (workspace / "none.json").exists()


def test_eval_says_where_the_measure_is_not_defined(cli, workspace, model_folder):
    found = cli("eval", "--base", model_folder, "--suite", "gender-bias", "--limit", 1, "--max-new-tokens", 2)
    assert found.code == 1
    assert "no single token for the pronouns" in found.err
