"""Pairs by the actors of a local Ray cluster: the same pairs as here, though an actor dies."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray

from llmpatch.chunks import deal
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import write_jsonl
from llmpatch.pair_shards import PairShards
from llmpatch.pair_workers import make_pair_shards
from llmpatch.pairing import Job
from llmpatch.progress import Silent
from llmpatch.ray_workers import ChunkMaker
from test_building import NO, make_recipe, project  # noqa: F401 - a fixture
from test_pair_workers import Bar, contents, many  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here = {"PYTHONPATH": str(Path(__file__).parent)}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": here})
    yield
    ray.shutdown()


@dataclass(frozen=True)
class DiesOnce(Job):
    """The first process that is given chunk 2 is killed after it has asked."""

    def make_chunk(self, models, number):
        made = super().make_chunk(models, number)
        mark = self.answers / "died"
        if number == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made


def test_a_cluster_makes_the_same_pairs_though_an_actor_dies(many, cluster, monkeypatch):  # noqa: F811
    recipe, bar = make_recipe(), Bar()
    make_pair_shards(recipe, many / "here", size=30, progress=Silent())
    monkeypatch.setattr("llmpatch.pair_workers.Job", DiesOnce)
    shards = make_pair_shards(recipe, many / "there", size=30, workers=2, ray="auto", progress=bar)
    assert bar.steps == [30] * 4
    assert (many / "there/answers/died").exists()
    assert contents(many / "there") == contents(many / "here")
    assert PairShards.load(many / "there").counts() == shards.counts()


def test_what_goes_wrong_on_a_node_is_one_line(many, monkeypatch):  # noqa: F811
    write_jsonl(many / "recorded.jsonl", [{"prompt": "harmful train 0", "completion": NO}])
    recipe = make_recipe()
    maker = ChunkMaker(Job(recipe, deal(recipe, 120), many / "answers"), many, "run")
    found = maker({"number": np.array([0])})
    assert found["number"] == [0]
    assert found["failure"][0].startswith("ReferenceFailedError: ")
    assert "\n" not in found["failure"][0]
    assert found["made"][0]  # the hint


def test_a_chunk_over_which_actors_die_is_given_up(many):  # noqa: F811
    """Ray starts actors again without end; each of these stands for one that died before its chunk was done."""
    recipe = make_recipe()

    class Dies(Job):
        def make_chunk(self, models, number):
            raise SystemExit

    job = Dies(recipe, deal(recipe, 120), many / "answers")
    for _ in range(3):
        with pytest.raises(SystemExit):
            ChunkMaker(job, many, "first")({"number": np.array([0])})
    found = ChunkMaker(job, many, "first")({"number": np.array([0])})
    assert found["failure"] == ["LlmpatchError: 3 actors died over it"]
    with pytest.raises(SystemExit):  # another run counts anew
        ChunkMaker(job, many, "second")({"number": np.array([0])})


def test_no_cluster_and_no_ray_are_said_so(many, monkeypatch):  # noqa: F811
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(LlmpatchError, match=r"no Ray cluster at 127\.0\.0\.1:1:"):
        make_pair_shards(make_recipe(), many / "pairs", size=120, ray="127.0.0.1:1", progress=Silent())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray cannot be imported"):
        make_pair_shards(make_recipe(), many / "pairs", size=120, ray="auto", progress=Silent())
