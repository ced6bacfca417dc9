"""The rows in memory: those that write come first, then those that still read their prompt, without gaps.

    batch = Batch(base, limits)
    batch.enter(job)
    batch.step()            # reads a piece of a prompt, then writes one token of every row that writes
    batch.free              # rows that may still enter

Rows enter and leave between steps. A long prompt is read in pieces, so that the others go on writing meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from llmpatch.answers import Finish
from llmpatch.bases import Base
from llmpatch.prefix import head_logits
from llmpatch.serving.jobs import Job, Piece, Row, Scored, first_row, sibling
from llmpatch.serving.keyvalues import KeyValues
from llmpatch.serving.limits import Limits
from llmpatch.serving.sampling import Token, choose, report

READ_TOKENS = 256  # of one prompt at a time
READ_TOGETHER = 512  # positions of several prompts that are read at once, filled up ones included


@dataclass
class Counts:
    """What was done since the start, for metrics."""

    steps: int = 0
    prompt_tokens: int = 0
    shared_tokens: int = 0
    written_tokens: int = 0


class Batch:
    """All rows of one model.

    Attributes:
        writing: Rows that write; the first rows of memory.
        reading: Rows that read; the rows behind those.
        counts: What was done.
    """

    def __init__(self, base: Base, limits: Limits) -> None:
        self.base, self.limits = base, limits
        self.memory = KeyValues(base, limits.rows, limits.context)
        self.writing: list[Row] = []
        self.reading: list[Row] = []
        self.counts = Counts()
        self._eos = frozenset(base.eos_ids)

    def __len__(self) -> int:
        return len(self.writing) + len(self.reading)

    @property
    def free(self) -> int:
        """Rows that may still enter; the choices of a prompt that is being read have theirs already."""
        return self.limits.rows - len(self) - sum(row.job.choices - 1 for row in self.reading)

    def rows(self) -> list[Row]:
        """All rows."""
        return [*self.writing, *self.reading]

    def enter(self, job: Job) -> None:
        """Take in a job; there must be as many free rows as it has choices."""
        row = first_row(self.base, job)
        self.memory.put(len(self), job.prefix, row.shared)
        self.reading.append(row)
        self.counts.prompt_tokens += len(job.ids)
        self.counts.shared_tokens += row.shared - job.prefix.rows

    def drop(self, row: Row) -> None:
        """Let a row go and close the gap."""
        if row in self.writing:
            self._fill(self.writing, row, 0)
            if self.reading:
                self._move(self.reading[-1], len(self), len(self.writing))
                self.reading.insert(0, self.reading.pop())
        else:
            self._fill(self.reading, row, len(self.writing))

    def step(self) -> None:
        """Read some, then write one token everywhere."""
        self.counts.steps += 1
        if self.reading:
            self._read()
        if self.writing:
            self._write()

    def _fill(self, rows: list[Row], row: Row, offset: int) -> None:
        """Take a row out of a list and put the list's last one in its place."""
        place, last = rows.index(row), rows[-1]
        if last is not row:
            self._move(last, offset + len(rows) - 1, offset + place)
            rows[place] = last
        rows.pop()

    def _move(self, row: Row, source: int, target: int) -> None:
        self.memory.move(source, target, row.job.prefix, row.shared, row.length)

    def _read(self) -> None:
        rows = self.reading[:1]
        if (size := len(rows[0].ids)) <= READ_TOKENS:
            for row in self.reading[1:]:
                size = max(size, len(row.ids))
                if size > READ_TOKENS or size * (len(rows) + 1) > READ_TOGETHER:
                    break
                rows.append(row)
        lengths = [min(len(row.ids), READ_TOKENS) for row in rows]
        width = max(lengths)
        ids = torch.tensor([[*row.ids[:n], *([0] * (width - n))] for row, n in zip(rows, lengths, strict=True)])
        hidden = self.memory.forward(len(self.writing), ids, [row.length for row in rows], lengths)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            if row.job.score_prompt:
                self._score(row, hidden[i, :length])
            row.length += length
            row.ids = row.ids[length:]
        if rows[0].ids:
            return
        last = hidden[torch.arange(len(rows)), torch.tensor(lengths, device=hidden.device) - 1]
        self._begin(rows, head_logits(self.base, last).float())

    def _score(self, row: Row, hidden: torch.Tensor) -> None:
        """Log-probabilities of a prompt's tokens: each from the position before it."""
        done = row.length - row.job.prefix.rows
        if not row.scored:
            row.scored.append(Token(row.job.ids[0]))
        logits = head_logits(self.base, hidden).float()
        following = row.job.ids[done + 1 : done + 1 + len(hidden)]
        top = row.job.sampling.top_logprobs or 0
        row.scored.extend(report(logits[i], token, top) for i, token in enumerate(following))

    def _begin(self, rows: list[Row], logits: torch.Tensor) -> None:
        """Rows that have read their prompt write their first token, and so do the other choices of their jobs."""
        self.reading = self.reading[len(rows) :]
        self.writing += rows
        started = list(zip(rows, logits, strict=True))
        for row, scores in zip(rows, logits, strict=True):
            if row.job.score_prompt:
                row.job.emit(Scored(tuple(row.scored)))
            for choice in range(1, row.job.choices):
                started.append((self._fork(row, choice), scores))
        ended = [row for row, _ in started if row.job.max_tokens == 0]
        for row in ended:
            self._finish(row, "length")
        self._choose([(row, scores) for row, scores in started if row.job.max_tokens > 0])

    def _fork(self, row: Row, choice: int) -> Row:
        """Another row with what ``row`` has read."""
        place = len(self.writing)
        if self.reading:
            self._move(self.reading[0], place, place + len(self.reading))
            self.reading.append(self.reading.pop(0))
        made = sibling(self.base, row, choice)
        self._move(made, self.writing.index(row), place)
        self.writing.append(made)
        return made

    def _write(self) -> None:
        rows = list(self.writing)
        ids = torch.tensor([[row.next] for row in rows])
        hidden = self.memory.forward(0, ids, [row.length for row in rows])
        for row in rows:
            row.length += 1
        logits = head_logits(self.base, hidden[:, -1]).float()
        self._choose(list(zip(rows, logits, strict=True)))

    def _choose(self, scored: list[tuple[Row, torch.Tensor]]) -> None:
        if not scored:
            return
        rows = [row for row, _ in scored]
        logits = torch.stack([scores for _, scores in scored])
        tokens = choose(logits, [row.job.sampling for row in rows], [row.random for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            self._hear(row, token)

    def _hear(self, row: Row, token: Token) -> None:
        job = row.job
        if token.id in self._eos and not job.ignore_eos:
            self._finish(row, "stop")
            return
        row.next = token.id
        row.count += 1
        self.counts.written_tokens += 1
        text, tokens = row.speech.hear(token)
        row.text += text
        row.tokens += tokens
        if row.speech.ended:
            self._finish(row, "stop")
        elif row.count >= job.max_tokens or time.monotonic() > job.deadline:
            self._finish(row, "length")
        elif job.stream and (row.text or row.tokens):
            job.emit(Piece(row.choice, row.text, tuple(row.tokens), None, row.count))
            row.text, row.tokens = "", []

    def _finish(self, row: Row, reason: Finish) -> None:
        text, tokens = row.speech.rest()
        finish: Finish = "stop" if row.speech.ended else reason
        self.drop(row)
        row.job.emit(Piece(row.choice, row.text + text, (*row.tokens, *tokens), finish, row.count))

    def expired(self) -> Iterator[Row]:
        """Rows that nobody waits for."""
        return (row for row in self.rows() if row.job.cancelled.is_set())
