"""Pairs of any number of prompts: chunk by chunk, by this process, by several, or by a Ray cluster.

    shards = make_pair_shards(recipe, Path("pairs"), workers=2, progress=console())
    patch = build(recipe, Path("out"), run=Path("run"), progress=console(), pairs_from=Path("pairs"))

Every way goes through :meth:`Job.make_chunk`, the steps of a small build on one chunk. What is finished is never made again, what
was answered never asked again: a killed run, a killed worker or a full disk costs the batch that was being sampled.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.chunks import CHUNK, Dealt, deal
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import alone_in
from llmpatch.pair_shards import PairShards, asked_of, identity_of
from llmpatch.pairing import DEATHS, Job
from llmpatch.progress import Advance, Progress

if TYPE_CHECKING:
    from llmpatch.recipe import Recipe


def make_pair_shards(
    recipe: Recipe, folder: Path, *, size: int = CHUNK, workers: int = 1, ray: str | None = None, progress: Progress
) -> PairShards:
    """Make a recipe's pairs, or what is missing of them.

    Args:
        recipe: Of what; its training and evaluation do not matter here.
        folder: Where pairs and answers go.
        size: Prompts in a chunk, about: what is in memory at once.
        workers: Processes that work side by side, each with a base of its own and an even share of the processors.
        ray: Address of a Ray cluster whose nodes see the same files: ``auto``, ``ray://HOST:10001``, or ``local`` to start one
            here. It runs ``workers`` actors.
        progress: Where to show how many prompts are done.

    Raises:
        UsageError: the recipe is joined with others, or a prompt set is wrong, or the folder is of something else; another
            process makes pairs in it.
        LlmpatchError: a stage failed, or workers died over one chunk again and again.
    """
    if recipe.joint:
        raise UsageError(f"{recipe.name} is joined with other recipes", hint="make the pairs of each by itself")
    dealt = deal(recipe, size)
    with alone_in(folder):
        return _make(recipe, dealt, folder, size, workers, ray, progress)


def _make(
    recipe: Recipe, dealt: Dealt, folder: Path, size: int, workers: int, ray: str | None, progress: Progress
) -> PairShards:
    shards = PairShards.open(folder, identity_of(recipe), asked=asked_of(recipe), size=size, chunks=len(dealt))
    missing = shards.missing()
    if recipe.reference.requests_per_minute and workers > 1:  # the endpoint counts all of them together
        workers = min(workers, recipe.reference.requests_per_minute)
        each = recipe.reference.requests_per_minute // workers
        own = recipe.reference.model_copy(update={"requests_per_minute": each})
        recipe = recipe.model_copy(update={"reference": own})
    job = Job(recipe, dealt, folder / "answers")
    with _prompts(progress, dealt, missing) as done:
        if not missing:
            pass
        elif ray:
            from llmpatch.ray_workers import on_ray

            on_ray(job, shards, missing, workers=workers, address=ray, done=done)
        elif workers > 1:
            _side_by_side(job, shards, missing, workers, done)
        else:
            models = job.open()
            for number in missing:
                shards.write(number, *job.make_chunk(models, number))
                done(number)
    return shards


@contextmanager
def _prompts(progress: Progress, dealt: Dealt, missing: list[int]) -> Iterator[Callable[[int], None]]:
    """One bar over all prompts; what it gives takes the number of a chunk that is done."""
    each = [dealt.size(number) for number in range(len(dealt))]
    with progress.stage("Pairs", sum(each)) as advance:
        _advance(advance, sum(each) - sum(each[number] for number in missing))
        yield lambda number: _advance(advance, each[number])


def _advance(advance: Advance, units: int) -> None:
    if units:
        advance(units)


@dataclass
class _Worker:
    """A process, our end of the pipe to it, and the chunk that it is at."""

    process: BaseProcess
    pipe: Connection
    number: int

    def give(self) -> None:
        """Send the number; if nobody is there to take it, reading the pipe will say so."""
        with suppress(OSError):
            self.pipe.send(self.number)


def _side_by_side(job: Job, shards: PairShards, missing: list[int], count: int, done: Callable[[int], None]) -> None:
    """Give chunks to processes as they become free; one that dies is replaced, and its chunk given out again."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    waiting, deaths = deque(missing), Counter[int]()
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < count:
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, job, shards, threads), daemon=True)
                process.start()
                theirs.close()  # so that its death ends the pipe
                workers.append(_Worker(process, ours, waiting.popleft()))
                workers[-1].give()
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                try:
                    failure = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    deaths[worker.number] += 1
                    if deaths[worker.number] == DEATHS:
                        worker.process.join()
                        raise LlmpatchError(
                            f"{DEATHS} workers died over chunk {worker.number} (exit code {worker.process.exitcode})",
                            hint="is there memory for so many? use fewer --workers; what is done is kept",
                        ) from None
                    waiting.appendleft(worker.number)
                    workers.remove(worker)
                    worker.process.join()
                    continue
                if failure is not None:
                    raise failure
                done(worker.number)
                if waiting:
                    worker.number = waiting.popleft()
                    worker.give()
                else:
                    workers.remove(worker)
                    worker.pipe.close()
                    worker.process.join()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _work(pipe: Connection, job: Job, shards: PairShards, threads: int) -> None:
    """A worker's life: chunks come in, what went wrong (or nothing) goes out, until nobody is there any more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        torch.set_num_threads(threads)
        _serve(pipe, job, shards)
    except KeyboardInterrupt:  # Ctrl-C reaches every process; the one that started them says so
        return


def _end_with_parent() -> None:
    """Whoever was killed alone cannot end its workers, which would ask on beside those of the next run."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _serve(pipe: Connection, job: Job, shards: PairShards) -> None:
    models = None
    while True:
        try:
            number = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            models = models or job.open()
            shards.write(number, *job.make_chunk(models, number))
        except LlmpatchError as error:
            pipe.send(error)
        else:
            pipe.send(None)
