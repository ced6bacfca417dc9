"""Every error llmpatch raises on purpose, with its exit code.

    LlmpatchError               2  could not do it (files, network, disk, models)
    ├── UsageError              1  the request itself is wrong (flags, recipe, prompts)
    │   └── RecipeError         1  a recipe with an unknown key, a wrong type, an empty prompt set
    ├── ReferenceFailedError    2  a reference (endpoint, engine, recording) gave no usable answer
    ├── GateError               3  the evidence does not pass the policy
    ├── AuditError              3  a known gap is open, an active patch has a known defect, or advisories are missing
    ├── TrustError              4  a signature or key is not trusted
    ├── WrongBaseError          5  the patch was made for another base
    └── IntegrityError          6  a file is damaged, truncated, foreign or oversized

A message says what was wrong and where; ``hint`` says what to do. The CLI prints both on one line each and exits
with ``exit_code``. Ctrl-C exits with 130.
"""

from __future__ import annotations

INTERRUPTED = 130


class LlmpatchError(Exception):
    """Base of all deliberate errors.

    Args:
        message: What was wrong, and where (a path, a key, a line).
        hint: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LlmpatchError):
    """The request itself is wrong."""

    exit_code = 1


class RecipeError(UsageError):
    """A recipe does not say something that can be built."""


class ReferenceFailedError(LlmpatchError):
    """A reference gave no usable answer."""


class GateError(LlmpatchError):
    """Evidence does not pass the policy."""

    exit_code = 3


class AuditError(LlmpatchError):
    """A known gap is open, an active patch has a known defect, or advisories are missing."""

    exit_code = 3


class TrustError(LlmpatchError):
    """A signature or a key is not trusted."""

    exit_code = 4


class WrongBaseError(LlmpatchError):
    """A patch meets a base it was not made for."""

    exit_code = 5


class IntegrityError(LlmpatchError):
    """A file is damaged, truncated, foreign or oversized."""

    exit_code = 6
