"""Pairs by one process and by several: the same pairs, whoever dies on the way, and nothing done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from llmpatch.building import build
from llmpatch.chunks import deal
from llmpatch.errors import LlmpatchError, ReferenceFailedError, UsageError
from llmpatch.files import write_jsonl
from llmpatch.learning import read_prompts
from llmpatch.pair_shards import PairShards, asked_of, draw, identity_of
from llmpatch.pair_workers import _side_by_side as side_by_side
from llmpatch.pair_workers import make_pair_shards
from llmpatch.pairing import Job, open_models, sample_pairs
from llmpatch.progress import Silent
from test_building import NO, make_recipe, project  # noqa: F401 - a fixture


@pytest.fixture
def many(project):  # noqa: F811
    """More prompts: 40 of each kind."""
    for kind in ("harmful", "borderline", "everyday"):
        rows = [{"id": f"{kind}{i}", "prompt": f"{kind} train {i}", "cluster": f"{kind}{i}"} for i in range(40)]
        write_jsonl(project / f"{kind}_train.jsonl", rows)
    rows = [{"prompt": f"harmful train {i}", "completion": NO, "finish": "stop"} for i in range(40)]
    write_jsonl(project / "recorded.jsonl", rows)
    return project


class Bar:
    """A progress that remembers, and calls something after each step."""

    def __init__(self, each=lambda: None):
        self.total, self.steps, self.each = 0, [], each

    @contextmanager
    def stage(self, name, total):
        self.total = total

        def advance(units=1, note=""):
            self.steps.append(units)
            self.each()

        yield advance


def contents(folder):
    found = (
        path for path in folder.glob("*.json*") if not path.name.startswith(".")
    )  # a kill may leave a temporary file
    return {path.name: path.read_bytes() for path in found}


def test_chunks_hold_the_pairs_of_a_whole_run(many):
    recipe, bar = make_recipe(), Bar()
    shards = make_pair_shards(recipe, many / "pairs", size=30, progress=bar)
    assert bar.total == 120
    assert bar.steps == [30] * 4
    whole, dropped = sample_pairs(recipe, open_models(recipe), read_prompts(recipe).train, many / "run", Silent())
    found, counts = draw(shards, 1000, 0)
    of = {p.id: p for p in found}
    assert of.keys() == {p.id for p in whole}
    assert all(of[p.id] == p for p in whole if p.kind == "harmful")
    assert all(of[p.id].chosen == p.chosen for p in whole)
    assert sum(found["kept"] + found["dropped"] for found in counts.values()) == len(whole) + len(dropped) == 120
    again = Bar()
    make_pair_shards(recipe, many / "pairs", size=30, progress=again)
    assert again.steps == [120]


def test_several_processes_make_the_same_pairs_though_one_dies(many):
    recipe = make_recipe()
    make_pair_shards(recipe, many / "one", size=15, progress=Silent())
    killed = []

    def kill_one():
        if not killed:
            killed.append(multiprocessing.active_children()[0])
            killed[0].kill()

    bar = Bar(kill_one)
    make_pair_shards(recipe, many / "two", size=15, workers=2, progress=bar)
    assert killed
    assert sum(bar.steps) == 120
    assert contents(many / "two") == contents(many / "one")
    assert not multiprocessing.active_children()


def test_a_killed_run_goes_on_where_it_was(many):
    (many / "recipe.yaml").write_text(yaml.safe_dump(make_recipe().model_dump(mode="json", exclude_none=True)))
    command = [
        sys.executable,
        "-m",
        "llmpatch",
        "pairs",
        "recipe.yaml",
        "-o",
        "pairs",
        "--chunk",
        "10",
        "--workers",
        "2",
    ]
    finished: dict[str, int] = {}
    deadline = time.monotonic() + 240
    kills = 0
    while time.monotonic() < deadline:
        process = subprocess.Popen(command, cwd=many, stdout=subprocess.PIPE, text=True, start_new_session=True)
        while process.poll() is None and kills < 2:
            now = {p.name: p.stat().st_mtime_ns for p in (many / "pairs").glob("0*.json")}
            if len(now) >= min(12, len(finished) + 2):
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        out, _ = process.communicate()
        now = {p.name: p.stat().st_mtime_ns for p in (many / "pairs").glob("0*.json")}
        assert all(now[name] == at for name, at in finished.items())
        finished = now
        if process.returncode == 0:
            break
    assert kills == 2
    assert "harmful: " in out
    assert out.splitlines()[-1] == "pairs: pairs, 12 chunks"
    make_pair_shards(make_recipe(), many / "plain", size=10, progress=Silent())
    assert contents(many / "pairs") == contents(many / "plain")


def test_workers_end_with_who_started_them_and_two_do_not_make_the_same_pairs(many):
    (many / "recipe.yaml").write_text(yaml.safe_dump(make_recipe().model_dump(mode="json", exclude_none=True)))
    command = [
        sys.executable,
        "-m",
        "llmpatch",
        "pairs",
        "recipe.yaml",
        "-o",
        "pairs",
        "--chunk",
        "3",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(command, cwd=many, start_new_session=True, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 120
    while not list((many / "pairs").glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children.read_text().split()
    with pytest.raises(UsageError, match="another process works in"):
        make_pair_shards(make_recipe(), many / "pairs", size=3, progress=Silent())
    process.kill()
    process.wait()
    assert len(workers) >= 2
    while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in workers)
    missing = PairShards.open(
        many / "pairs", identity_of(make_recipe()), asked=asked_of(make_recipe()), size=3, chunks=40
    )
    assert missing.missing(), "they made all pairs before they were killed"


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_another_margin_asks_nothing_again(many, monkeypatch):
    make_pair_shards(make_recipe(), many / "pairs", size=30, progress=Silent())
    monkeypatch.setattr("llmpatch.generation.generate", lambda *a, **k: pytest.fail("asked again"))
    recipe = make_recipe(pairs={"max_prompt_tokens": 300, "margin": 0.1})
    shards = make_pair_shards(recipe, many / "pairs", size=30, progress=Silent())
    assert shards.missing() == []
    assert shards.identity == identity_of(recipe)


@dataclass(frozen=True)
class Deadly(Job):
    def make_chunk(self, models, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make_chunk(models, number)


def test_a_chunk_that_kills_every_worker_is_named(many):
    recipe = make_recipe()
    dealt = deal(recipe, 30)
    shards = PairShards.open(many / "pairs", identity_of(recipe), asked="y", size=30, chunks=4)
    job = Deadly(recipe, dealt, many / "pairs/answers")
    with pytest.raises(LlmpatchError, match=r"3 workers died over chunk 2 \(exit code -9\)"):
        side_by_side(job, shards, shards.missing(), 2, lambda number: None)
    assert 2 in shards.missing()
    assert not multiprocessing.active_children()


def test_what_goes_wrong_in_a_worker_is_said_as_here(many):
    write_jsonl(many / "recorded.jsonl", [{"prompt": "harmful train 0", "completion": NO}])
    told = []
    for workers in (1, 2):
        with pytest.raises(ReferenceFailedError) as error:
            make_pair_shards(make_recipe(), many / f"of{workers}", size=120, workers=workers, progress=Silent())
        told.append((error.value.message, error.value.hint))
    assert told[0] == told[1]
    assert all(told[0])


def test_a_build_takes_pairs_that_were_made_before(many):
    recipe = make_recipe()
    make_pair_shards(recipe, many / "pairs", size=50, progress=Silent())
    for path in many.glob("*_train.jsonl"):
        path.rename(path.with_suffix(".away"))
    with pytest.raises(UsageError, match=r"no such file: .*_train\.jsonl"):
        build(recipe, many / "out", run=many / "run", progress=Silent(), pairs_from=many / "pairs")
    for path in many.glob("*_train.away"):
        path.rename(path.with_suffix(".jsonl"))
    patch = build(recipe, many / "out", run=many / "run", progress=Silent(), pairs_from=many / "pairs")
    assert patch.evidence["training"]["pairs"]["harmful"] == {"kept": 40, "dropped": 0}
    assert not (many / "run/answers").exists()
    other = make_recipe(decoding={"max_new_tokens": 5})
    with pytest.raises(UsageError, match="was not made of this recipe"):
        build(other, many / "out2", run=many / "run2", progress=Silent(), pairs_from=many / "pairs")
    (many / "pairs/000001.json").unlink()
    with pytest.raises(UsageError, match="1 of 3 chunks of pairs are not made yet"):
        build(recipe, many / "out2", run=many / "run2", progress=Silent(), pairs_from=many / "pairs")


def test_joined_recipes_are_refused(many):
    (many / "other.yaml").write_text("{}")
    with pytest.raises(UsageError, match="is joined with other recipes"):
        make_pair_shards(make_recipe(joint=["other.yaml"]), many / "pairs", progress=Silent())


def test_a_rate_limit_is_of_all_workers_together(many, monkeypatch):
    seen = []
    monkeypatch.setattr("llmpatch.pair_workers._side_by_side", lambda job, *rest: seen.append(job.recipe))
    limited = {"kind": "endpoint", "model": "m", "url": "http://127.0.0.1:9/v1", "requests_per_minute": 100}
    make_pair_shards(make_recipe(reference=limited), many / "pairs", workers=3, progress=Silent())
    assert seen[0].reference.requests_per_minute == 33


def test_more_workers_than_requests_a_minute_are_not_started(many, monkeypatch):
    seen = []

    def start(job, shards, missing, workers, done):
        seen.append((job.recipe, workers))

    monkeypatch.setattr("llmpatch.pair_workers._side_by_side", start)
    limited = {"kind": "endpoint", "model": "m", "url": "http://127.0.0.1:9/v1", "requests_per_minute": 2}
    make_pair_shards(make_recipe(reference=limited), many / "pairs", workers=8, progress=Silent())
    ((recipe, workers),) = seen
    assert recipe.reference.requests_per_minute * workers == 2


def test_a_folder_of_something_else_is_refused_and_stays_as_it_was(many):
    (many / "mine").mkdir()
    (many / "mine/thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and holds no plan"):
        make_pair_shards(make_recipe(), many / "mine", progress=Silent())
    assert [path.name for path in (many / "mine").iterdir()] == ["thesis.txt"]
