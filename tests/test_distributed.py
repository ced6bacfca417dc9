"""Training by two processes: the gradient of one, the same rows on both, a base spread over them; a build goes on from there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from llmpatch.bases import load_base
from llmpatch.building import build
from llmpatch.distributed import ALONE, Split, joined
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.progress import Silent
from llmpatch.training import Trainer
from llmpatch.training_data import TrainingSet
from test_building import make_recipe, project  # noqa: F401 - a fixture
from test_training import HEAD, make_data, settings

HERE = Path(__file__).parent
WORK = """
import json, sys, torch
from pathlib import Path
from distributedkit import step_of
from llmpatch.distributed import joined

with joined(shard=sys.argv[2] == "shard") as split:
    found = step_of(sys.argv[1], split)
    Path(f"rank{split.rank}.json").write_text(json.dumps(found))
"""


def together(folder, *command, count=2):
    """Run a command on several processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(count):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {key: str(value) for key, value in own.items()} | {"OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(HERE)
        processes.append(
            subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, text=True, stdout=-1, stderr=-1)
        )
    ended = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *said) for process, said in zip(processes, ended, strict=True)]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("shard", ["whole", "shard"])
def test_two_processes_step_as_one(tmp_path, stage, shard):
    """In float64, every loss on: the first step's loss and gradient, and the rows after three steps."""
    from distributedkit import step_of

    alone = step_of(stage, ALONE)
    for code, out, err in together(tmp_path, "-c", WORK, stage, shard):
        assert code == 0, out + err
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert found[0]["rows"] == found[1]["rows"]
    assert all(f["sharded"] == (shard == "shard") for f in found)
    wanted, got = (torch.tensor(f["gradient"], dtype=torch.float64) for f in (alone, found[0]))
    assert float((wanted - got).norm() / wanted.norm()) < 1e-8
    assert found[0]["losses"] == pytest.approx(alone["losses"], rel=1e-9)
    wanted, got = (torch.tensor(f["rows"], dtype=torch.float64) for f in (alone, found[0]))
    assert float((wanted - got).abs().max()) < 1e-8
    assert found[0]["scores"] == found[1]["scores"] == alone["scores"]  # the first one's, though the second's differ


def test_a_build_goes_on_from_what_several_trained(project):  # noqa: F811
    recipe = make_recipe()
    (project / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    ended = together(project, "-m", "llmpatch", "train", "recipe.yaml", "--run", "run", "--shard", "--json")
    for code, out, err in ended:
        assert code == 0, out + err
    assert json.loads(ended[0][1])["processes"] == 2
    assert ended[1][1] == ""
    before = (project / "run/training.safetensors").read_bytes()
    patch = build(recipe, project / "out", run=project / "run", progress=Silent())
    assert (project / "run/training.safetensors").read_bytes() == before
    steps = [row for row in patch.evidence["training"]["history"] if "loss" in row]
    assert len(steps) == 6
    alone = build(recipe, project / "alone", run=project / "run-alone", progress=Silent())
    assert alone.embeddings == pytest.approx(patch.embeddings, abs=2e-4)


DYING = """
import os, signal, sys
from llmpatch._cli.main import main
from llmpatch.training import Trainer

update = Trainer._update

def dying(self, state, stage):
    if self.split.rank == 1 and state.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, state, stage)

Trainer._update = dying
sys.exit(main())
"""


@pytest.mark.parametrize("shard", [[], ["--shard"]])
def test_a_process_that_dies_ends_the_run_and_the_same_command_goes_on(project, shard):  # noqa: F811
    """Killed before the third step: the other one ends as well, and what was trained before counts."""
    common = make_recipe().model_dump(mode="json", exclude_none=True)
    common["training"] |= {"checkpoint_every": 1}
    (project / "recipe.yaml").write_text(yaml.safe_dump(common))
    train = ["train", "recipe.yaml", *shard, "--run"]
    first, second = together(project, "-c", DYING, *train, "run")
    assert second[0] == -signal.SIGKILL
    assert first[0] == LlmpatchError.exit_code
    assert "another process of this training is gone" in first[2]
    assert "go on from the last checkpoint" in first[2]
    with safe_open(project / "run/training.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["state"])["step"] == 2
    for code, out, err in [
        *together(project, "-m", "llmpatch", *train, "run"),
        *together(project, "-m", "llmpatch", *train, "whole"),
    ]:
        assert code == 0, out + err
    rows = [load_file(project / run / "training.safetensors")["rows"] for run in ("run", "whole")]
    assert torch.equal(*rows)


def test_few_pairs_of_a_kind_are_fewer_than_a_step_has(tiny):
    """Two pairs, in steps of four: two of three processes would have one, and the third none."""
    data = TrainingSet(HEAD, make_data().examples[:2])
    with pytest.raises(UsageError, match="3 processes cannot share steps of 2 examples"):
        Trainer(tiny, data, settings(), seed=0, split=Pretended(0, 3))


def test_more_processes_than_examples_are_refused(project):  # noqa: F811
    from llmpatch.learning import gather, learn

    with pytest.raises(UsageError, match="5 processes cannot share steps of 4 examples"):
        learn(gather(make_recipe()), load_base("./model"), project / "run", Silent(), split=Pretended(0, 5))


class Pretended(Split):
    def wait(self):
        pass


def test_alone_there_is_nothing_to_spread_over(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as split:
        assert split is ALONE
    with pytest.raises(UsageError, match="nothing to spread the base over"), joined(shard=True):
        pass


def test_processes_that_do_not_find_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LlmpatchError, match="the 2 processes do not find each other"), joined():
        pass


def test_on_gpus_what_lies_on_the_cpu_is_added_up_too(monkeypatch):
    """The rows and their gradient do; nccl alone has no backend for them."""
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LLMPATCH_DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", lambda place: None)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **_: asked.append(backend))
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    with joined() as split:
        assert (split.rank, split.count) == (1, 2)
    from torch.distributed.distributed_c10d import BackendConfig

    found = BackendConfig(asked[0]).get_device_backend_map()
    assert (found["cpu"], found["cuda"]) == ("gloo", "nccl")


def test_shares_are_even_and_lose_nothing():
    found = [Split(rank, 3).mine(range(8)) for rank in range(3)]
    assert sorted(i for part in found for i in part) == list(range(8))
    assert {len(part) for part in found} == {2, 3}
