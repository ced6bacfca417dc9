"""Shards: answers kept on disk under the digest of everything they depend on.

    shard = Shard.of(identity, ["Hello!"], folder)
    shard.append(0, Answer("Hi.", "stop"))                 # survives a kill
    shard.finish(answers)                                  # one checked file in place of the partial one

A finished shard ``<key>.jsonl`` is a header (identity, count, sha256 of the rows) and one row per prompt. Until then
the rows are appended to ``<key>.partial.jsonl``, whose last line may be torn. Nothing read here is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpatch.answers import FINISHES, Answer
from llmpatch.errors import IntegrityError, LlmpatchError
from llmpatch.files import digest_json, encodable, read_bytes, write_bytes

FORMAT = "llmpatch-answers-v1"
MAX_SHARD_BYTES = 1 << 32  # `generate` keeps all its answers in one
_MAX_HEADER_BYTES = 1 << 20
_ROW_KEYS = {"index", "prompt", "completion", "finish"}


@dataclass(frozen=True)
class Shard:
    """The answers of one reference to a few prompts.

    Attributes:
        identity: Provenance of the reference.
        prompts: Their texts.
        folder: Where the files lie.
        key: Digest of identity and prompts; the name of the files.
    """

    identity: dict[str, Any]
    prompts: tuple[str, ...]
    folder: Path
    key: str

    @classmethod
    def of(cls, identity: dict[str, Any], prompts: Sequence[str], folder: Path) -> Shard:
        """The shard of these prompts."""
        return cls(identity, tuple(prompts), folder, digest_json([FORMAT, identity, list(prompts)]))

    @property
    def path(self) -> Path:
        """The finished file."""
        return self.folder / f"{self.key}.jsonl"

    @property
    def partial(self) -> Path:
        """The file that grows while answers come in."""
        return self.folder / f"{self.key}.partial.jsonl"

    def load(self) -> dict[int, Answer]:
        """The answers that are there, by index; a torn last line of a partial file is cut off.

        Raises:
            IntegrityError: a damaged or foreign file.
            LlmpatchError: it cannot be read or mended.
        """
        if self.path.exists():
            return self._read_finished()
        return self._read_partial() if self.partial.exists() else {}

    def append(self, index: int, answer: Answer, *, sync: bool = True) -> None:
        """Add one answer to the partial file. A killed process loses nothing.

        Args:
            index: Which prompt it answers.
            answer: The answer.
            sync: Wait until the disk has it, so that a power cut loses nothing either.

        Raises:
            LlmpatchError: the disk is full, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.partial.open("ab") as file:
                start = b"" if file.tell() else _line(self._header())
                file.write(start + _line(self._row(index, answer)))
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise LlmpatchError(
                f"cannot write {self.partial}: {error.strerror or error}",
                hint="free some space and run again; the answers so far are kept",
            ) from error

    def finish(self, answers: dict[int, Answer]) -> None:
        """Write the finished file and drop the partial one.

        Raises:
            LlmpatchError: the disk is full, or the folder cannot be written.
        """
        rows = b"".join(_line(self._row(index, answers[index])) for index in range(len(self.prompts)))
        header = self._header() | {"sha256": hashlib.sha256(rows).hexdigest()}
        write_bytes(self.path, _line(header) + rows)
        self.partial.unlink(missing_ok=True)

    def _header(self) -> dict[str, Any]:
        return {"format": FORMAT, "count": len(self.prompts), "identity": self.identity}

    def _row(self, index: int, answer: Answer) -> dict[str, Any]:
        return {
            "index": index,
            "prompt": self.prompts[index],
            "completion": answer.text,
            "finish": answer.finish,
        }

    def _read_finished(self) -> dict[int, Answer]:
        header, _, rows = read_bytes(self.path, limit=MAX_SHARD_BYTES).partition(b"\n")
        wanted = self._header() | {"sha256": hashlib.sha256(rows).hexdigest()}
        if _parse(header) != wanted:
            raise self._damaged(self.path, "its header does not match its rows or this reference")
        answers = self._read_rows(self.path, rows.split(b"\n")[:-1], first=2)
        if len(answers) != len(self.prompts):
            raise self._damaged(self.path, f"{len(answers)} of {len(self.prompts)} answers")
        return answers

    def _read_partial(self) -> dict[int, Answer]:
        data = read_bytes(self.partial, limit=MAX_SHARD_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            # A killed run left half a line; without the cut the next row would be glued to it.
            try:
                os.truncate(self.partial, len(whole))
            except OSError as error:
                raise LlmpatchError(
                    f"cannot mend {self.partial}: {error.strerror or error}", hint="check its permissions"
                ) from error
        if not whole:
            return {}
        header, *lines = whole.split(b"\n")[:-1]
        if _parse(header) != self._header():
            raise self._damaged(self.partial, "its header is not of this reference")
        return self._read_rows(self.partial, lines, first=2)

    def _read_rows(self, path: Path, lines: list[bytes], *, first: int) -> dict[int, Answer]:
        answers: dict[int, Answer] = {}
        for number, line in enumerate(lines, start=first):
            row = _parse(line)
            if not isinstance(row, dict) or row.keys() != _ROW_KEYS:
                raise self._damaged(path, f"line {number} is not a row")
            index, text, finish = row["index"], row["completion"], row["finish"]
            if type(index) is not int or not 0 <= index < len(self.prompts) or row["prompt"] != self.prompts[index]:
                raise self._damaged(path, f"line {number} is not of these prompts")
            if not isinstance(text, str) or not encodable(text) or finish not in FINISHES:
                raise self._damaged(path, f"line {number} has no text or no known finish")
            answers.setdefault(index, Answer(text, finish))
        return answers

    def _damaged(self, path: Path, reason: str) -> IntegrityError:
        return IntegrityError(
            f"shard {path} is damaged: {reason}", hint="delete that file; only its answers are asked for again"
        )


def answers_in(
    folder: Path, without: Collection[Path], identities: Sequence[dict[str, Any]]
) -> list[dict[str, Answer]]:
    """The answers of some references in the other files of a folder, finished or not, by prompt.

    What is not whole, or vanishes while it is read (another process has finished it), is passed over: it is asked again.

    Args:
        folder: Of shards.
        without: Files that are not read.
        identities: Whose answers are wanted.

    Returns:
        For each identity its answers.
    """
    found: list[dict[str, Answer]] = [{} for _ in identities]
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        if path in without or path.name.endswith(".scores.jsonl"):
            continue
        try:
            if path.stat().st_size > MAX_SHARD_BYTES:
                continue
            with path.open("rb") as file:
                header = _parse(file.readline(_MAX_HEADER_BYTES))
                if (
                    not isinstance(header, dict)
                    or header.get("format") != FORMAT
                    or header.get("identity") not in identities
                ):
                    continue
                rows = file.read()
        except OSError:
            continue
        if header.get("sha256") in (None, hashlib.sha256(rows).hexdigest()):
            found[identities.index(header["identity"])] |= _readable(rows)
    return found


def _readable(data: bytes) -> dict[str, Answer]:
    """The rows of a shard that are whole, by prompt."""
    found: dict[str, Answer] = {}
    for row in map(_parse, data.split(b"\n")[:-1]):
        if isinstance(row, dict) and row.keys() == _ROW_KEYS and row["finish"] in FINISHES:
            prompt, text = row["prompt"], row["completion"]
            if isinstance(prompt, str) and isinstance(text, str) and encodable(text):
                found[prompt] = Answer(text, row["finish"])
    return found


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def _parse(line: bytes) -> Any:
    """The JSON value of a line; ``None`` for anything that is not JSON."""
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # ValueError: bad UTF-8, bad JSON, and integers of thousands of digits
        return None
