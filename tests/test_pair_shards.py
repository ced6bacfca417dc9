"""Pairs in chunks on disk: whole or not there, checked before they are read, an even draw of what is too much."""

import json
from dataclasses import replace

import pytest

from llmpatch.errors import IntegrityError, UsageError
from llmpatch.files import sha256_file, write_jsonl
from llmpatch.pair_shards import PairShards, asked_of, draw, identity_of
from llmpatch.pairs import Dropped, Pair
from test_building import make_recipe, project  # noqa: F401 - a fixture


def pair(number, kind="harmful"):
    return Pair(f"{kind}{number}", kind, "Do it", "No é", "Yes", True, False, 1.0, 0, f"c{number}")


def lost(number):
    return Dropped(f"d{number}", "everyday", "Do it", "", "", 0.0, 0.0, "because")


def filled(folder, chunks=3, each=4):
    shards = PairShards.open(folder, "x", asked="y", size=8, chunks=chunks)
    for number in range(chunks):
        own = [pair(number * each + i, kind) for i in range(each) for kind in ("harmful", "everyday")]
        shards.write(number, own, [lost(number)])
    return shards


def test_a_folder_is_read_as_it_was_written(tmp_path):
    shards = PairShards.open(tmp_path / "p", "x", asked="y", size=8, chunks=3)
    assert shards.missing() == [0, 1, 2]
    shards.write(1, [pair(1)], [lost(1)])
    assert PairShards.open(tmp_path / "p", "x", asked="y", size=8, chunks=3).missing() == [0, 2]
    with pytest.raises(UsageError, match=r"2 of 3 chunks of pairs are not made yet"):
        PairShards.load(tmp_path / "p")
    filled(tmp_path / "p")
    found = PairShards.load(tmp_path / "p")
    assert found == shards
    assert [p.id for p in found.pairs(2)] == [f"{kind}{i}" for i in range(8, 12) for kind in ("harmful", "everyday")]
    assert next(found.pairs(0)) == pair(0)
    assert found.counts() == {"everyday": {"kept": 12, "dropped": 3}, "harmful": {"kept": 12, "dropped": 0}}


def test_a_chunk_counts_only_with_its_last_file(tmp_path):
    shards = filled(tmp_path)
    (tmp_path / "000001.json").unlink()
    assert shards.missing() == [1]


def test_a_draw_is_even_and_of_each_kind(tmp_path):
    shards = filled(tmp_path, chunks=5, each=4)
    whole, counts = draw(shards, 100, seed=0)
    assert [p for n in range(5) for p in shards.pairs(n)] == whole
    assert counts["harmful"] == {"kept": 20, "dropped": 0}
    seen = {}
    for seed in range(400):
        found, again = draw(shards, 5, seed)
        assert again == counts
        assert sum(p.kind == "harmful" for p in found) == 5 == len(found) - 5
        assert len({p.id for p in found}) == 10
        places = [whole.index(p) for p in found]
        assert places == sorted(places)
        for place in places:
            seen[place] = seen.get(place, 0) + 1
    assert len(seen) == 40
    assert all(60 < times < 145 for times in seen.values())  # 100 expected, sd 8.7
    assert draw(shards, 5, 1) == draw(shards, 5, 1)


def test_pairs_that_are_judged_otherwise_are_made_again_of_the_same_answers(tmp_path):
    filled(tmp_path / "p")
    again = PairShards.open(tmp_path / "p", "z", asked="y", size=8, chunks=3)
    assert again.missing() == [0, 1, 2]
    assert PairShards.open(tmp_path / "p", "z", asked="y", size=8, chunks=3) == again


def test_other_pairs_and_other_files_are_left_alone(tmp_path):
    filled(tmp_path / "p")
    for changed in ({"asked": "z"}, {"size": 9}, {"chunks": 4}):
        wanted = {"identity": "x", "asked": "y", "size": 8, "chunks": 3} | changed
        with pytest.raises(UsageError, match="holds pairs of other prompts"):
            PairShards.open(tmp_path / "p", **wanted)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and holds no"):
        PairShards.open(tmp_path, "x", asked="y", size=8, chunks=3)
    with pytest.raises(UsageError, match="no such file"):
        PairShards.load(tmp_path / "nowhere")


def test_damage_is_named(tmp_path):
    shards = filled(tmp_path)
    path = tmp_path / "000001.pairs.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Yes", b"Yet", 1))
    with pytest.raises(IntegrityError, match=r"000001\.pairs\.jsonl is damaged"):
        list(shards.pairs(1))
    path.unlink()
    with pytest.raises(IntegrityError, match="damaged"):
        list(shards.pairs(1))
    (tmp_path / "000002.json").write_text('{"pairs": 1}')
    with pytest.raises(IntegrityError, match=r"000002\.json is damaged"):
        shards.counts()
    (tmp_path / "plan.json").write_text('{"schema": "llmpatch/pairs/v9"}')
    with pytest.raises(IntegrityError, match=r"plan\.json is damaged"):
        PairShards.load(tmp_path)


def test_a_row_that_is_no_pair_is_named(tmp_path):
    shards = filled(tmp_path, chunks=1)
    row = json.loads((tmp_path / "000000.pairs.jsonl").read_text().splitlines()[0])
    for wrong in (row | {"kind": "other"}, row | {"chosen": 7}, {"id": "x"}):
        write_jsonl(tmp_path / "000000.pairs.jsonl", [row, wrong])
        told = json.loads((tmp_path / "000000.json").read_text())
        (tmp_path / "000000.json").write_text(
            json.dumps(told | {"pairs": sha256_file(tmp_path / "000000.pairs.jsonl")})
        )
        with pytest.raises(IntegrityError, match=r"000000\.pairs\.jsonl:2: not a pair"):
            list(shards.pairs(0))


def test_harmless_pairs_of_a_chunk_without_a_harmful_one_reject_what_another_chunk_has(tmp_path):
    shards = PairShards.open(tmp_path, "x", asked="y", size=8, chunks=2)
    shards.write(0, [replace(pair(n, "everyday"), rejected="") for n in range(3)], [])
    shards.write(1, [replace(pair(7), chosen="No, never."), pair(8, "everyday")], [])
    found, _ = draw(shards, 100, seed=0)
    assert [p.rejected for p in found if p.kind == "everyday"] == ["No, never."] * 3 + ["Yes"]
    shards.write(1, [pair(8, "everyday")], [])
    assert [p.rejected for p in draw(shards, 100, seed=0)[0]] == ["", "", "", "Yes"]


def test_identity_is_not_of_how_politely_an_endpoint_is_asked(project):  # noqa: F811
    def told(**how):
        reference = {"kind": "endpoint", "model": "m", "url": "http://127.0.0.1:9/v1"}
        return identity_of(make_recipe(reference=reference | how))

    first = told()
    assert told(concurrency=1, requests_per_minute=3, timeout_seconds=5, retries=1, api_key_env="A_KEY") == first
    assert told(system="Be careful.") != first


def test_identity_is_of_the_judge_and_not_of_its_name_alone(project, monkeypatch):  # noqa: F811
    first = identity_of(make_recipe())
    monkeypatch.setattr("llmpatch.judges.identity", lambda judge: {"name": judge.name, "version": "later"})
    assert identity_of(make_recipe()) != first


def test_identity_is_of_what_decides_pairs(project):  # noqa: F811
    first = identity_of(make_recipe())
    assert identity_of(make_recipe(seed=7, version="2.0.0")) == first
    assert identity_of(make_recipe(decoding={"max_new_tokens": 7})) != first
    assert identity_of(make_recipe(pairs={"max_prompt_tokens": 300, "margin": 0.4})) != first
    path = project / "borderline_validation.jsonl"
    path.write_text(path.read_text() + '{"prompt": "one more"}\n')
    assert identity_of(make_recipe()) != first


def test_a_model_that_was_trained_again_under_its_path_makes_other_pairs(project):  # noqa: F811
    folder = project / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(1 << 20))
    recipe = make_recipe(base={"name": str(folder)})
    first = identity_of(recipe)
    assert identity_of(recipe) == first
    (folder / "model.safetensors").write_bytes(b"\x01" * (1 << 20))
    second = identity_of(recipe)
    (folder / "extra.json").write_text("{}")
    assert len({first, second, identity_of(recipe)}) == 3


def test_what_is_asked_does_not_depend_on_how_it_is_judged(project):  # noqa: F811
    first = asked_of(make_recipe())
    (project / "everyday_validation.jsonl").write_text('{"prompt": "another"}\n')
    assert asked_of(make_recipe(pairs={"max_prompt_tokens": 30, "margin": 0.4}, seed=5)) == first
    assert asked_of(make_recipe(decoding={"max_new_tokens": 7})) != first
    warm = {"max_new_tokens": 6, "temperature": 1.0}
    assert asked_of(make_recipe(decoding=warm, pairs={"samples": 2})) != asked_of(make_recipe(decoding=warm)) != first
    (project / "everyday_train.jsonl").write_text('{"prompt": "another"}\n')
    assert asked_of(make_recipe()) != first


def test_a_base_in_the_users_folder_is_looked_at(project, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HOME", str(project))
    recipe = make_recipe(base={"name": "~/model"})
    first = identity_of(recipe)
    (project / "model" / "more.bin").write_bytes(b"trained again")
    assert identity_of(recipe) != first
