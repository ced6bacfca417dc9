"""Chunks of pairs made by the actors of a Ray cluster, through Ray Data (extra ``ray``).

    on_ray(job, shards, shards.missing(), workers=16, address="auto", done=print)

Chunk numbers go out and pairs come back through the cluster; only this process writes into the folder of pairs. A node needs the
package, the base, and the recipe's files at the same paths (a shared folder, or Ray's ``working_dir``). Answers on the way are
kept below the folder as the node sees it: an actor that is started again goes on where the dead one was, if that is shared.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from llmpatch import errors
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.pairing import DEATHS
from llmpatch.pairs import Dropped, Pair

if TYPE_CHECKING:
    from llmpatch.pair_shards import PairShards
    from llmpatch.pairing import Job, Models

_MADE: TypeAdapter[tuple[list[Pair], list[Dropped]]] = TypeAdapter(tuple[list[Pair], list[Dropped]])


class ChunkMaker:
    """An actor: opens its models once, then makes chunk after chunk.

    Args:
        job: What to make.
        here: The folder in which the recipe's paths start, where a node has it; else they start in Ray's own.
        run: Name of this run of the cluster. Ray starts actors again without end; the deaths over a chunk are counted in a file
            of this name beside the chunk's answers.
    """

    def __init__(self, job: Job, here: Path, run: str) -> None:
        if here.is_dir():
            os.chdir(here)
        self.job, self.run = job, run
        self.models: Models | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """One number in; the number, the chunk as JSON and what went wrong out.

        A failure is given back and not raised: Ray would wrap it in the text of a traceback.
        """
        (number,) = (int(number) for number in batch["number"])
        made, failure = "", ""
        try:
            self._count(number)
            self.models = self.models or self.job.open()
            made = _MADE.dump_json(self.job.make_chunk(self.models, number)).decode()
        except LlmpatchError as error:
            made, failure = error.hint, f"{type(error).__name__}: {error.message}"
        return {"number": [number], "made": [made], "failure": [failure]}

    def _count(self, number: int) -> None:
        """Note that a chunk is begun.

        Raises:
            LlmpatchError: it was begun too often.
        """
        path = self.job.answers / f"{number:06d}" / f"begun-{self.run}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if file.tell() >= DEATHS:
                raise LlmpatchError(
                    f"{DEATHS} actors died over it", hint="is there memory for so many? use fewer --workers"
                )
            file.write(b".")


def on_ray(
    job: Job, shards: PairShards, missing: Sequence[int], *, workers: int, address: str, done: Callable[[int], None]
) -> None:
    """Make chunks on a cluster and write them here.

    Args:
        job: What to make.
        shards: Where to write.
        missing: Which chunks.
        workers: How many actors; each takes a GPU where the cluster has any, else an even share of its processors.
        address: ``local`` starts a cluster here and ends it; else what ``ray.init`` takes.
        done: Told the number of each chunk that is written.

    Raises:
        UsageError: Ray is not installed.
        LlmpatchError: there is no cluster at the address, a stage failed, or actors died over one chunk again and again.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(f"Ray cannot be imported: {error}", hint="pip install 'llmpatch[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        _make(ray, job, shards, missing, workers, done)
    finally:
        if ours:
            ray.shutdown()


def _failure(text: str) -> type[LlmpatchError]:
    """The kind of error that an actor's text begins with, so that the exit code is the one without a cluster."""
    kind = getattr(errors, text.partition(":")[0], None)
    return kind if isinstance(kind, type) and issubclass(kind, LlmpatchError) else LlmpatchError


def _connect(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:  # Ray exits where it reaches nobody
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise LlmpatchError(
            f"no Ray cluster at {address}: {reason}", hint="`ray start --head` starts one; `--ray local` needs none"
        ) from None


def _make(
    ray: Any, job: Job, shards: PairShards, missing: Sequence[int], workers: int, done: Callable[[int], None]
) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    there = ray.cluster_resources()
    share = {"num_gpus": 1} if there.get("GPU") else {"num_cpus": max(1, int(there.get("CPU", 1)) // workers)}
    numbers = ray.data.from_items([{"number": number} for number in missing], override_num_blocks=len(missing))
    made = numbers.map_batches(
        ChunkMaker,
        batch_size=1,
        fn_constructor_args=(job, Path.cwd(), uuid.uuid4().hex),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(missing))),
        **share,
    )
    try:
        for row in made.iter_rows():
            number = int(row["number"])
            if row["failure"]:
                raise _failure(row["failure"])(f"chunk {number}: {row['failure']}", hint=row["made"])
            shards.write(number, *_MADE.validate_json(row["made"]))
            done(number)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise LlmpatchError(
            f"Ray could not go on: {reason}", hint="is there memory for so many workers? what is done is kept"
        ) from None
