"""What is computed once per run: of the examples that its steps ask for, and no longer than they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmpatch import step_losses
from llmpatch.distributed import Split
from llmpatch.step_losses import StepLosses
from llmpatch.training import REFERENCE, Trainer, train
from test_training import HEAD, interrupted_at, make_data, settings, start


def watched(monkeypatch):
    """The prompts of which the base's states are computed, in the order in which they are."""
    found = []
    make_batch = step_losses.make_batch

    def noted(examples, *, past, **options):
        if past == len(HEAD):  # no prefix
            found.extend(e.prompt + e.chosen for e in examples)
        return make_batch(examples, past=past, **options)

    monkeypatch.setattr(step_losses, "make_batch", noted)
    return found


def asked(data, section, offset):
    losses, stage = StepLosses.__new__(StepLosses), (section.sft, section.dpo)[offset]
    losses.data, losses.section, losses.seed, losses._walks = data, section, 0, step_losses.Walks(data.examples)
    every = {i for step in range(stage.steps) for i in losses.indices(stage, step, offset)}
    return {i for i in every if data.examples[i].kind != "harmful"}


def test_of_many_examples_only_those_are_computed_that_a_step_asks_for(tiny, monkeypatch):
    """600 pairs, 400 of them benign, in steps of 4, of which 2 are benign: 20 in ten steps, and none twice."""
    computed = watched(monkeypatch)
    data, section = make_data(600), settings(sft=6, dpo=4)
    train(tiny, data, start(), section, seed=0)
    wanted = asked(data, section, 0) | asked(data, section, 1)
    assert len(wanted) <= 20
    assert sorted(computed) == sorted(data.examples[i].prompt + data.examples[i].chosen for i in wanted)


def test_groups_of_a_run_that_asks_for_everything_go_by_length_alone(tiny):
    """As they always did: published recipes keep their bits."""
    data, section = make_data(60), settings(sft=40, dpo=4)
    losses = StepLosses(tiny, data, section, seed=0)
    benign = sorted((len(e.prompt), i) for i, e in enumerate(data.examples) if e.kind != "harmful")
    for place, (_, i) in enumerate(benign):
        assert losses.computed_with(i, 6) == [j for _, j in benign[place - place % 16 :][:16]]
    assert losses.computed_with(0, 6) == [0]  # harmful


def test_one_that_no_step_asks_for_can_be_computed_too(tiny):
    data, section = make_data(600), settings(sft=1, dpo=0)
    losses = StepLosses(tiny, data, section, seed=0)
    other = next(i for i, e in enumerate(data.examples) if e.kind != "harmful" and i not in asked(data, section, 0))
    (states,) = losses._base_states([other], 6)
    assert states.shape == (len(data.examples[other].chosen[:6]), 32)


def test_states_of_a_stage_are_let_go_when_it_is_over(tiny, monkeypatch):
    held = []
    update = Trainer._update

    def noted(self, state, stage):
        found = update(self, state, stage)
        held.append((state.stage, {cut for _, cut in self._base_hidden}))
        return found

    monkeypatch.setattr(Trainer, "_update", noted)
    section = settings(sft=6, dpo=4)
    section = section.model_copy(update={"dpo": section.dpo.model_copy(update={"answer_tokens": 3})})
    train(tiny, make_data(600), start(), section, seed=0)
    assert {(stage, *cuts) for stage, cuts in held} == {(0, 6), (1, 3)}


def test_states_that_the_next_stage_asks_for_too_stay_and_hold_no_others(tiny):
    data, section = make_data(60), settings(sft=12, dpo=4)
    losses = StepLosses(tiny, data, section, seed=0)
    early, late = (sorted(asked(data, section, offset)) for offset in (0, 1))
    assert set(late) - set(early) != set(late)
    assert set(early) - set(late)
    before = dict(zip(early, losses._base_states(early, 6), strict=True))
    losses.end_stage(0)
    assert set(losses._base_hidden) == {(i, 6) for i in late}
    for (i, _), states in losses._base_hidden.items():
        assert states.untyped_storage().nbytes() == states.numel() * states.element_size()
        assert i not in before or torch.equal(states, before[i])
    losses.end_stage(1)
    assert not losses._base_hidden


@pytest.mark.parametrize("dpo_cut", [6, 3])
def test_of_many_examples_a_resumed_run_computes_the_same_bits(tiny, tmp_path, monkeypatch, dpo_cut):
    """Groups of a part would be padded otherwise, and their last bits would be others."""
    data, section = make_data(300), settings(sft=12, dpo=12)
    section = section.model_copy(update={"dpo": section.dpo.model_copy(update={"answer_tokens": dpo_cut})})
    whole = train(tiny, data, start(), section, seed=0)
    for stop_at in (7, 18):
        with interrupted_at(monkeypatch, stop_at):
            train(tiny, data, start(), section, seed=0, run=tmp_path / str(stop_at))
        resumed = train(tiny, data, start(), section, seed=0, run=tmp_path / str(stop_at))
        assert torch.equal(resumed.rows, whole.rows)


def counted(monkeypatch):
    """How many pairs the DPO reference was asked about, call by call."""
    asked = []
    log_probs = step_losses.pair_log_probs

    def noted(base, rows, head, examples, **options):
        asked.append(len(examples))
        return log_probs(base, rows, head, examples, **options)

    monkeypatch.setattr(step_losses, "pair_log_probs", noted)
    return asked


def without_checkpoint(run):
    (run / "training.safetensors").unlink()


@pytest.mark.parametrize("reference", ["sft", "base"])
def test_reference_log_probabilities_are_computed_once_for_a_run_folder(tiny, tmp_path, monkeypatch, reference):
    asked = counted(monkeypatch)
    data, section = make_data(), settings(dpo_changes={"reference": reference})
    options = {"seed": 0, "run": tmp_path, "base_weights": "w"}
    first = train(tiny, data, start(), section, **options)
    without_checkpoint(tmp_path)
    again = train(tiny, data, start(), section, **options)
    assert len(asked) == 1
    assert torch.equal(first.rows, again.rows)
    kept = (tmp_path / REFERENCE).read_bytes()
    for damaged in (b"", kept[:100], kept[:-1] + bytes([kept[-1] ^ 1]), b"\xff" * 64, kept + bytes(1 << 20)):
        without_checkpoint(tmp_path)
        (tmp_path / REFERENCE).write_bytes(damaged)
        assert torch.equal(train(tiny, data, start(), section, **options).rows, first.rows)
        assert (tmp_path / REFERENCE).read_bytes() == kept
    assert len(asked) == 6


def test_reference_log_probabilities_of_anything_else_are_computed_anew(tiny, tmp_path, monkeypatch):
    """Another base, other data, other rows after SFT, another cut, other pairs in the steps."""
    asked = counted(monkeypatch)

    def run(data=0, sft=6, weights="w", **changes):
        asked.clear()
        section = settings(sft=sft, dpo_changes=changes)
        train(tiny, make_data(seed=data), start(), section, seed=0, run=tmp_path, base_weights=weights)
        return len(asked)

    assert run() == 1
    for changes in ({"weights": "v"}, {"data": 1}, {"sft": 5}, {"reference": "base"}):
        assert run(**changes) == 1
    without_checkpoint(tmp_path)
    assert run(reference="base") == 0
    (tmp_path / REFERENCE).unlink()
    without_checkpoint(tmp_path)
    assert run(weights="") == 1
    assert not (tmp_path / REFERENCE).exists()  # nobody said which base that was


@pytest.mark.parametrize("known", ["model", ""])
def test_those_of_another_model_are_kept_where_it_is_known(tiny, tmp_path, known):
    asked = []

    def log_probs(examples):
        asked.append(len(examples))
        return torch.arange(2.0 * len(examples)).view(-1, 2)

    section = settings(dpo_changes={"reference": "reference"})
    options = {"seed": 0, "run": tmp_path, "base_weights": "w", "reference_log_probs": log_probs}
    found = []
    for _ in range(2):
        found.append(train(tiny, make_data(), start(), section, reference_identity=known, **options).rows)
        without_checkpoint(tmp_path)
    assert torch.equal(*found)
    assert len(asked) == (1 if known else 2)


def test_all_processes_compute_them_where_one_does_not_find_them(tiny, tmp_path, monkeypatch):
    """A base that is spread over them runs in all at once, or waits for ever."""

    class Alone(Split):
        def add_up(self, tensor):
            return tensor

    class BesideOneWithout(Split):
        def add_up(self, tensor):
            return tensor + 1

    asked = counted(monkeypatch)
    section = settings()
    for split in (Alone(), Alone(), BesideOneWithout()):
        losses = StepLosses(tiny, make_data(), section, seed=0, split=split)
        losses.prepare_reference(start(), section.dpo, path=tmp_path / REFERENCE, identity="of this base")
    assert len(asked) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from llmpatch.training import Trainer, train
from test_training import make_data, settings, start
from tinymodels import make_tiny

update, calls = Trainer._update, []

def killing(self, state, stage):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, state, stage)

Trainer._update = killing
train(make_tiny(), make_data(60), start(), settings(), seed=0, run=Path(sys.argv[1]), base_weights="w")
"""


@pytest.mark.parametrize("killed_at", [4, 10])
def test_a_process_that_is_killed_hard_goes_on_to_the_same_bits(tiny, tmp_path, monkeypatch, killed_at):
    """At the fourth step of SFT, of which three were done and two written; at the fourth of DPO."""
    whole = train(tiny, make_data(60), start(), settings(), seed=0)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(killed_at)], env=environment | threads, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    asked = counted(monkeypatch)
    resumed = train(tiny, make_data(60), start(), settings(), seed=0, run=tmp_path, base_weights="w")
    assert torch.equal(resumed.rows, whole.rows)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert len(asked) == (1 if killed_at == 4 else 0)  # the killed one had kept them
