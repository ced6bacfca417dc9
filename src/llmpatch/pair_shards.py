"""Pairs on disk, a chunk of prompts at a time: written whole or not at all, checked before they are read.

    shards = PairShards.open(Path("pairs"), identity_of(recipe), asked=asked_of(recipe), size=512, chunks=40)
    shards.missing()                        # chunks that are still to be made
    shards.write(12, pairs, dropped)
    pairs, counts = draw(shards, most=20_000, seed=0)

A folder holds ``plan.json`` and, of each finished chunk, ``000012.pairs.jsonl``, ``000012.dropped.jsonl`` and, written last,
``000012.json`` with counts and digests. A chunk without the last one is made again.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from llmpatch.errors import IntegrityError, UsageError
from llmpatch.files import (
    digest_json,
    expanded,
    iterate_lines,
    read_bytes,
    sampled,
    sha256_file,
    write_json,
    write_jsonl,
)
from llmpatch.pairs import Dropped, Pair
from llmpatch.prompts import KINDS
from llmpatch.recipe import PromptSet, Recipe

PLAN = "plan.json"
_MOST_BYTES = 1 << 20


class Plan(BaseModel):
    """What a folder of pairs is made of."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_: Literal["llmpatch/pairs/v1"] = Field(alias="schema")
    identity: str
    asked: str
    size: int = Field(ge=1)
    chunks: int = Field(ge=1)


class Told(BaseModel):
    """What is known of a finished chunk: digests of its files, and how many pairs of each kind are in them."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    pairs: str
    dropped: str
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class PairShards:
    """A folder of pairs.

    Attributes:
        folder: Where.
        identity: Digest of all that its pairs depend on.
        chunks: How many there will be.
    """

    folder: Path
    identity: str
    chunks: int

    @classmethod
    def open(cls, folder: Path, identity: str, *, asked: str, size: int, chunks: int) -> PairShards:
        """A folder for these pairs: a new one, or one that was begun.

        Where the answers are those that are wanted and the pairs are not, the pairs are made again of the same answers.

        Args:
            folder: Where.
            identity: Digest of all that the pairs depend on.
            asked: Digest of all that the answers depend on.
            size: Prompts in a chunk, about.
            chunks: How many chunks the prompts are dealt into.

        Raises:
            UsageError: the folder holds pairs of something else, or other files.
        """
        wanted = Plan(schema="llmpatch/pairs/v1", identity=identity, asked=asked, size=size, chunks=chunks)
        found = cls(folder, identity, chunks)
        before = _plan(folder) if (folder / PLAN).exists() else None
        if before == wanted:
            return found
        if before and before.model_copy(update={"identity": identity}) != wanted:
            raise UsageError(
                f"{folder} holds pairs of other prompts, models, decoding or chunks", hint="choose another folder"
            )
        if before:
            for number in range(chunks):
                found._path(number, "json").unlink(missing_ok=True)
        elif folder.is_dir() and any(file.name != ".lock" for file in folder.iterdir()):
            raise UsageError(f"{folder} is not empty, and holds no {PLAN}", hint="choose another folder")
        write_json(folder / PLAN, wanted.model_dump(mode="json", by_alias=True))
        return found

    @classmethod
    def load(cls, folder: Path) -> PairShards:
        """A folder that is finished.

        Raises:
            UsageError: there is none, or chunks are missing.
            IntegrityError: it is damaged.
        """
        plan = _plan(folder)
        found = cls(folder, plan.identity, plan.chunks)
        if missing := len(found.missing()):
            raise UsageError(
                f"{folder}: {missing} of {found.chunks} chunks of pairs are not made yet",
                hint="run `llmpatch pairs` again, it goes on where it was",
            )
        return found

    def missing(self) -> list[int]:
        """Chunks that are not finished."""
        return [number for number in range(self.chunks) if not self._path(number, "json").exists()]

    def write(self, number: int, pairs: Sequence[Pair], dropped: Sequence[Dropped]) -> None:
        """Write a chunk; it counts once its last file is there.

        Raises:
            LlmpatchError: the disk is full, or the folder cannot be written.
        """
        files: dict[str, Sequence[Pair | Dropped]] = {"pairs": pairs, "dropped": dropped}
        for name, rows in files.items():
            write_jsonl(self._path(number, f"{name}.jsonl"), [asdict(row) for row in rows])
        kept, lost = Counter(p.kind for p in pairs), Counter(d.kind for d in dropped)
        told = {name: sha256_file(self._path(number, f"{name}.jsonl")) for name in files}
        counts = {kind: {"kept": kept[kind], "dropped": lost[kind]} for kind in sorted({*kept, *lost})}
        write_json(self._path(number, "json"), {**told, "counts": counts})

    def told(self, number: int) -> Told:
        """What is known of a finished chunk.

        Raises:
            IntegrityError: it is damaged.
        """
        path = self._path(number, "json")
        try:
            return Told.model_validate_json(read_bytes(path, limit=_MOST_BYTES))
        except ValidationError:
            raise _damaged(path) from None

    def counts(self) -> dict[str, dict[str, int]]:
        """Pairs and dropped prompts of each kind, over all chunks.

        Raises:
            IntegrityError: a chunk is damaged.
        """
        totals: dict[str, Counter[str]] = {}
        for number in range(self.chunks):
            for kind, counts in self.told(number).counts.items():
                totals.setdefault(kind, Counter()).update(counts)
        return {kind: {"kept": found["kept"], "dropped": found["dropped"]} for kind, found in sorted(totals.items())}

    def pairs(self, number: int) -> Iterator[Pair]:
        """The pairs of a finished chunk.

        Raises:
            IntegrityError: it is damaged.
        """
        path = self._path(number, "pairs.jsonl")
        if not path.is_file() or sha256_file(path) != self.told(number).pairs:
            raise _damaged(path)
        for line in iterate_lines(path):
            try:
                yield _pairs().validate_json(line.text)
            except ValidationError:
                raise IntegrityError(
                    f"{path}:{line.number}: not a pair",
                    hint="delete this chunk's .json, and run `llmpatch pairs` again",
                ) from None

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:06d}.{suffix}"


_HOW_IT_IS_ASKED = ("concurrency", "requests_per_minute", "timeout_seconds", "retries", "api_key_env")


def identity_of(recipe: Recipe) -> str:
    """Digest of all in a recipe that decides its pairs, the bytes of its files included; training may differ.

    Of models that lie here it holds samples of their files: one may be trained again under the same path. How politely an
    endpoint is asked does not count, so that a run can go on with other limits.

    Raises:
        UsageError: a file is not there.
    """
    from llmpatch.judges import identity, open_judge

    said, models = _said(recipe, "base", "reference", "decoding", "prompts", "pairs"), _models(recipe)
    sets = _sets(recipe)
    files = _files(recipe, [path for section in sets for path in (*section.train, *section.validation)])
    focus = recipe.pairs.focus
    judges = [identity(open_judge(name)) for name in (recipe.pairs.judge, *([focus.judge] if focus else []))]
    return digest_json([said, files, judges, *([models] if models else [])])


def asked_of(recipe: Recipe) -> str:
    """Digest of all in a recipe that decides what is asked of whom: a judge, a margin or validation prompts do not.

    Raises:
        UsageError: a file is not there.
    """
    sets = [[section.train, section.limit, section.form] for section in _sets(recipe)]
    files = _files(recipe, [path for section in _sets(recipe) for path in section.train])
    return digest_json(
        [_said(recipe, "base", "reference", "decoding"), sets, files, recipe.pairs.samples, _models(recipe)]
    )


def _said(recipe: Recipe, *parts: str) -> dict[str, Any]:
    said = recipe.model_dump(mode="json", include=set(parts), exclude_defaults=True)
    for key in _HOW_IT_IS_ASKED:
        said.get("reference", {}).pop(key, None)
    return said


def _sets(recipe: Recipe) -> list[PromptSet]:
    return [found for kind in KINDS if (found := getattr(recipe.prompts, kind))]


def _files(recipe: Recipe, paths: Sequence[str]) -> dict[str, str]:
    """Digests of the files, and of the recording that is the reference."""
    recorded = [recipe.reference.path] if recipe.reference.kind == "recorded" and recipe.reference.path else []
    wanted = sorted({*paths, *recorded})
    if lost := [path for path in wanted if not Path(path).is_file()]:
        raise UsageError(f"no such file: {lost[0]}", hint="the recipe's paths start in the folder you are in")
    return {path: sha256_file(Path(path)) for path in wanted}


def _models(recipe: Recipe) -> dict[str, str]:
    """Samples of the models that lie here."""
    named = [(name, expanded(name)) for name in (recipe.base.name, recipe.reference.model) if name]
    return {name: sampled(path) for name, path in named if path.exists()}


def draw(shards: PairShards, most: int, seed: int) -> tuple[list[Pair], dict[str, dict[str, int]]]:
    """Pairs to train on, no more than fit into memory: all of them, or an even draw of each kind.

    Args:
        shards: A finished folder; one chunk of it is in memory.
        most: Of each kind at most this many, every pair being as likely as any other.
        seed: Decides which.

    Returns:
        The pairs in the folder's order, and of how many of each kind they are, kept and dropped. Harmless pairs of a chunk in
        which no harmful prompt gave an answer to reject have one of another chunk's.
    """
    random_numbers = random.Random(seed)
    seen: Counter[str] = Counter()
    places = {kind: list[tuple[int, Pair]]() for kind in KINDS}
    for number in range(shards.chunks):
        for pair in shards.pairs(number):
            kept, place = places[pair.kind], seen[pair.kind]
            seen[pair.kind] += 1
            if len(kept) < most:
                kept.append((sum(seen.values()), pair))
            elif (chosen := random_numbers.randrange(place + 1)) < most:  # Vitter 1985, algorithm R
                kept[chosen] = (sum(seen.values()), pair)
    found = sorted((entry for kept in places.values() for entry in kept), key=lambda entry: entry[0])
    return _with_something_to_reject([pair for _, pair in found]), shards.counts()


def _with_something_to_reject(pairs: list[Pair]) -> list[Pair]:
    told = [pair for pair in pairs if pair.kind == "harmful" and pair.chosen.strip()]
    if not told:
        return pairs
    filled: list[Pair] = []
    for number, pair in enumerate(pairs):
        other = told[number % len(told)]
        empty = pair.kind != "harmful" and not pair.rejected
        filled.append(replace(pair, rejected=other.chosen, rejected_ends=other.chosen_ends) if empty else pair)
    return filled


def _plan(folder: Path) -> Plan:
    try:
        return Plan.model_validate_json(read_bytes(folder / PLAN, limit=_MOST_BYTES))
    except ValidationError:
        raise IntegrityError(
            f"{folder / PLAN} is damaged, or of another version", hint="choose another folder"
        ) from None


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} is damaged", hint="delete this chunk's .json, and run `llmpatch pairs` again")


@functools.cache
def _pairs() -> TypeAdapter[Pair]:
    return TypeAdapter(Pair)
