"""The long way round: pairs by themselves, training by itself, and a build that takes both."""

import json

from safetensors.torch import load_file

from llmpatch.artifact import read_patch
from llmpatch.pair_shards import PairShards

RECIPE = "recipes/demo.yaml"


def load_state_of(path):
    return {name: tensor.tolist() for name, tensor in load_file(path).items()}


def test_pairs_then_training_then_a_build(cli, workspace):
    found = cli("pairs", RECIPE, "-o", "pairs", "--chunk", 6)
    assert found.code == 0
    assert found.out.splitlines() == [
        "borderline: 4 pairs, 0 prompts dropped", "everyday: 4 pairs, 0 prompts dropped",
        "harmful: 4 pairs, 0 prompts dropped", "pairs: pairs, 2 chunks",
    ]  # fmt: skip
    told = json.loads(cli("pairs", RECIPE, "-o", "pairs", "--chunk", 6, "--json").out)
    assert told == {"pairs": "pairs", "chunks": 2, "counts": PairShards.load(workspace / "pairs").counts()}
    trained = cli("train", RECIPE, "--run", "apart", "--pairs", "pairs")
    assert trained.code == 0
    assert trained.out.startswith("trained: apart, best at ")
    assert trained.out.endswith(" s of steps on 1 process\n")
    less = cli("train", RECIPE, "--run", "less", "--pairs", "pairs", "--less-memory")
    assert less.code == 0
    rows = [load_state_of(workspace / name / "training.safetensors") for name in ("apart", "less")]
    assert rows[0] == rows[1]
    before = (workspace / "apart/training.safetensors").stat().st_mtime_ns
    built = cli("build", RECIPE, "-o", "mine", "--run", "apart", "--pairs", "pairs", "--json")
    assert built.code == 0
    assert (workspace / "apart/training.safetensors").stat().st_mtime_ns == before
    assert not (workspace / "apart/answers").exists()
    assert json.loads(built.out)["digest"] == read_patch(workspace / "mine").digest


def test_bad_input_is_one_line(cli, workspace):
    for arguments, code, said in (
        (("pairs", "nowhere.yaml", "-o", "x"), 1, "nowhere.yaml"),
        (("pairs", RECIPE, "-o", "recipes"), 1, "is not empty, and holds no plan.json"),
        (("pairs", RECIPE, "-o", "x", "--workers", 0), 1, "--workers"),
        (("pairs", RECIPE, "-o", "x", "--set", "prompts.harmful.train=[none.jsonl]"), 1, "none.jsonl"),
        (("train", RECIPE, "--run", "x", "--shard", "--less-memory"), 1, "leave one of the two out"),
        (("train", RECIPE, "--run", "x", "--shard"), 1, "nothing to spread the base over"),
        (("train", RECIPE, "--run", "x", "--pairs", "nowhere"), 1, "no such file"),
        (("build", RECIPE, "-o", "y", "--pairs", "nowhere"), 1, "no such file"),
    ):
        found = cli(*arguments)
        assert (found.code, said in found.err) == (code, True), found.err
        assert "Traceback" not in found.err
        assert not (workspace / "x").exists() or not any((workspace / "x").iterdir())
        assert not (workspace / "y").exists()
