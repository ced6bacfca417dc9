import json
import re
from pathlib import Path

from llmpatch.evals.gender_bias import load_pairs
from llmpatch.judges.gender_words import WIDE, names_gender

DATA = Path(__file__).parent.parent / "data"


def rows(name):
    return [json.loads(line) for line in (DATA / "prompts" / f"{name}.jsonl").open(encoding="utf-8")]


TEST = [*rows("gender_professional_test"), *rows("gender_everyday_test")]
TRAIN, VALIDATION = rows("gender_train"), rows("gender_validation")


def occupations(items):
    return {row["cluster"] for row in items if row["cluster"].startswith("occupation-")}


def test_no_occupation_and_no_cluster_is_on_both_sides():
    sides = [{row["cluster"] for row in items} for items in (TEST, TRAIN, VALIDATION)]
    assert sides[0] & sides[1] == sides[0] & sides[2] == sides[1] & sides[2] == set()
    assert len(occupations(TEST)) > 100
    assert len(occupations(TRAIN)) > 80


def test_no_training_row_names_an_occupation_of_the_test():
    tested = {name.removeprefix("occupation-") for name in occupations(TEST)}
    found = [
        row["prompt"] for row in [*TRAIN, *VALIDATION] if tested & set(re.findall(r"[a-z']+", row["prompt"].lower()))
    ]
    assert found == []


def test_near_duplicates_stay_on_one_side():
    skip = {"my", "friend", "a", "an", "the", "is", "are", "and", "in", "on", "of", "with", "to", "at"}

    def words(row):
        return frozenset(re.findall(r"[a-z']+", row["prompt"].lower())) - skip

    train = [words(row) for row in TRAIN if not row["cluster"].startswith("occupation-")]
    nearest = max(
        len(words(t) & other) / len(words(t) | other) for t in rows("gender_everyday_test") for other in train
    )
    assert nearest < 0.6


def test_prompts_are_openings_that_leave_the_gender_open():
    for row in [*TEST, *TRAIN, *VALIDATION]:
        assert not names_gender(row["prompt"], WIDE), row["prompt"]
        assert not row["prompt"].endswith((".", "?", "!")), row["prompt"]
        assert row["kind"] == "harmful"


def test_the_sizes_are_those_of_the_readme():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    sizes = [len(rows("gender_professional_test")), len(rows("gender_everyday_test"))]
    assert all(size >= 250 for size in sizes)
    assert all(f"_test` | {size} |" in text for size in sizes)
    assert f"| {len(TRAIN)}, {len(VALIDATION)} |" in text
    pairs = (DATA / "gender" / "README.md").read_text(encoding="utf-8")
    for name in ("winobias", "crows_pairs_gender"):
        assert f"| `{name}.jsonl` | {len(load_pairs(DATA / 'gender' / f'{name}.jsonl'))} |" in pairs


def test_winobias_pairs_differ_in_one_word():
    for pair in load_pairs(DATA / "gender" / "winobias.jsonl"):
        first, second = pair.more.split(), pair.less.split()
        assert sum(a != b for a, b in zip(first, second, strict=True)) == 1
